"""Clients that send slowly or not at all: what they hold has an end, in time and in bytes."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tests.integration.conftest import Client, Serve, registry
from tests.integration.recorder import OK, Recorder, exchanged, turns
from tests.integration.test_uploads import Wire, connected

GET = b"GET /v2/schemas/x HTTP/1.1\r\nHost: a\r\n"
PUT = b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\n"
FIELDS = b"".join(b"X-%d: " % n + b"x" * 16_000 + b"\r\n" for n in range(5))
EXPECTS = b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"


async def waiting(serve: Serve, recorder: Recorder, **timeouts: float) -> Client:
    return await serve(
        registries=[registry(recorder.url, "registry", upstream_identity="token")],
        timeouts={"shutdown_s": 1, **timeouts},
    )


async def test_a_head_is_refused_before_it_is_whole_when_it_is_too_large(
    client: Client, recorder: Recorder
) -> None:
    """The parser would hold 128 fields of 32 KiB each."""
    async with connected(client.url) as wire:
        wire.writer.write(GET + FIELDS)
        got = await wire.rest()
    assert got.partition(b"\r\n")[0].endswith(b" 431 Request Header Fields Too Large")
    assert recorder.wires == []


async def test_a_head_behind_a_request_under_way_is_refused_behind_its_answer(
    client: Client, recorder: Recorder
) -> None:
    recorder.answer = b""
    async with connected(client.url) as wire:
        wire.writer.write(GET + b"\r\n")
        await recorder.has_got(b"\r\n\r\n")
        wire.writer.write(GET + FIELDS)
        await turns()
        recorder.writers[0].write(OK)
        got = await wire.rest()
    assert got.startswith(OK)
    assert b" 431 " in got[len(OK) :].partition(b"\r\n")[0]


@pytest.mark.parametrize("begun", [b"G", GET[:-2], GET + b"X-A: b\r\n"])
async def test_a_head_that_does_not_arrive_in_its_time_is_answered_408(
    serve: Serve, recorder: Recorder, begun: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = await waiting(serve, recorder, request_head_s=0.1)
    got = await exchanged(client.url, begun)
    head, _, body = got.partition(b"\r\n\r\n")
    assert b" 408 Request Timeout\r\n" in head
    assert b"Cache-Control: no-store" in head
    assert body == b"The head of this request did not arrive within 0.1 s."
    (late,) = [vars(record) for record in caplog.records if record.msg == "head is late"]
    assert late["request_id"].encode() in head


async def test_a_byte_now_and_then_wins_a_head_no_time(serve: Serve, recorder: Recorder) -> None:
    client = await waiting(serve, recorder, request_head_s=0.3)
    async with connected(client.url) as wire:
        wire.writer.write(b"GET /")
        answer = asyncio.ensure_future(wire.rest())
        while not answer.done():
            wire.writer.write(b"x")
            await asyncio.sleep(0.02)
        assert b" 408 " in (await answer).partition(b"\r\n")[0]
    assert recorder.wires == []


async def test_a_head_that_is_whole_has_no_time_limit_on_its_answer(
    serve: Serve, recorder: Recorder
) -> None:
    client = await waiting(serve, recorder, request_head_s=0.1)
    recorder.answer = b""
    async with connected(client.url) as wire:
        wire.writer.write(GET)
        await turns()
        wire.writer.write(b"\r\n")
        await recorder.has_got(b"\r\n\r\n")
        await asyncio.sleep(0.3)
        recorder.writers[0].write(OK)
        assert await wire.head() == OK[:-2]


async def test_a_late_head_behind_a_request_under_way_is_answered_behind_it(
    serve: Serve, recorder: Recorder
) -> None:
    client = await waiting(serve, recorder, request_head_s=0.1)
    recorder.answer = b""
    async with connected(client.url) as wire:
        wire.writer.write(GET + b"\r\n")
        await recorder.has_got(b"\r\n\r\n")
        wire.writer.write(GET)
        await asyncio.sleep(0.3)
        recorder.writers[0].write(OK)
        got = await wire.rest()
    assert got.startswith(OK)
    assert b" 408 " in got[len(OK) :].partition(b"\r\n")[0]


@pytest.mark.parametrize("sent", [b"", b"\r\n", GET + b"\r\n"])
async def test_an_idle_connection_is_closed_after_its_time_without_a_word(
    serve: Serve, recorder: Recorder, sent: bytes
) -> None:
    client = await waiting(serve, recorder, client_keepalive_s=0.2)
    got = await exchanged(client.url, sent)
    assert got == (OK if sent.startswith(b"GET") else b"")


async def test_a_connection_on_which_a_head_arrives_is_not_idle(
    serve: Serve, recorder: Recorder
) -> None:
    client = await waiting(serve, recorder, client_keepalive_s=0.2)
    async with connected(client.url) as wire:
        wire.writer.write(GET)
        await asyncio.sleep(0.5)
        wire.writer.write(b"\r\n")
        assert (await wire.head()).startswith(b"HTTP/1.1 200 OK\r\n")


# -- bodies


async def refused(wire: Wire) -> bytes:
    """Return the answer of a relproxy to whom nothing comes any more."""
    got = await wire.rest()
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), got
    assert b"Connection: close" in head
    assert b"None of this request's body arrived for 0.2 s." in body
    return got


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"Content-Length: 99\r\n\r\nabc", id="short"),
        pytest.param(b"Content-Length: 99999\r\n\r\nabc", id="long"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", id="chunked"),
    ],
)
async def test_a_body_that_stops_arriving_is_answered_408_and_given_up_upstream(
    serve: Serve, recorder: Recorder, body: bytes
) -> None:
    client = await waiting(serve, recorder, request_body_s=0.2)
    async with connected(client.url) as wire:
        wire.writer.write(PUT + body)
        await refused(wire)
    await recorder.gone.wait()
    assert await client.metric("relproxy_upstream_errors_total") == 0
    assert not recorder.wires[0].endswith(b"0\r\n\r\n")


async def test_a_create_that_stops_arriving_is_answered_408_and_nothing_is_sent(
    serve: Serve, recorder: Recorder
) -> None:
    client = await waiting(serve, recorder, request_body_s=0.2)
    async with connected(client.url) as wire:
        wire.writer.write(
            b'POST /v2/images HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{"name"'
        )
        await refused(wire)
    assert recorder.wires == []


async def test_a_client_that_is_told_to_go_on_and_does_not_is_answered_408(
    serve: Serve, recorder: Recorder
) -> None:
    client = await waiting(serve, recorder, request_body_s=0.2)
    recorder.at_head = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with connected(client.url) as wire:
        wire.writer.write(PUT + EXPECTS)
        assert await wire.head() == recorder.at_head
        await refused(wire)


async def test_a_registry_that_does_not_take_a_body_is_not_its_clients_fault(
    serve: Serve, recorder: Recorder
) -> None:
    """The client sends as soon as it may: it isn't its time that passes."""
    client = await waiting(serve, recorder, request_body_s=0.2)
    recorder.answer = b""
    async with connected(client.url) as wire:
        wire.writer.write(PUT + b"Content-Length: 3\r\n\r\nabc")
        await recorder.has_got(b"abc")
        await asyncio.sleep(0.5)
        recorder.writers[0].write(OK)
        assert await wire.head() == OK[:-2]


