"""A registry that is a socket, and ails as each request itself asks for, in its `X-Ail`.

It serves many requests at once, each with an ail of its own; what it does well it does as Glance:
lists, creates, images by id, uploads and downloads. `X-Token` names a request, so that a test can
wait until it is there and let it go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

_RESET = struct.pack("ii", 1, 0)
_DOWNLOAD = bytes(64 * 1024)
MUCH = 16 * 1024**2
_DRIP_S = 0.001
# Much less than any body, so that the rest is missing.
_PART_BYTES = 20


@dataclass(frozen=True)
class Asked:
    """One request that has arrived: its body is still to be read."""

    method: str
    target: str
    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def ail(self) -> str:
        return self.headers.get("x-ail", "")

    @property
    def token(self) -> str:
        return self.headers.get("x-token", "")

    async def body(self) -> bytes:
        """Read the body, however it is framed."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            return b"".join([chunk async for chunk in self._chunks()])
        return await self.reader.readexactly(int(self.headers.get("content-length", "0")))

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readline(), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()

    def reset(self) -> None:
        """End the connection as a machine that loses its memory would."""
        peer = self.writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()


@dataclass
class Wayward:
    """A registry; `served` counts what it did, by method and ail."""

    served: Counter[tuple[str, str]] = field(default_factory=Counter)
    images: dict[str, dict[str, object]] = field(default_factory=dict)
    _times: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def asked(self, token: str, times: int = 1) -> None:
        """Wait until requests of this name have come so often."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._times[token] >= times)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        gone = (asyncio.IncompleteReadError, ConnectionError, ValueError)
        try:
            with contextlib.suppress(*gone):
                while await self._one(await _asked(reader, writer)):
                    pass
        finally:
            writer.close()

    async def _one(self, asked: Asked) -> bool:
        """Answer one request; tell whether the connection goes on."""
        self.served[asked.method, asked.ail] += 1
        async with self._changed:
            self._times[asked.token] += 1
            self._changed.notify_all()
        kind, _, rest = asked.ail.partition(" ")
        if kind == "refuse":
            asked.writer.write(_head(int(rest), {"Content-Length": "2"}) + b"no")
            return await self._lingered(asked)
        if kind == "unread":
            asked.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.Event().wait()
        answer = self._answer(asked, await asked.body())
        match kind:
            case "hang":
                await asked.reader.read(1)
                return False
            case "late":
                await asyncio.sleep(0.05)
            case "begin":
                asked.writer.write(answer[: answer.index(b"\r\n\r\n") + 4])
                await asked.reader.read(1)
                return False
            case "drip":
                return await self._dripped(asked, answer)
            case "rst" | "fin":
                return await self._dies(asked, answer, kind)
        asked.writer.write(answer)
        await asked.writer.drain()
        return True

    async def _dripped(self, asked: Asked, answer: bytes) -> bool:
        for place in range(200):
            asked.writer.write(answer[place : place + 1])
            await asyncio.sleep(_DRIP_S)
        asked.writer.write(answer[200:])
        await asked.writer.drain()
        return True

    async def _dies(self, asked: Asked, answer: bytes, how: str) -> bool:
        asked.writer.write(answer[: answer.index(b"\r\n\r\n") + _PART_BYTES])
        await asked.writer.drain()
        if how == "rst":
            asked.reset()
        return False

    async def _lingered(self, asked: Asked) -> bool:
        """Hang up without having read the body, as some servers do: it is reset."""
        await asked.writer.drain()
        return False

    def _answer(self, asked: Asked, body: bytes) -> bytes:
        status, content = self._said(asked, body)
        if "chunked" in asked.ail:
            framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
            return _head(status, {"Transfer-Encoding": "chunked"}) + framed
        return _head(status, {"Content-Length": str(len(content))}) + content

    def _said(self, asked: Asked, body: bytes) -> tuple[int, bytes]:
        path = urlsplit(asked.target).path
        if asked.method == "PUT":
            return 204, b""
        if path.endswith("/file"):
            return (200, bytes(MUCH) if "much" in asked.ail else _DOWNLOAD)
        if path != "/v2/images":
            made = self.images.get(path.rpartition("/")[2])
            return (404, b"no such image") if made is None else (200, json.dumps(made).encode())
        if asked.method == "POST":
            chosen = json.loads(body).get("id") or str(uuid.uuid4())
            image = _image(chosen, asked.headers.get("x-project-id", ""))
            self.images[str(image["id"])] = image
            return 201, json.dumps(image).encode()
        return 200, json.dumps(_page(asked)).encode()


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    fields = (line.partition(":") for line in lines[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    return Asked(method, target, headers, reader, writer)


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode()


def _image(image_id: str, owner: str, visibility: str = "private") -> dict[str, object]:
    at = "2026-01-01T00:00:00Z"
    return {
        "id": image_id,
        "name": "x",
        "owner": owner,
        "visibility": visibility,
        "status": "active",
        "created_at": at,
        "updated_at": at,
    }


def _page(asked: Asked) -> dict[str, object]:
    """Return a page of a list: of public images, or one of endlessly many that are all hidden."""
    wanted = parse_qs(urlsplit(asked.target).query)
    ids = _ids(int(wanted.get("marker", ["0"])[0].rpartition("-")[2], 16))
    page: dict[str, object] = {"schema": "/v2/schemas/images", "first": "/v2/images"}
    if "pages" in asked.ail:
        images = [_image(next(ids), "somebody else") for _ in range(5)]
        page["next"] = f"/v2/images?marker={images[-1]['id']}"
    else:
        images = [_image(next(ids), "somebody else", "public") for _ in range(3)]
    if "much" in asked.ail:
        images = [{**image, "p": "x" * (MUCH // 3)} for image in images]
    return page | {"images": images}


def _ids(after: int) -> Iterator[str]:
    number = after
    while True:
        number += 1
        yield f"00000000-0000-4000-8000-{number:012x}"


@contextlib.asynccontextmanager
async def wayward_at(
    port: int, images: dict[str, dict[str, object]] | None = None
) -> AsyncIterator[Wayward]:
    """Run one on a port, and end all that it does with it; `images` is what it has already."""
    made = Wayward(images={} if images is None else images)
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    has_ended = False

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # asyncio's streams log it
            await made.serve(reader, writer)

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What was accepted just before the end comes after it, and would be served by who is gone.
        if has_ended:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(served(reader, writer))
        serving[task] = writer
        task.add_done_callback(serving.pop)

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=2**20, backlog=1024)
    try:
        yield made
    finally:
        has_ended = True
        server.close()
        # Also those whose tasks have not begun, and so end without having closed anything.
        under_way = dict(serving)
        for task, writer in under_way.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*under_way, return_exceptions=True)
