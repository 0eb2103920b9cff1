from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator

import pytest

from lab.processes import free_port
from lab.stand_in import StandIn
from tests.integration.conftest import Client, Serve, eventually, registry
from tests.integration.recorder import OTHER, Recorder, exchanged, until_broken


async def test_end_to_end_fields_arrive_as_sent_in_their_order(
    client: Client, recorder: Recorder
) -> None:
    await exchanged(
        client.url,
        b"GET /v2/schemas/image HTTP/1.1\r\nhost: images.example\r\nX-B: 2\r\nX-a:  1\r\n"
        b"X-B: 3\r\nAccept: */*\r\nUser-Agent: me\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
        b"TE: trailers\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nX-\xc3\xa9: \xe2\x82\xac\r\n"
        b"\r\n".replace(b"X-\xc3\xa9", b"X-E"),
    )
    lines = recorder.head.split(b"\r\n")
    assert lines[0] == b"GET /v2/schemas/image HTTP/1.1"
    assert lines[1] == b"host: images.example"
    assert lines[2:] == [
        b"X-B: 2", b"X-a: 1", b"X-B: 3", b"Accept: */*", b"User-Agent: me", b"X-E: \xe2\x82\xac",
    ]  # fmt: skip


async def test_fields_whose_names_differ_in_case_are_all_sent(
    client: Client, recorder: Recorder
) -> None:
    """aiohttp's client takes the second one for the first one's new value."""
    fields = b"X-A: 1\r\nX-B: 2\r\nX-A: 3\r\nx-a: 4\r\n"
    await exchanged(
        client.url, b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"Connection: close\r\n\r\n"
    )
    assert recorder.head + b"\r\n" == b"GET / HTTP/1.1\r\nHost: a\r\n" + fields


async def test_nothing_is_added_to_a_request(client: Client, recorder: Recorder) -> None:
    await exchanged(client.url, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert recorder.head == b"GET / HTTP/1.1\r\nHost: a"


async def test_a_header_that_can_not_be_sent_as_it_came_is_refused(
    client: Client, recorder: Recorder
) -> None:
    answer = await exchanged(
        client.url, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: \xe9\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert recorder.received == []


async def test_an_answer_arrives_as_it_was_sent(client: Client, recorder: Recorder) -> None:
    recorder.answer = (
        b"HTTP/1.1 200 Fine\r\nServer: glance\r\nX-B: 2\r\nx-a: \xe9\r\nX-B: 3\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Encoding: gzip\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x00\x01"
    )
    request = b"GET /v2/schemas/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert await exchanged(client.url, request) == (
        b"HTTP/1.1 200 Fine\r\nServer: glance\r\nX-B: 2\r\nx-a: \xe9\r\nX-B: 3\r\n"
        b"Content-Encoding: gzip\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 4\r\n"
        b"Connection: close\r\n\r\n\x1f\x8b\x00\x01"
    )
    # No cookie of one project goes upstream with the next one's request.
    await exchanged(client.url, request)
    assert b"ookie" not in recorder.head


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    ],
)
async def test_an_answer_without_a_body_has_none(
    client: Client, recorder: Recorder, answer: bytes
) -> None:
    recorder.answer = answer
    request = b"GET /v2/schemas/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    got = await exchanged(client.url, request)
    assert got == answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def test_head_keeps_the_length_and_has_no_body(client: Client, recorder: Recorder) -> None:
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"
    request = b"HEAD /v2/schemas/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert (await exchanged(client.url, request)).endswith(
        b"Content-Length: 999\r\nConnection: close\r\n\r\n"
    )


async def test_a_chunked_answer_is_chunked_again(client: Client, recorder: Recorder) -> None:
    recorder.answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
    )
    request = b"GET /v2/schemas/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    got = await exchanged(client.url, request)
    assert b"Transfer-Encoding: chunked\r\n" in got
    assert got.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    old = await exchanged(client.url, b"GET /v2/schemas/x HTTP/1.0\r\nHost: a\r\n\r\n")
    assert b"chunked" not in old
    assert old.endswith(b"\r\n\r\nabc")


