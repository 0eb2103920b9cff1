from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from aiohttp import web

from relproxy.writing import Writing

KiB = 1024


class FakeClient:
    """A transport and its protocol, of a client that takes what it is said to take, and when."""

    def __init__(self, *takes: int, is_reading: bool = False) -> None:
        self.transport: FakeClient | None = self
        self.writing_paused = False
        self.aborted = False
        self.sizes: list[int] = []
        self.chunked = False
        self._takes = list(takes)
        self._is_reading = is_reading
        self._held = 0
        self._drained: asyncio.Future[None] | None = None

    @property
    def request(self) -> web.BaseRequest:
        return cast(web.BaseRequest, SimpleNamespace(protocol=self, writer=self))

    # -- the writer

    async def write(self, content: Any, *, drain: bool) -> None:
        assert not drain
        self.sizes.append(len(content))
        self._held += 0 if self._is_reading else len(content)
        self.writing_paused = self._held > 0

    async def drain(self) -> None:
        if self.writing_paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    # -- the transport

    def get_write_buffer_size(self) -> int:
        """Whenever it is looked at something more has been taken."""
        self._held -= self._takes.pop(0) if self._takes else 0
        if self._held <= 0 and self._drained is not None and not self._drained.done():
            self.writing_paused = False
            self._drained.set_result(None)
        return self._held

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        pass

    def get_extra_info(self, _: str) -> None:
        return None

    def abort(self) -> None:
        self.aborted = True
        self.transport, self.writing_paused = None, False
        assert self._drained is not None
        self._drained.set_result(None)


async def test_a_body_leaves_in_pieces() -> None:
    client = FakeClient(is_reading=True)
    await Writing(client.request, 1).whole(b"h" * 100, bytes(600 * KiB))
    assert client.sizes == [100 + 256 * KiB, 256 * KiB, 88 * KiB]


async def test_no_piece_leaves_before_those_before_are_taken() -> None:
    client = FakeClient()
    await Writing(client.request, 0.001).part(bytes(10))
    assert client.aborted


async def test_a_client_that_takes_a_byte_now_and_then_is_waited_for() -> None:
    client = FakeClient(*[1] * 10)
    await Writing(client.request, 0.001).part(bytes(10))
    assert not client.aborted


class FakeSocket:
    """The transport beneath TLS, of a client that takes so much each time that it is looked at."""

    def __init__(self, held: int, *takes: int) -> None:
        self._held = held
        self._takes = list(takes)
        self.looks = 0

    def get_write_buffer_size(self) -> int:
        self.looks += 1
        self._held -= self._takes.pop(0) if self._takes else 0
        return self._held


async def test_what_tls_has_handed_on_is_waited_for_at_the_end() -> None:
    client, beneath = FakeClient(is_reading=True), FakeSocket(50, *[10] * 5)
    await Writing(client.request, 60, cast(asyncio.Transport, beneath)).end()
    assert beneath.get_write_buffer_size() == 0
    assert not client.aborted


async def test_a_client_that_takes_nothing_of_what_tls_has_handed_on_is_cut_off() -> None:
    client, beneath = FakeClient(is_reading=True), FakeSocket(50)
    client._drained = asyncio.get_running_loop().create_future()  # noqa: SLF001
    await Writing(client.request, 0.001, cast(asyncio.Transport, beneath)).end()
    assert client.aborted


async def test_a_client_that_takes_little_is_looked_at_ever_more_seldom() -> None:
    client, beneath = FakeClient(is_reading=True), FakeSocket(50)
    client._drained = asyncio.get_running_loop().create_future()  # noqa: SLF001
    # As often as at first it would be 25 times.
    await Writing(client.request, 0.5, cast(asyncio.Transport, beneath)).end()
    assert client.aborted
    assert beneath.looks < 15
