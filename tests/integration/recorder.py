"""An upstream that is nothing but a socket: it keeps what it got, and answers given bytes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

_LIMIT_BYTES = 2**20

# A request of somebody else's, who uses a connection of their own.
OTHER = b"GET /v2/schemas/other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Recorder:
    """Raw requests in order, and the raw answer to each.

    `at_head` is sent as soon as a request's head is there; `hangs_up` closes without a look at its
    body. `wires` is every byte that came over each connection, whatever it means; `writers` is for
    what a registry sends unasked.
    """

    port: int = 0
    scheme: str = "http"
    answer: bytes = OK
    at_head: bytes = b""
    hangs_up: bool = False
    closes: bool = False
    connections: int = 0
    received: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    wires: list[bytearray] = field(default_factory=list)
    something: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def head(self) -> bytes:
        """The head of the last request."""
        return self.received[-1].partition(b"\r\n\r\n")[0]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.received.append(head)
                writer.write(self.at_head)
                if self.hangs_up:
                    break
                await self._read_body(reader, head.lower())
                self.arrived.set()
                if self.answer:
                    writer.write(self.answer)
                    await writer.drain()
                if self.closes:
                    break
        self.gone.set()
        writer.close()

    async def _read_body(self, reader: asyncio.StreamReader, head: bytes) -> None:
        if b"content-length: " in head:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.received[-1] += await reader.readexactly(length)
        elif b"transfer-encoding: chunked" in head:
            self.received[-1] += await reader.readuntil(b"0\r\n\r\n")

    async def has_got(self, end: bytes) -> None:
        """Wait until the first connection's bytes end so."""
        while not (self.wires and self.wires[0].endswith(end)):
            self.something.clear()
            await self.something.wait()

    def protocol(self) -> asyncio.StreamReaderProtocol:
        """Make the protocol of one connection."""
        wire = bytearray()
        self.wires.append(wire)
        return asyncio.StreamReaderProtocol(_Tapped(wire, self.something), self.serve)


class _Tapped(asyncio.StreamReader):
    """A stream that keeps each byte as it arrives, before anybody takes it for anything."""

    def __init__(self, wire: bytearray, something: asyncio.Event) -> None:
        super().__init__(limit=_LIMIT_BYTES)
        self._wire = wire
        self._something = something

    def feed_data(self, data: Any) -> None:
        self._wire += data
        self._something.set()
        super().feed_data(data)


@contextlib.asynccontextmanager
async def recording(tls: ssl.SSLContext | None = None) -> AsyncIterator[Recorder]:
    """Run a recorder on a free port, over TLS if that is given."""
    recorder = Recorder(scheme="http" if tls is None else "https")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(recorder.protocol, "127.0.0.1", 0, ssl=tls)
    recorder.port = server.sockets[0].getsockname()[1]
    try:
        yield recorder
    finally:
        server.close()


async def exchanged(url: str, request: bytes, *, until_closed: bool = True) -> bytes:
    """Send raw bytes to a server and return what it answers until it closes."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await (reader.read() if until_closed else reader.readuntil(b"\r\n\r\n"))
    finally:
        writer.close()


async def until_broken(url: str, request: bytes) -> bytes:
    """Return what is answered up to the end of the connection, be it broken off."""
    try:
        return await exchanged(url, request)
    except ConnectionResetError:
        return b""


async def next_request_gets_its_own(url: str, recorder: Recorder, name: str) -> None:
    """Check that nothing of the last answer, nor its connection, serves the next request."""
    recorder.answer = OK
    before = len(recorder.wires)
    got = await exchanged(url, OTHER)
    assert got == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", name
    assert bytes(recorder.wires[-1]) == OTHER.replace(b"Connection: close\r\n", b""), name
    assert len(recorder.wires) == before + 1, f"{name}: the connection was used again"
    # Out of the pool, so that the next case begins with a connection of its own.
    recorder.writers[-1].close()
    await recorder.writers[-1].wait_closed()


async def turns() -> None:
    """Let the loop, which is relproxy's too, read what has arrived."""
    for _ in range(20):
        await asyncio.sleep(0)