async def test_a_body_goes_up_with_its_length_or_chunked_as_it_came(
    client: Client, recorder: Recorder
) -> None:
    await exchanged(
        client.url,
        b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        b"Content-Encoding: gzip\r\nConnection: close\r\n\r\nabc",
    )
    assert recorder.received[-1].endswith(b"Content-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc")
    await exchanged(
        client.url,
        b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nX-Trailer: 1\r\n\r\n",
    )
    head, _, body = recorder.received[-1].partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body.replace(b"\r\n", b"").replace(b"1a", b"a").replace(b"2bc", b"bc") in {
        b"abc0", b"3abc0",
    }  # fmt: skip


async def test_a_request_framed_twice_is_refused(client: Client, recorder: Recorder) -> None:
    answer = await exchanged(
        client.url,
        b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert recorder.received == []


async def test_a_client_that_expects_100_gets_it_when_its_body_is_wanted(
    client: Client, recorder: Recorder
) -> None:
    host, _, port = client.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()
    assert b"Expect: 100-continue" in recorder.head


async def test_redirects_are_not_followed(client: Client, recorder: Recorder) -> None:
    recorder.answer = (
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"
    )
    answer = await client.get("/v2/schemas/x")
    assert (answer.status, answer.headers["Location"]) == (302, "http://elsewhere/")
    assert recorder.connections == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT", "POST"])
async def test_the_client_librarys_own_retries_are_off(
    client: Client, recorder: Recorder, method: str
) -> None:
    """A kept-alive connection that dies under a request is not replaced behind the flow's back."""
    await client.get("/v2/schemas/x")
    recorder.answer = b""
    recorder.closes = True
    # Of a DELETE of an image itself relproxy asks for the image before.
    answer = await client.call(method, "/v2/images/x/tags/y")
    assert answer.status == 502
    assert len(recorder.received) == 2


async def test_the_next_endpoint_is_tried_only_where_nothing_was_sent(
    serve: Serve, recorder: Recorder
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    settings = registry(
        recorder.url, "registry", upstream_identity="token", health_check={"path": None}
    )
    client = await serve(registries=[settings | {"endpoints": [away, recorder.url]}])
    for _ in range(4):
        assert (await client.get("/v2/schemas/x")).status == 200
    for number in range(4):
        seen = len(recorder.received)
        answer = await client.post("/v2/schemas/x", data=f"body {number}".encode())
        assert answer.status == 200
        (sent,) = recorder.received[seen:]
        assert sent.endswith(f"body {number}".encode())
    recorder.answer = b""
    recorder.closes = True
    seen = len(recorder.received)
    for method in ("GET", "POST"):
        assert (await client.call(method, "/v2/schemas/x")).status == 502
    assert len(recorder.received) == seen + 2


async def test_a_create_that_reached_no_endpoint_is_not_in_doubt(serve: Serve) -> None:
    client = await serve(registries=[registry(f"http://127.0.0.1:{free_port()}", "registry")])
    created = await client.create("x", "alice", fields={"instance_id": "1"})
    assert created.status == 502
    counted = 'relproxy_records_total{registry="glance",result="%s"}'
    assert await client.metric(counted % "in_doubt") == 0
    assert await client.metric(counted % "abandoned") == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"garbage\r\n\r\n", 502, id="no-http"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 502, id="bad-length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            502,
            id="framed-twice",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-A: b\x00c\r\n\r\n", 502, id="control-in-header"),
        pytest.param(b"", 504, id="silence"),
    ],
)
async def test_a_registry_that_answers_garbage_or_nothing_is_named_with_a_request_id(
    client: Client, recorder: Recorder, answer: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    recorder.answer = answer
    got = await client.get("/v2/schemas/x", headers={"Accept": "application/json"})
    assert got.status == status
    request_id = got.headers["X-Openstack-Request-Id"]
    assert request_id in {vars(record).get("request_id") for record in caplog.records}
    assert set(got.json()) == {"message", "code", "title"}
    assert await client.metric("relproxy_upstream_errors_total") == 1


async def test_a_registry_that_is_down_makes_a_502(serve: Serve) -> None:
    client = await serve(registries=[registry(f"http://127.0.0.1:{free_port()}", "registry")])
    assert (await client.get("/v2/images", project="alice")).status == 502
    assert (await client.get("/v2/schemas/x", project="alice")).status == 502


async def test_a_body_that_breaks_off_breaks_the_connection_off(
    client: Client, recorder: Recorder
) -> None:
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    recorder.closes = True
    request = b"GET /v2/images/x/file HTTP/1.1\r\nHost: a\r\n\r\n"
    try:
        answer = await exchanged(client.url, request)
    except ConnectionResetError:
        answer = b""
    assert not answer or answer.endswith(b"half")


async def test_a_chunked_body_that_breaks_off_has_no_last_chunk(
    client: Client, recorder: Recorder
) -> None:
    recorder.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    recorder.closes = True
    request = b"GET /v2/images/x/file HTTP/1.1\r\nHost: a\r\n\r\n"
    try:
        answer = await exchanged(client.url, request)
    except ConnectionResetError:
        answer = b""
    assert b"0\r\n\r\n" not in answer


async def test_a_client_that_leaves_takes_its_upstream_connection_with_it(
    serve: Serve, recorder: Recorder
) -> None:
    client = await serve(registries=[registry(recorder.url, "registry")], timeouts={"read_s": 600})
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome"
    host, _, port = client.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v2/images/x/file HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    async with asyncio.timeout(10):
        await recorder.gone.wait()


async def test_image_data_arrives_whole_in_both_directions(
    second_wall: Client, trusting: StandIn
) -> None:
    created = await second_wall.create("big", "alice")
    target = f"/v2/images/{created.json()['id']}/file"
    data = bytes(range(256)) * 4096

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 70_001):
            yield data[start : start + 70_001]

    for body in (data, pieces()):
        answer = await second_wall.call("PUT", target, project="alice", data=body)
        assert answer.status == 204
        assert trusting.requests[-1].sha256 == hashlib.sha256(data).hexdigest()
        trusting.images[created.json()["id"]]["status"] = "queued"
    for trusting.send_length in (False, True):
        trusting.images[created.json()["id"]]["status"] = "active"
        answer = await second_wall.get(target, project="alice")
        assert answer.body == bytes(len(data))


