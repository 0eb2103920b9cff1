"""Writing an answer to a client, who may read slowly or not at all.

What a client hasn't taken is held here. So a body that is at hand leaves in pieces, each when most
of those before has left; and a client that takes nothing at all for a while is gone. How long the
whole of an answer takes doesn't matter: slow links make progress.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from aiohttp import web
from aiohttp.http import StreamWriter

from relproxy.transports import reset

_LOG = logging.getLogger(__name__)

_PIECE_BYTES = 256 * 1024
# How long until what is held beneath TLS is looked at again: at first, and at most. A thousand
# clients that take a byte now and then would have a worker do nothing else.
_LOOK_S = 0.02
_MAX_LOOK_S = 1.0


class Writing:
    """One answer being written. A client that takes nothing for `patience_s` is cut off."""

    def __init__(
        self,
        request: web.BaseRequest,
        patience_s: float,
        beneath: asyncio.Transport | None = None,
    ) -> None:
        """Begin; `beneath` is the transport of the socket, where TLS has one above that."""
        self._protocol = request.protocol
        self._writer = cast("StreamWriter", request.writer)
        self._patience_s = patience_s
        self._beneath = beneath
        self._looking: asyncio.TimerHandle | None = None

    async def whole(self, head: bytes, body: bytes) -> None:
        """Write an answer whose body is at hand."""
        await self.part(head + body[:_PIECE_BYTES])
        rest = memoryview(body)
        for place in range(_PIECE_BYTES, len(body), _PIECE_BYTES):
            await self.part(rest[place : place + _PIECE_BYTES])

    async def part(self, content: bytes | memoryview) -> None:
        """Write a part of an answer, and wait until there is room for more."""
        await self._writer.write(content, drain=False)
        await self._taken()

    async def end(self) -> None:
        """Write the end, and wait until the system has taken what is still held here."""
        if self._writer.chunked:
            with self._watched():
                await self._writer.write_eof()
        transport = self._protocol.transport
        if transport is None or not self._held:
            return
        if self._beneath is not None:
            await self._left()
            return
        transport.set_write_buffer_limits(high=0)
        try:
            await self._taken()
        finally:
            transport.set_write_buffer_limits()

    async def _left(self) -> None:
        """Wait until TLS holds nothing, nor what is beneath it, which tells nobody when."""
        pause_s = _LOOK_S
        with self._watched():
            while self._held:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _MAX_LOOK_S)

    async def _taken(self) -> None:
        if self._protocol.writing_paused:
            with self._watched():
                await self._writer.drain()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Look from time to time whether the client takes anything."""
        self._look(self._held)
        try:
            yield
        finally:
            if self._looking is not None:
                self._looking.cancel()

    @property
    def _held(self) -> int:
        transport = self._protocol.transport
        if transport is None:
            return 0
        beneath = self._beneath.get_write_buffer_size() if self._beneath is not None else 0
        return transport.get_write_buffer_size() + beneath

    def _look(self, held: int) -> None:
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(self._patience_s, self._look_again, held)

    def _look_again(self, held: int) -> None:
        if (still := self._held) < held:
            self._look(still)
        elif self._protocol.transport is not None:
            _LOG.info("client takes nothing", extra={"held_bytes": still})
            reset(self._protocol.transport)
