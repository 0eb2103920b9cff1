"""Uploads that a registry refuses before it has read them, or half-way; on raw sockets, both sides.

`Expect: 100-continue` goes from end to end; an answer that comes while a body still arrives reaches
its client, and neither connection is used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from relproxy.config import Timeouts
from relproxy.endpoints import Endpoints
from relproxy.messages import Headers
from relproxy.metrics import Metrics
from relproxy.upstream import Upstream, open_session
from tests.integration.conftest import LOOPBACK, Client, Serve, registry
from tests.integration.recorder import OK, OTHER, Recorder, exchanged, turns

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UPLOAD = b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\n"
EXPECTS = UPLOAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
ENDLESS = UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
CHUNK = b"8000\r\n" + bytes(0x8000) + b"\r\n"
SILENT = {"via": None, "header": "none"}
# For what must not come of itself before a test's own time is over.
NEVER_S = 600


def answer(status: bytes, body: bytes = b"no") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


REFUSALS = [b"401 Unauthorized", b"404 Not Found", b"409 Conflict", b"413 Too Large"]


class Wire:
    """A client's connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.read()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def waiting(serve: Serve, recorder: Recorder, seconds: float) -> Client:
    """Start a relproxy that waits so long for the registry to want a body."""
    return await serve(
        registries=[registry(recorder.url, "registry", upstream_identity="token")],
        forwarding={**SILENT, "expect_continue_s": seconds},
    )


@pytest.fixture
async def patient(serve: Serve, recorder: Recorder) -> Client:
    """A relproxy that waits for the registry's 100 for longer than any test."""
    return await waiting(serve, recorder, NEVER_S)


async def is_served_on_a_connection_of_its_own(client: Client, recorder: Recorder) -> None:
    """Check that the next request has nothing to do with what was refused."""
    recorder.at_head, recorder.hangs_up, recorder.answer = b"", False, OK
    before = len(recorder.wires)
    assert (await exchanged(client.url, OTHER)).endswith(b"\r\n\r\nok")
    assert len(recorder.wires) == before + 1


# -- Expect: 100-continue


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_an_upload_that_the_registry_refuses_is_refused_before_it_is_sent(
    patient: Client, recorder: Recorder, refusal: bytes
) -> None:
    recorder.at_head = answer(refusal)
    async with connected(patient.url) as wire:
        wire.writer.write(EXPECTS)
        got = await wire.rest()
    assert got == answer(refusal).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert bytes(recorder.wires[0]) == (
        UPLOAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    )
    await is_served_on_a_connection_of_its_own(patient, recorder)


async def test_a_client_is_told_to_go_on_when_the_registry_says_so_and_not_before(
    patient: Client, recorder: Recorder
) -> None:
    async with connected(patient.url) as wire:
        wire.writer.write(EXPECTS)
        await recorder.has_got(b"\r\n\r\n")
        asked = asyncio.ensure_future(wire.head())
        assert not asked.done()
        recorder.writers[0].write(CONTINUE)
        assert await asked == CONTINUE
        assert recorder.wires[0].endswith(b"\r\n\r\n")
        wire.writer.write(b"abc")
        assert await wire.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert recorder.wires[0].endswith(b"\r\n\r\nabc")


async def test_a_registry_that_says_nothing_gets_the_body_after_a_while(
    serve: Serve, recorder: Recorder
) -> None:
    """WSGI servers that know no 100-continue would wait for ever, and the client with them."""
    client = await waiting(serve, recorder, 0.01)
    async with connected(client.url) as wire:
        wire.writer.write(EXPECTS)
        assert await wire.head() == CONTINUE
        wire.writer.write(b"abc")
        assert (await wire.head()).startswith(b"HTTP/1.1 200 OK\r\n")
    assert recorder.wires[0].endswith(b"Expect: 100-continue\r\n\r\nabc")


async def test_a_client_is_never_told_to_go_on_in_the_middle_of_an_answer(
    serve: Serve, recorder: Recorder
) -> None:
    """The time is over while the refusal's own body still arrives."""
    client = await waiting(serve, recorder, 0.2)
    recorder.at_head = b"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\nno"
    async with connected(client.url) as wire:
        wire.writer.write(EXPECTS)
        assert (await wire.head()).startswith(b"HTTP/1.1 409 ")
        await asyncio.sleep(0.5)
        recorder.writers[0].write(b"no")
        assert await wire.rest() == b"nono"