async def test_an_upload_waits_for_a_registry_that_does_not_read(
    second_wall: Client, trusting: StandIn
) -> None:
    """Backpressure: a registry that stops reading stops the client, not only relproxy's memory."""
    created = await second_wall.create("big", "alice")
    trusting.faults.slow_upload_reader = asyncio.Event()
    sent = 0
    stalled = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(512):
            sent += 2**18
            yield bytes(2**18)

    target = f"/v2/images/{created.json()['id']}/file"
    upload = asyncio.create_task(second_wall.call("PUT", target, project="alice", data=pieces()))
    await trusting.await_requests(2)
    loop = asyncio.get_running_loop()
    before = -1

    def look() -> None:
        nonlocal before
        if before == sent:
            stalled.set()
        else:
            before = sent
            loop.call_later(0.25, look)

    look()
    async with asyncio.timeout(20):
        await stalled.wait()
    assert sent < 64 * 2**20
    trusting.faults.slow_upload_reader.set()
    assert (await upload).status == 204
    assert trusting.requests[-1].length == 128 * 2**20


async def test_an_answer_that_breaks_off_is_one_warning_and_no_bug(
    client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.answer, recorder.closes = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", True
    await until_broken(client.url, OTHER)
    await eventually(lambda: client.metric("relproxy_requests_in_progress"), 0.0)
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert said == ["answer broke off"]
