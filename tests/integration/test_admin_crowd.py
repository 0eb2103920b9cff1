"""Strangers who can reach the admin listener: what they hold of relproxy, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from relproxy.vitals import look
from tests.integration.conftest import Client, Serve, eventually, registry
from tests.integration.recorder import Recorder

# More are not taken at once.
OPERATORS = 64
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
PAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

_Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def open_to_admin(client: Client) -> _Opened:
    host, _, port = client.admin_url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def waiting(serve: Serve, recorder: Recorder, **timeouts: float) -> Client:
    return await serve(
        registries=[registry(recorder.url, "registry", upstream_identity="token")],
        timeouts={"shutdown_s": 1, **timeouts},
    )


async def test_a_crowd_at_the_admin_listener_takes_no_descriptor_of_the_clients(
    client: Client,
) -> None:
    async def descriptors() -> int:
        return look().descriptors

    before = await descriptors()
    crowd = [await open_to_admin(client) for _ in range(4 * OPERATORS)]
    # Both ends are here.
    await eventually(descriptors, before + 4 * OPERATORS + OPERATORS)
    assert (await client.get("/v2/schemas/image")).status == 200
    for _, writer in crowd:
        writer.close()
    # Those who waited are let in, and have gone.
    assert (await client.get("/healthz", url=client.admin_url)).status == 200


async def test_an_operator_has_as_long_for_a_head_as_a_client(
    serve: Serve, recorder: Recorder
) -> None:
    client = await waiting(serve, recorder, request_head_s=0.2)
    reader, writer = await open_to_admin(client)
    writer.write(PROBE)
    assert (await reader.read()).split()[1] == b"408"
    writer.close()


async def test_a_head_without_an_end_ends_at_the_admin_listener_too(client: Client) -> None:
    reader, writer = await open_to_admin(client)
    writer.write(PROBE + b"".join(b"X-%02d: " % n + b"a" * 8000 + b"\r\n" for n in range(10)))
    assert (await reader.read()).split()[1] == b"431"
    writer.close()


async def test_an_operator_who_takes_nothing_is_cut_off(serve: Serve, recorder: Recorder) -> None:
    client = await waiting(serve, recorder, write_s=0.2)
    _, writer = await open_to_admin(client)
    with pytest.raises(ConnectionError):
        await ask_and_take_nothing(writer)


async def ask_and_take_nothing(writer: asyncio.StreamWriter) -> None:
    """Ask for ever; asyncio's reader stops to read behind 128 KiB."""
    while True:
        writer.write(PAGE * 100)
        await writer.drain()


async def test_a_trailer_is_no_header_of_the_next_request_of_an_operator(client: Client) -> None:
    reader, writer = await open_to_admin(client)
    writer.write(PROBE + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHost: evil.example\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\nConnection: close\r\n" in answer
    writer.close()
