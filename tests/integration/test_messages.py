"""Headers and framing on raw sockets: what a client sends, what a registry gets, and back.

The plain cases, each message byte by byte; what two readers may read differently is in
test_desync.py, uploads are in test_uploads.py, what is added in test_way.py.
"""

from __future__ import annotations

import logging

import pytest

from tests.integration.conftest import Client, Serve, registry
from tests.integration.recorder import OK, Recorder, exchanged

CLOSE = b"Connection: close\r\n"
GET = b"GET /v2/schemas/x HTTP/1.1\r\nHost: a\r\n"
PREFLIGHT = (
    b"OPTIONS /v2/images/x/file HTTP/1.1\r\nHost: a\r\nOrigin: https://cloud.example\r\n"
    b"Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-auth-token\r\n"
)


def asked(request: bytes) -> bytes:
    """Return a request whose answer ends the connection."""
    return request + CLOSE + b"\r\n"


def answered(head: bytes, body: bytes = b"") -> bytes:
    """Return an answer as its client gets it on a connection that ends with it."""
    return head + CLOSE + b"\r\n" + body


# -- methods and statuses

PLAIN = {
    "HEAD": (asked(GET.replace(b"GET", b"HEAD")), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n", b""),
    "a part": (
        asked(GET + b'Range: bytes=0-1\r\nIf-Range: "a"\r\n'),
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n",
        b"ab",
    ),
    "parts": (
        asked(GET + b"Range: bytes=0-0,2-2\r\n"),
        (
            b"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\n"
            b"Content-Length: 6\r\n"
        ),
        b"--x--\n",
    ),
    "no such part": (
        asked(GET + b"Range: bytes=9-\r\n"),
        b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */2\r\nContent-Length: 0\r\n",
        b"",
    ),
    "a condition": (
        asked(GET + b'If-None-Match: "a"\r\n'),
        b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 44\r\n',
        b"",
    ),
    "nothing": (asked(GET), b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n", b""),
    "OPTIONS": (
        asked(GET.replace(b"GET", b"OPTIONS")),
        b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\n",
        b"",
    ),
    "a preflight": (
        asked(PREFLIGHT),
        (
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://cloud.example\r\n"
            b"Access-Control-Allow-Methods: PUT\r\nVary: Origin\r\nContent-Length: 0\r\n"
        ),
        b"",
    ),
    "a coding": (
        asked(GET + b"Accept-Encoding: gzip, br\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n",
        b"\x1f\x8b\x00\x01",
    ),
}


@pytest.mark.parametrize("name", PLAIN)
async def test_a_request_and_its_answer_arrive_as_they_were_sent(
    client: Client, recorder: Recorder, name: str
) -> None:
    request, head, body = PLAIN[name]
    recorder.answer = head + b"\r\n" + body
    assert await exchanged(client.url, request) == answered(head, body)
    assert bytes(recorder.wires[0]) == request.replace(CLOSE, b"")


async def test_a_preflight_reaches_a_registry_without_callers_too(
    serve: Serve, recorder: Recorder
) -> None:
    """A browser sends it without a token; every other OPTIONS there wants a caller."""
    client = await serve(registries=[registry(recorder.url, "relproxy")])
    assert (await exchanged(client.url, asked(PREFLIGHT))).startswith(b"HTTP/1.1 200 OK\r\n")
    assert bytes(recorder.wires[0]) == PREFLIGHT + b"\r\n"
    unknown = PREFLIGHT.replace(b"/v2/images/x/file", b"/v2/nothing")
    plain = PREFLIGHT.replace(b"Origin", b"X-Origin")
    foreign = PREFLIGHT.replace(b"OPTIONS", b"GET")
    for request in (unknown, plain, foreign):
        assert (await exchanged(client.url, asked(request))).startswith(b"HTTP/1.1 401 ")
    assert len(recorder.received) == 1


# -- connections


async def test_pipelined_requests_are_answered_in_their_order(
    client: Client, recorder: Recorder
) -> None:
    first, last = GET.replace(b"/x", b"/first"), GET.replace(b"/x", b"/last")
    upload, body = b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", b"abc"
    got = await exchanged(client.url, first + b"\r\n" + upload + body + asked(last))
    assert got == OK + OK + OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert b"".join(map(bytes, recorder.wires)) == (
        first + b"\r\n" + upload + body + last + b"\r\n"
    )


async def test_a_connection_ends_with_the_answer_that_its_client_called_the_last(
    client: Client, recorder: Recorder
) -> None:
    """What comes along behind it is no request, and makes none of what it came with."""
    old = GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n"
    for last in (asked(GET), old):
        assert await exchanged(client.url, last) == answered(OK[:-4], b"ok")
        seen = len(recorder.received)
        assert b" 400 " in await exchanged(client.url, last + GET + b"\r\n")
        assert len(recorder.received) == seen
    assert recorder.head.startswith(b"GET /v2/schemas/x HTTP/1.1\r\n")


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"PROPFIND"])
async def test_a_request_without_a_body_says_so_where_its_method_may_have_one(
    client: Client, recorder: Recorder, method: bytes
) -> None:
    await exchanged(client.url, asked(GET.replace(b"GET", method)))
    assert bytes(recorder.wires[0]) == GET.replace(b"GET", method) + b"Content-Length: 0\r\n\r\n"


@pytest.mark.usefixtures("recorder")
async def test_an_old_client_that_asks_for_it_is_told_that_its_connection_is_kept(
    client: Client,
) -> None:
    """Else it waits for the connection's end, where HTTP/1.0 has the end of an answer."""
    kept = GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Connection: keep-alive\r\n\r\n"
    last = GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n"
    assert await exchanged(client.url, kept + last) == (
        OK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n") + answered(OK[:-4], b"ok")
    )


async def test_an_answer_to_an_old_client_that_has_no_length_ends_with_the_connection(
    client: Client, recorder: Recorder
) -> None:
    recorder.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    kept = GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Connection: keep-alive\r\n\r\n"
    assert await exchanged(client.url, kept) == answered(b"HTTP/1.1 200 OK\r\n", b"ok")


async def test_an_old_client_need_not_name_a_host(client: Client, recorder: Recorder) -> None:
    got = await exchanged(client.url, b"GET /v2/schemas/x HTTP/1.0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    host = recorder.url.removeprefix("http://").encode()
    assert bytes(recorder.wires[0]) == b"GET /v2/schemas/x HTTP/1.1\r\nHost: %s\r\n\r\n" % host


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_an_answer_that_ends_with_the_registrys_connection_is_framed_for_the_client(
    client: Client, recorder: Recorder, version: bytes
) -> None:
    recorder.answer, recorder.closes = version + b" 200 OK\r\n\r\nabc", True
    got = await exchanged(client.url, asked(GET))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    assert got == answered(head, b"3\r\nabc\r\n0\r\n\r\n")


async def test_a_connection_that_the_registry_ends_is_not_used_again(
    client: Client, recorder: Recorder
) -> None:
    recorder.answer = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for _ in range(2):
        assert await exchanged(client.url, asked(GET)) == answered(OK[:-4], b"ok")
    assert len(recorder.wires) == 2


# -- limits


def numbered(count: int) -> bytes:
    return b"".join(b"X-%d: 1\r\n" % number for number in range(count))


async def test_as_many_and_as_long_fields_as_are_taken_arrive(
    client: Client, recorder: Recorder
) -> None:
    long = b"X-Auth-Token: " + b"t" * 16_000 + b"\r\n"
    for request in (GET + numbered(126), GET + long, GET.replace(b"/x", b"/" + b"x" * 16_000)):
        assert (await exchanged(client.url, asked(request))).startswith(b"HTTP/1.1 200 OK\r\n")
        assert recorder.received[-1] == request + b"\r\n"


TOO_LARGE = {
    "fields": GET + numbered(130),
    "a value": GET + b"X-Auth-Token: " + b"t" * 17_000 + b"\r\n",
    "a name": GET + b"X" * 17_000 + b": 1\r\n",
    "a target": GET.replace(b"/x", b"/" + b"x" * 17_000),
    "all together": GET + b"".join(b"X-%d: " % n + b"x" * 16_000 + b"\r\n" for n in range(5)),
    "members of Accept": GET + (b"Accept: " + b"a," * 8_000 + b"\r\n") * 120,
    "members of Connection": GET + (b"Connection: " + b"a," * 8_000 + b"\r\n") * 120,
}


@pytest.mark.parametrize("name", TOO_LARGE)
async def test_a_head_that_is_too_large_is_refused_with_the_limits_and_an_id_in_the_log(
    client: Client, recorder: Recorder, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    got = await exchanged(client.url, TOO_LARGE[name] + b"\r\n" + GET + b"\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b" 431 " in head.partition(b"\r\n")[0]
    assert b"Python" not in head
    assert b"128 header fields" in body
    assert b"16384 bytes" in body
    assert b"65536 bytes" in body
    assert b"tttt" not in got
    ids = [line.partition(b": ")[2] for line in head.split(b"\r\n") if b"Request-Id" in line]
    assert ids[0].decode() in {vars(record).get("request_id") for record in caplog.records}
    assert recorder.wires == []


@pytest.mark.parametrize(
    "fields", [numbered(200), b"X-A: " + b"a" * 70_000 + b"\r\n"], ids=["many", "long"]
)
async def test_an_answer_with_a_head_that_is_too_large_is_none(
    client: Client, recorder: Recorder, fields: bytes
) -> None:
    recorder.answer = OK.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n")
    assert (await exchanged(client.url, asked(GET))).startswith(b"HTTP/1.1 502 ")
