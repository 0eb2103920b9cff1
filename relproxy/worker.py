"""One worker of several: what its supervisor hands it, and the line that joins the two.

The line is a pair of sockets. The worker says on it that it serves, again and again for as long as
its event loop runs; or why it can't begin. The supervisor says on it that the worker is replaced.
Its end tells each of them that the other is gone, however that died.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Self

from relproxy.certificates import from_text
from relproxy.sockets import Sockets

_LOG = logging.getLogger(__name__)

# What a worker says...
SERVES = b"."
REFUSES = b"!"
# ...and what it is told.
RETIRE = b"r"

_BEAT_S = 1.0


class Order(Enum):
    """Why a relproxy ends."""

    STOP = auto()
    # Others serve on the same sockets.
    RETIRE = auto()
    # The supervisor is gone, and nobody follows.
    ABANDONED = auto()


class Orders:
    """What one relproxy is told: the first order counts."""

    def __init__(self) -> None:
        self._told: asyncio.Future[Order] = asyncio.get_running_loop().create_future()

    @property
    def are_given(self) -> bool:
        """Whether there has been one."""
        return self._told.done()

    def give(self, order: Order) -> None:
        """Tell it to end."""
        if not self._told.done():
            self._told.set_result(order)

    async def wait(self) -> Order:
        """Wait for the order to end, and return it."""
        return await asyncio.shield(self._told)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's slot, from 0, and the descriptors that it inherits."""

    slot: int
    line: int
    listeners: Mapping[str, Sequence[int]]
    admin: Sequence[int]
    # A file in memory, of what the files of certificates and keys held.
    proofs: int

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
        listeners = (fd for fds in self.listeners.values() for fd in fds)
        return (self.line, self.proofs, *self.admin, *listeners)

    def sockets(self) -> Sockets:
        """Return the listening sockets that it inherited, with what to prove itself with."""
        proofs = Path(f"/dev/fd/{self.proofs}").read_text(encoding="utf-8")
        return Sockets(
            {name: _inherited(descriptors) for name, descriptors in self.listeners.items()},
            _inherited(self.admin),
            from_text(proofs),
        )

    def refuse(self, reason: str) -> None:
        """Say why this worker doesn't begin to serve."""
        with socket.socket(fileno=self.line) as line, suppress(OSError):
            line.sendall(REFUSES + reason.encode())

    async def attend(self, orders: Orders) -> None:
        """Say that this worker serves, and take orders from the supervisor until it is gone."""
        try:
            with socket.socket(fileno=self.line) as line, suppress(ConnectionError):
                line.setblocking(False)
                with _beating(line):
                    while await asyncio.get_running_loop().sock_recv(line, 1):
                        orders.give(Order.RETIRE)
            if not orders.are_given:
                _LOG.error("supervisor is gone")
        finally:
            orders.give(Order.ABANDONED)


@contextmanager
def _beating(line: socket.socket) -> Iterator[None]:
    """Say that the event loop runs, at once and again and again."""
    loop = asyncio.get_running_loop()
    handle: asyncio.Handle

    def beat() -> None:
        nonlocal handle
        handle = loop.call_later(_BEAT_S, beat)
        # Nobody reads, or nobody is there: that isn't the beat's business.
        with suppress(OSError):
            line.send(SERVES)

    handle = loop.call_soon(beat)
    try:
        yield
    finally:
        handle.cancel()


def _inherited(descriptors: Sequence[int]) -> Sequence[socket.socket]:
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]