# -- what is said of a refusal


@pytest.mark.parametrize(
    "request_", [GET.replace(b"GET", b"get"), GET + FIELDS], ids=["400", "431"]
)
async def test_no_cache_keeps_a_refusal_of_what_is_not_http(
    client: Client, request_: bytes
) -> None:
    got = await exchanged(client.url, request_ + b"\r\n")
    assert b"\r\nCache-Control: no-store\r\n" in got


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(
    "target",
    [b"/v2/images?limit=1&limit=2&t=secret", b"/" + b"x" * 9_000 + b"?secret", b"http://secret@a/"],
)
async def test_a_refusal_is_logged_shortly_and_without_the_query(
    client: Client, target: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    head = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: Host, close\r\n\r\n"
    await exchanged(client.url, head)
    (told,) = [vars(record) for record in caplog.records if record.msg == "request refused"]
    assert "secret" not in json.dumps(told, default=str)
    assert len(told["target"]) < 400


async def test_no_token_is_logged_with_an_answer_that_is_none(
    client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """The HTTP client's own error shows the headers of its request."""
    caplog.set_level(logging.INFO)
    recorder.answer = b"HTTP/1.1 200 OK\r\nX-A\r\n\r\n"
    head = GET + b"X-Auth-Token: secret\r\nConnection: close\r\n\r\n"
    assert (await exchanged(client.url, head)).startswith(b"HTTP/1.1 502 ")
    (told,) = [vars(record) for record in caplog.records if record.msg == "request refused"]
    assert "secret" not in json.dumps(told, default=str)
    assert told["cause"]