async def test_time_that_a_client_takes_after_it_was_told_to_go_on_is_not_the_registrys(
    serve: Serve, recorder: Recorder
) -> None:
    client = await serve(
        registries=[registry(recorder.url, "registry", upstream_identity="token")],
        timeouts={"shutdown_s": 1, "read_s": 0.2},
    )
    recorder.at_head = CONTINUE
    async with connected(client.url) as wire:
        wire.writer.write(EXPECTS)
        assert await wire.head() == CONTINUE
        await asyncio.sleep(0.5)
        wire.writer.write(b"abc")
        assert (await wire.head()).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "target", [pytest.param(b"file", id="data"), pytest.param(b"members", id="no-data")]
)
async def test_a_registry_has_as_long_to_want_a_body_as_it_has_to_say_so(
    serve: Serve, recorder: Recorder, target: bytes
) -> None:
    """Neither the time to begin an answer nor that to take a body has begun."""
    client = await serve(
        registries=[registry(recorder.url, "registry", upstream_identity="token")],
        forwarding={**SILENT, "expect_continue_s": NEVER_S},
        timeouts={"shutdown_s": 1, "head_s": 0.1, "read_s": 0.2},
    )
    recorder.answer = b""
    async with connected(client.url) as wire:
        wire.writer.write(EXPECTS.replace(b"file", target))
        await recorder.has_got(b"\r\n\r\n")
        # What waits for an answer meanwhile has waited for too long.
        for late in ("/v2/schemas/x", "/v2/images/x/file"):
            assert (await client.get(late)).status == 504
        recorder.answer = OK
        recorder.writers[0].write(CONTINUE)
        assert await wire.head() == CONTINUE
        wire.writer.write(b"abc")
        assert (await wire.head()).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("interim", [CONTINUE, HINTS], ids=["100", "103"])
async def test_a_registry_that_says_it_late_has_no_more_time_for_its_answer(
    serve: Serve, recorder: Recorder, interim: bytes
) -> None:
    """The body is there already, because it was asked for all the same."""
    client = await serve(
        registries=[registry(recorder.url, "registry", upstream_identity="token")],
        forwarding={**SILENT, "expect_continue_s": 0.01},
        timeouts={"shutdown_s": 1, "read_s": 0.3},
    )
    recorder.answer = b""
    async with connected(client.url) as wire:
        wire.writer.write(EXPECTS)
        assert await wire.head() == CONTINUE
        wire.writer.write(b"abc")
        await recorder.has_got(b"\r\n\r\nabc")
        recorder.writers[0].write(interim)
        assert (await wire.head()).startswith(b"HTTP/1.1 504 ")


async def test_other_interim_answers_are_not_passed_on_for_a_100(
    patient: Client, recorder: Recorder
) -> None:
    recorder.at_head = HINTS
    async with connected(patient.url) as wire:
        wire.writer.write(EXPECTS)
        await recorder.has_got(b"\r\n\r\n")
        await turns()
        recorder.writers[0].write(answer(REFUSALS[0]))
        assert (await wire.head()).startswith(b"HTTP/1.1 401 ")


async def test_what_relproxy_refuses_itself_is_refused_before_it_is_sent(
    serve: Serve, recorder: Recorder
) -> None:
    """A body over the cap, a stranger, and an image that isn't the caller's."""
    client = await serve(
        registries=[registry(recorder.url, "relproxy")],
        identity={"trusted_networks": LOOPBACK},
        limits={"max_request_body_bytes": 10},
    )
    caller = b"X-Project-Id: alice\r\nX-Roles: member\r\n"
    recorder.answer = answer(b"404 Not Found", b"")
    create = b"POST /v2/images HTTP/1.1\r\nHost: a\r\n"
    expects = b"Content-Length: 99\r\nExpect: 100-continue\r\n\r\n"
    for request, status in (
        (create + caller + expects, b"413"),
        (create + expects, b"401"),
        (
            UPLOAD.replace(b"/x/", b"/6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01/") + caller + expects,
            b"404",
        ),
    ):
        async with connected(client.url) as wire:
            wire.writer.write(request)
            got = await wire.rest()
        assert got.startswith(b"HTTP/1.1 %s " % status), got
        assert b"\r\nConnection: close\r\n" in got
    assert not any(received.startswith((b"POST", b"PUT")) for received in recorder.received)


