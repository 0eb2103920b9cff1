"""One worker of several: what its supervisor hands it, and the line that joins the two.

The line is a pair of sockets. The worker says on it that it serves, and nothing else is ever said:
its end tells each of them that the other is gone, however that died.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Self

from relproxy.sockets import Sockets

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's slot, from 0, and the descriptors that it inherits."""

    slot: int
    line: int
    listeners: Mapping[str, Sequence[int]]
    admin: Sequence[int]

    @classmethod
    def from_argument(cls, text: str) -> Self:
        """Read what `to_argument` wrote."""
        return cls(**json.loads(text))

    def to_argument(self) -> str:
        """Return the worker as one argument of its command."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that it inherits."""
        return (self.line, *self.admin, *(fd for fds in self.listeners.values() for fd in fds))

    def sockets(self) -> Sockets:
        """Return the listening sockets that it inherited."""
        return Sockets(
            {name: _inherited(descriptors) for name, descriptors in self.listeners.items()},
            _inherited(self.admin),
        )

    async def attend(self, stopped: asyncio.Event) -> None:
        """Say that this worker serves, and set `stopped` when the supervisor is gone."""
        loop = asyncio.get_running_loop()
        try:
            with socket.socket(fileno=self.line) as line, suppress(ConnectionError):
                line.setblocking(False)
                await loop.sock_sendall(line, b".")
                await loop.sock_recv(line, 1)
            _LOG.error("supervisor is gone")
        finally:
            stopped.set()


def _inherited(descriptors: Sequence[int]) -> Sequence[socket.socket]:
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]
