"""Clients that ask and don't read: what is held for them has an end, in time and in bytes."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lab.stand_in import StandIn
from tests.integration.conftest import EVENTUALLY_S, Client, Serve, eventually, registry
from tests.integration.recorder import Recorder

MiB = 1024**2
# More than the buffers of both ends of a loopback connection.
MUCH = 16 * MiB
LIST = (
    b"GET /v2/images?limit=100 HTTP/1.1\r\nHost: a\r\nX-Project-Id: %s\r\nX-Roles: member\r\n\r\n"
)
IN_PROGRESS = "relproxy_requests_in_progress"


class Asking:
    """Makes clients that ask and don't read."""

    def __init__(self, held: ExitStack) -> None:
        self._held = held

    def ask(self, url: str, request: bytes) -> socket.socket:
        host, _, port = url.removeprefix("http://").partition(":")
        client = self._held.enter_context(socket.socket())
        # What the client's system takes for it is little.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.sendall(request)
        return client


@pytest.fixture
def asking() -> Iterator[Asking]:
    with ExitStack() as held:
        yield Asking(held)


async def ended(client: socket.socket) -> None:
    """Wait until a connection has been reset, without reading of it."""
    poll = select.poll()
    poll.register(client.fileno(), select.POLLERR | select.POLLHUP)
    assert await asyncio.to_thread(poll.poll, EVENTUALLY_S * 1000), "the connection is still there"


async def fill(client: Client, project: str, *, images: int) -> None:
    """Make images whose list has as many MiB."""
    for number in range(images):
        made = await client.create(f"i{number}", project, fields={"p": "x" * (MiB - 4096)})
        assert made.status == 201


async def test_a_download_that_its_client_does_not_take_ends_on_both_sides(
    serve: Serve, recorder: Recorder, asking: Asking
) -> None:
    client = await serve(
        registries=[registry(recorder.url, "registry", upstream_identity="token")],
        timeouts={"shutdown_s": 1, "write_s": 0.2},
    )
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MUCH + bytes(MUCH)
    who = asking.ask(client.url, b"GET /v2/images/x/file HTTP/1.1\r\nHost: a\r\n\r\n")
    await ended(who)
    await recorder.gone.wait()


async def test_a_list_that_its_client_does_not_take_ends(
    serve: Serve, noauth: StandIn, asking: Asking
) -> None:
    client = await serve(
        registries=[registry(noauth.url, "relproxy")], timeouts={"shutdown_s": 1, "write_s": 0.2}
    )
    await fill(client, "bob", images=8)
    await ended(asking.ask(client.url, LIST % b"bob"))
    await eventually(lambda: client.metric(IN_PROGRESS), 0.0)


async def test_a_project_whose_clients_do_not_read_is_refused_and_no_other_one(
    serve: Serve, noauth: StandIn, asking: Asking
) -> None:
    client = await serve(
        registries=[registry(noauth.url, "relproxy")], limits={"max_unsent_bytes": 48 * MiB}
    )
    await fill(client, "bob", images=8)
    await fill(client, "alice", images=1)
    who = asking.ask(client.url, LIST % b"bob")
    # Its head is there: so the rest of it waits.
    assert await asyncio.to_thread(who.recv, 12) == b"HTTP/1.1 200"
    refused = await client.get("/v2/images", project="bob")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    assert (await client.get("/v2/images?limit=0", project="bob")).status == 200
    assert (await client.get("/v2/images", project="alice")).status == 200
    who.close()

    async def status() -> int:
        return (await client.get("/v2/images", project="bob")).status

    await eventually(status, 200)
