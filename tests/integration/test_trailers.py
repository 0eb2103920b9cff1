"""Trailers of requests: what is held of them, and whom they don't reach."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.integration.conftest import Client, Serve, registry
from tests.integration.recorder import OK, Recorder

GET = b"GET /v2/schemas/image HTTP/1.1\r\nHost: a\r\n\r\n"
VICTIM = GET.replace(b"/image ", b"/victim ")
UPLOAD = (
    b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
# So many wait that aiohttp's parser stops behind the last of them.
QUEUE = 32
TRAILER = b"X-%03d: " + b"a" * 16000 + b"\r\n"


async def open_to(
    client: Client, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = client.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port), ssl=context)


async def test_a_trailer_where_the_parser_stops_is_no_header_of_the_next_request(
    client: Client, recorder: Recorder
) -> None:
    recorder.answer = b""
    reader, writer = await open_to(client)
    writer.write(GET)
    await recorder.arrived.wait()
    evil = UPLOAD + b"0\r\nX-Evil: 1\r\n\r\n"
    # What has arrived ends like chunks without trailers.
    writer.write(GET * (QUEUE - 1) + evil + VICTIM * (QUEUE + 1) + UPLOAD + b"0\r\n\r\n")
    await recorder.has_got(b"\r\n\r\n")
    recorder.answer = OK
    recorder.writers[0].write(OK)
    while await reader.read(65536):
        pass
    assert not [head for head in recorder.received if b"x-evil" in head.lower()]
    writer.close()


@pytest.mark.parametrize("is_secured", [False, True])
async def test_trailers_without_an_end_end_the_connection(
    serve: Serve, recorder: Recorder, tmp_path: Path, *, is_secured: bool
) -> None:
    authority = Authority(tmp_path)
    listener = {"name": "public", "bind": "127.0.0.1:0"}
    client = await serve(
        registries=[registry(recorder.url, "registry", upstream_identity="token")],
        listeners=[{**listener, "tls": authority.server()} if is_secured else listener],
    )
    reader, writer = await open_to(client, authority.trusting() if is_secured else None)
    writer.write(UPLOAD + b"1\r\nx\r\n0\r\n" + b"".join(TRAILER % n for n in range(100)))
    with suppress(ConnectionError):
        await reader.read()
    await recorder.gone.wait()
    writer.close()


async def test_chunks_of_one_byte_are_a_body_like_any_other(client: Client) -> None:
    reader, writer = await open_to(client)
    writer.write(UPLOAD + b"1\r\nx\r\n" * 50_000)
    await writer.drain()
    writer.write(b"1;" + b"e" * 1000 + b"\r\nx\r\n0\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()