async def test_nothing_is_expected_of_a_client_that_is_too_old_for_it(
    patient: Client, recorder: Recorder
) -> None:
    """RFC 9110, section 10.1.1: of an HTTP/1.0 client the expectation is ignored."""
    async with connected(patient.url) as wire:
        wire.writer.write(EXPECTS.replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc")
        assert (await wire.head()).startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Expect" not in recorder.head


# -- an answer while a body still arrives


async def send_until_told_to_stop(wire: Wire) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            wire.writer.write(CHUNK)
            await wire.writer.drain()
            await asyncio.sleep(0)


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_an_answer_reaches_a_client_that_is_still_sending(
    client: Client, recorder: Recorder, refusal: bytes
) -> None:
    recorder.at_head = answer(refusal)
    async with connected(client.url) as wire:
        wire.writer.write(ENDLESS + CHUNK)
        sending = asyncio.create_task(send_until_told_to_stop(wire))
        got = await wire.rest()
        sending.cancel()
    assert got == answer(refusal).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    await is_served_on_a_connection_of_its_own(client, recorder)


async def test_an_answer_of_a_registry_that_hangs_up_reaches_a_client_that_is_still_sending(
    client: Client, recorder: Recorder
) -> None:
    """The registry's end of the connection is reset, because it leaves what it was sent unread."""
    recorder.at_head, recorder.hangs_up = answer(REFUSALS[3]), True
    async with connected(client.url) as wire:
        wire.writer.write(ENDLESS + CHUNK)
        sending = asyncio.create_task(send_until_told_to_stop(wire))
        got = await wire.rest()
        sending.cancel()
    assert got == answer(REFUSALS[3]).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class _Torn:
    """A body under which a registry refuses and hangs up, just before the next chunk is written."""

    is_empty, length, is_awaited = False, None, False

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    async def chunks(self) -> AsyncIterator[bytes]:
        yield CHUNK
        peer, _ = self._listening.accept()
        peer.sendall(answer(REFUSALS[3]))
        peer.close()
        yield CHUNK
        yield CHUNK


async def test_an_answer_that_waits_to_be_read_when_writing_fails_is_read() -> None:
    """asyncio finds out by the writing, before it looks whether there is something to read."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        endpoints = Endpoints((f"http://127.0.0.1:{listening.getsockname()[1]}",))
        async with open_session(Timeouts()) as session:
            upstream = Upstream("glance", endpoints, session, Metrics())
            response = await upstream.send("PUT", "/", Headers(), _Torn(listening))
            assert response.head.status == 413
            assert not isinstance(response.body, bytes)
            assert [chunk async for chunk in response.body] == [b"no"]
            await response.aclose()


async def test_nothing_behind_a_body_that_nobody_read_is_taken_for_a_request(
    client: Client, recorder: Recorder
) -> None:
    recorder.at_head = answer(REFUSALS[3])
    async with connected(client.url) as wire:
        wire.writer.write(ENDLESS + b"3\r\nabc\r\n")
        head = await wire.head()
        wire.writer.write(b"0\r\n\r\nGET /v2/schemas/next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await wire.rest() == b"no"
    assert b"Connection: close" in head
    assert b"schemas/next" not in b"".join(recorder.wires)


async def test_a_short_body_that_nobody_read_is_thrown_away_and_the_connection_kept(
    client: Client, recorder: Recorder
) -> None:
    recorder.at_head = answer(REFUSALS[3])
    recorder.answer = b""
    async with connected(client.url) as wire:
        wire.writer.write(UPLOAD + b"Content-Length: 6\r\n\r\nabc")
        assert b"Connection: close" not in await wire.head()
        assert await wire.reader.readexactly(2) == b"no"
        wire.writer.write(b"def" + OTHER)
        assert (await wire.rest()).startswith(b"HTTP/1.1 413 ")
    assert len(recorder.received) == 2
    assert len(recorder.wires) == 2


async def test_an_answer_may_begin_before_the_body_ends_and_end_after_it(
    client: Client, recorder: Recorder
) -> None:
    recorder.at_head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    recorder.answer = b"done"
    async with connected(client.url) as wire:
        wire.writer.write(ENDLESS + b"3\r\nabc\r\n")
        assert (await wire.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        wire.writer.write(b"3\r\ndef\r\n0\r\n\r\n")
        assert await wire.rest() == b"done"
    assert recorder.wires[0].endswith(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
