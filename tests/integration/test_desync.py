"""Requests and answers that two readers may read differently: nobody gets another's.

Written as the attacker, after what has gone wrong in proxies and in HTTP parsers elsewhere. What
reaches the registry is compared byte by byte; what follows a refused request is never served.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.integration.conftest import Client
from tests.integration.recorder import (
    OK,
    OTHER,
    Recorder,
    exchanged,
    next_request_gets_its_own,
    turns,
    until_broken,
)

PUT = b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /v2/schemas/x HTTP/1.1\r\nHost: a\r\n"
SMUGGLED = b"GET /v2/schemas/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
STOLEN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"


def put(fields: bytes, body: bytes = b"") -> bytes:
    return PUT + fields + b"\r\n" + body


def get(line: bytes = GET, fields: bytes = b"") -> bytes:
    return line + fields + b"\r\n"


def line(text: bytes, fields: bytes = b"Host: a\r\n") -> bytes:
    return text + b"\r\n" + fields + b"\r\n"


def behind_first(answers: bytes) -> bytes:
    """Return what follows the first of several answers, each of which says its length."""
    head, _, rest = answers.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return rest[int(length) :]


REFUSED = {
    # The length of the body, said twice or not as a number.
    "a length, then chunks": put(b"Content-Length: 3\r\n" + CHUNKED, b"0\r\n\r\n"),
    "chunks, then a length": put(CHUNKED + b"Content-Length: 3\r\n", b"0\r\n\r\n"),
    "a length of zero, and chunks": put(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
    "a list of equal lengths": put(b"Content-Length: 3, 3\r\n", b"abc"),
    "equal lengths": put(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"),
    "two lengths": put(b"Content-Length: 3\r\nContent-Length: 50\r\n", b"abc"),
    "two numbers in a length": put(b"Content-Length: 3 3\r\n", b"abc"),
    "a length with a plus": put(b"Content-Length: +3\r\n", b"abc"),
    "a negative length": put(b"Content-Length: -3\r\n", b"abc"),
    "a length in base sixteen": put(b"Content-Length: 0x3\r\n", b"abc"),
    "a length with an underscore in it": put(b"Content-Length: 1_0\r\n", b"abc"),
    "a length with a fraction": put(b"Content-Length: 3.0\r\n", b"abc"),
    "a length with an exponent": put(b"Content-Length: 3e0\r\n", b"abc"),
    "an empty length": put(b"Content-Length:\r\n", b"abc"),
    "a length in other digits": put("Content-Length: ٣\r\n".encode(), b"abc"),
    "a length over 64 bits": put(b"Content-Length: 18446744073709551619\r\n", b"abc"),
    "a length with a control character": put(b"Content-Length: 3\x11\r\n", b"abc"),
    "a length with a hard space": put(b"Content-Length: 3\xa0\r\n", b"abc"),
    "a length on the next line": put(b"Content-Length:\r\n 3\r\n", b"abc"),
    "a length with an underscore in its name": put(b"Content_Length: 3\r\n", b"abc"),
    "two lengths, one by another name": put(b"Content_Length: 5\r\nContent-Length: 3\r\n", b"abc"),
    "a tab before the colon of a length": put(b"Content-Length\t: 3\r\n", b"abc"),
    # The transfer coding.
    "identity, chunked": put(b"Transfer-Encoding: identity, chunked\r\n", b"0\r\n\r\n"),
    "chunked, identity": put(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "chunked twice": put(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    "chunked in two fields": put(b"Transfer-Encoding: chunked\r\n" * 2, b"0\r\n\r\n"),
    "chunked and identity in two fields": put(
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"
    ),
    "gzip, chunked": put(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "a coding that ends in chunked": put(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "a coding that is a beginning of chunked": put(b"Transfer-Encoding: chunk\r\n", b"0\r\n\r\n"),
    "chunked with a parameter": put(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"),
    "chunked in quotes": put(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"),
    "no coding, and a length": put(b"Transfer-Encoding:\r\nContent-Length: 3\r\n", b"abc"),
    "no coding": put(b"Transfer-Encoding:\r\n"),
    "identity": put(b"Transfer-Encoding: identity\r\n"),
    "identity and a length": put(b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n", b"abc"),
    "a vertical tab before chunked": put(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "a hard space before chunked": put(b"Transfer-Encoding: \xa0chunked\r\n", b"0\r\n\r\n"),
    "a coding on the next line": put(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
    "a space before the colon of a coding": put(
        b"Transfer-Encoding : chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n"
    ),
    "an underscore in the name of a coding": put(
        b"Transfer_Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n"
    ),
    "a letter that only looks like an s": put(
        "Tran\u017ffer-Encoding: chunked\r\nContent-Length: 3\r\n".encode(), b"0\r\n\r\n"
    ),
    "a control character before the name of a coding": put(
        b"\x01Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n"
    ),
    # Chunks.
    "a chunk of no size": put(CHUNKED, b"\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with a prefix": put(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with a plus": put(CHUNKED, b"+3\r\nabc\r\n0\r\n\r\n"),
    "a negative chunk size": put(CHUNKED, b"-3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size over 64 bits": put(CHUNKED, b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "a blank before a chunk size": put(CHUNKED, b" 3\r\nabc\r\n0\r\n\r\n"),
    "a blank behind a chunk size": put(CHUNKED, b"3 \r\nabc\r\n0\r\n\r\n"),
    "a chunk size that ends in a line feed": put(CHUNKED, b"3\nabc\r\n0\r\n\r\n"),
    "a line feed in a chunk extension": put(CHUNKED, b"3;\nxx\r\nabc\r\n0\r\n\r\n"),
    "a line's end in a quoted chunk extension": put(CHUNKED, b'3;a="\r\nabc\r\n0\r\n\r\n'),
    "a carriage return in a chunk extension": put(CHUNKED, b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    "a chunk longer than its size": put(CHUNKED, b"3\r\nabcX\r\n0\r\n\r\n"),
    "a chunk that ends in a line feed": put(CHUNKED, b"3\r\nabc\n0\r\n\r\n"),
    "a length as trailer": put(CHUNKED, b"0\r\nContent-Length: 5\r\n\r\n"),
    "a trailer that is none": put(CHUNKED, b"0\r\nX Y: 5\r\n\r\n"),
    # Lines and fields.
    "lines that end in line feeds": get().replace(b"\r\n", b"\n"),
    "a line that ends in a carriage return": b"GET / HTTP/1.1\r\nHost: a\rX-A: b\r\n\r\n",
    "a carriage return in a value": get(fields=b"X-A: b\rX-Project-Id: bob\r\n"),
    "a carriage return at the end of a value": get(fields=b"X-A: b\r\r\n"),
    "a line feed in a value": get(fields=b"X-A: b\nX-Project-Id: bob\r\n"),
    "a zero in a value": get(fields=b"X-A: b\0c\r\n"),
    "a zero in a name": get(fields=b"X\0A: b\r\n"),
    "a control character in a value": get(fields=b"X-A: b\x01c\r\n"),
    "a value on two lines": get(fields=b"X-A: b\r\n X-Project-Id: bob\r\n"),
    "a value on two lines, by a tab": get(fields=b"X-A: b\r\n\tX-Project-Id: bob\r\n"),
    "a blank before the first field": get().replace(b"Host", b" Host"),
    "a blank before the colon": get(fields=b"X-Project-Id : bob\r\n"),
    "a blank in a name": get(fields=b"X-Project Id: bob\r\n"),
    "a line without a colon": get(fields=b"X-A\r\n"),
    "no name": get(fields=b": b\r\n"),
    "a letter in a name that only looks like an s": get(fields="X-U\u017fer: bob\r\n".encode()),
    "a name with the sign of Kelvin": get(fields="X-To\u212aen: bob\r\n".encode()),
    "a name in Latin": get(fields=b"X-\xe9: b\r\n"),
    "a value that is not UTF-8": get(fields=b"X-A: \xff\r\n"),
    # The request line.
    "no version": b"GET /v2/images\r\n\r\n",
    "version 1.2": line(b"GET /v2/schemas/x HTTP/1.2"),
    "version 1.10": line(b"GET /v2/schemas/x HTTP/1.10"),
    "version 2.0": line(b"GET /v2/schemas/x HTTP/2.0"),
    "version 0.9": line(b"GET /v2/schemas/x HTTP/0.9"),
    "a version in small letters": line(b"GET /v2/schemas/x http/1.1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tabs in the request line": line(b"GET\t/v2/schemas/x\tHTTP/1.1"),
    "a blank in the target": line(b"GET /v2/schemas/x /v2/images HTTP/1.1"),
    "a blank behind the version": line(b"GET /v2/schemas/x HTTP/1.1 "),
    "a blank before the method": b" " + get(),
    "a method in small letters": line(b"get /v2/schemas/x HTTP/1.1"),
    "a method that nobody knows": line(b"GETT /v2/schemas/x HTTP/1.1"),
    "CONNECT": line(b"CONNECT a:80 HTTP/1.1"),
    "TRACE": line(b"TRACE /v2/schemas/x HTTP/1.1"),
    "an asterisk": line(b"OPTIONS * HTTP/1.1"),
    "a fragment": line(b"GET /v2/schemas/x#/../images HTTP/1.1"),
    "bytes over 127 in the target": line(b"GET /v2/schemas/\xc3\xa9 HTTP/1.1"),
    "another scheme": line(b"GET ftp://a/v2/schemas/x HTTP/1.1"),
    "a target without a slash": line(b"GET v2/schemas/x HTTP/1.1"),
    # The host.
    "no host": line(b"GET /v2/schemas/x HTTP/1.1", b""),
    "two hosts": get(fields=b"Host: b\r\n"),
    "one host twice": get(fields=b"HOST: a\r\n"),
    "an empty host": line(b"GET /v2/schemas/x HTTP/1.1", b"Host:\r\n"),
    "user information in the host": line(b"GET /v2/schemas/x HTTP/1.1", b"Host: u@a\r\n"),
    "a list of hosts": line(b"GET /v2/schemas/x HTTP/1.1", b"Host: a, b\r\n"),
    "two words as host": line(b"GET /v2/schemas/x HTTP/1.1", b"Host: a b\r\n"),
    "a path in the host": line(b"GET /v2/schemas/x HTTP/1.1", b"Host: a/v2/images?\r\n"),
    "a port that is none": line(b"GET /v2/schemas/x HTTP/1.1", b"Host: a:80@b\r\n"),
    "markup in the host": line(b"GET /v2/schemas/x HTTP/1.1", b'Host: a"<x>\r\n'),
    "user information in the target": line(b"GET http://u@a/v2/schemas/x HTTP/1.1"),
    "a backslash in the authority": line(b"GET http://a\\@b/v2/schemas/x HTTP/1.1"),
    "an authority that the path ends": line(b"GET http://a#@b/v2/schemas/x HTTP/1.1"),
    "no authority": line(b"GET http:///v2/schemas/x HTTP/1.1"),
    # What Connection takes away.
    "a length that Connection names": put(
        b"Connection: close, Content-Length\r\nContent-Length: 3\r\n", b"abc"
    ),
    "a length that Connection names with an underscore": put(
        b"Connection: Content_Length\r\nContent-Length: 3\r\n", b"abc"
    ),
    "a type that Connection names": put(
        b"Connection: Content-Type\r\nContent-Type: a/b\r\nContent-Length: 3\r\n", b"abc"
    ),
    "an identity that Connection names": get(
        fields=b"Connection: close, x_project-ID\r\nX-Project-Id: bob\r\n"
    ),
    "a host that Connection names": get(fields=b"Connection: Host\r\n"),
}  # fmt: skip


async def test_what_two_readers_may_read_differently_is_refused_and_ends_the_connection(
    client: Client, recorder: Recorder
) -> None:
    for name, request in REFUSED.items():
        got = await exchanged(client.url, request + SMUGGLED)
        assert got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), (name, got)
        assert behind_first(got) == b"", (name, got)
        assert recorder.wires == [], name


PLAIN = b"GET /v2/schemas/x HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOADED = b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"

TAKEN = {
    "a length with blanks around it": (put(b"Content-Length: \t3 \t\r\n", b"abc"), SIZED),
    "chunked in another case": (
        put(b"TRANSFER-encoding: ChUnKeD\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        UPLOADED + b"3\r\nabc\r\n0\r\n\r\n",
    ),
    "an extension of a chunk": (
        put(CHUNKED, b'3;a="b\\"c";d\r\nabc\r\n0;e\r\n\r\n'),
        UPLOADED + b"3\r\nabc\r\n0\r\n\r\n",
    ),
    "many zeros as the last chunk": (
        put(CHUNKED, b"003\r\nabc\r\n0000\r\n\r\n"),
        UPLOADED + b"3\r\nabc\r\n0\r\n\r\n",
    ),
    "trailers": (
        put(CHUNKED, b"3\r\nabc\r\n0\r\nX-Project-Id: bob\r\nX-Roles: admin\r\n\r\n"),
        UPLOADED + b"3\r\nabc\r\n0\r\n\r\n",
    ),
    "chunked, although Connection names it": (
        put(b"Connection: Transfer-Encoding\r\n" + CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"),
        UPLOADED + b"3\r\nabc\r\n0\r\n\r\n",
    ),
    "chunked in HTTP/1.0": (
        put(CHUNKED, b"3\r\nabc\r\n0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
        UPLOADED + b"3\r\nabc\r\n0\r\n\r\n",
    ),
    "an upgrade to HTTP/2": (
        get(fields=b"Connection: Upgrade, Settings\r\nUpgrade: h2c\r\nSettings: AA\r\n"),
        PLAIN,
    ),
    "an upgrade to a socket": (get(fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), PLAIN),
    "an upgrade with a body": (
        put(b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 3\r\n", b"abc"), SIZED,
    ),
    "an expectation that nobody knows": (
        put(b"Expect: 200-maybe\r\nContent-Length: 3\r\n", b"abc"), SIZED,
    ),
    "an expectation twice": (
        put(b"Expect: 100-continue, 100-continue\r\nContent-Length: 3\r\n", b"abc"), SIZED,
    ),
    "a GET with a body": (
        get(fields=b"Content-Length: 5\r\n") + b"GET /",
        GET + b"Content-Length: 5\r\n\r\nGET /",
    ),
    "a GET with chunks": (
        get(fields=CHUNKED) + b"5\r\nGET /\r\n0\r\n\r\n",
        GET + CHUNKED + b"\r\n5\r\nGET /\r\n0\r\n\r\n",
    ),
    "two blanks behind the method": (line(b"GET  /v2/schemas/x HTTP/1.1"), PLAIN),
    "an empty line before the request": (b"\r\n" + get(), PLAIN),
    "an absolute target with another host": (
        line(b"GET http://b:9/v2/schemas/x HTTP/1.1"), PLAIN.replace(b"a\r", b"b:9\r"),
    ),
    "an absolute target with a query for a path": (
        line(b"GET http://b?/v2/images HTTP/1.1"),
        line(b"GET /?/v2/images HTTP/1.1", b"Host: b\r\n"),
    ),
    "what looks like a host in the path": (
        line(b"GET //b/v2/schemas/x HTTP/1.1"), line(b"GET //b/v2/schemas/x HTTP/1.1"),
    ),
    "an empty value": (get(fields=b"X-A:\r\n"), GET + b"X-A: \r\n\r\n"),
    "fields that are relproxy's, or of the hop": (
        get(fields=b"Keep-Alive: timeout=9\r\nProxy-Connection: x\r\nTE: trailers\r\n"
            b"X-Is_Admin-Project: 1\r\nX_Nova_Instance_ID: 1\r\nScript_Name: /v2\r\n"),
        PLAIN,
    ),
}  # fmt: skip


async def test_what_reaches_the_registry_is_one_request_in_one_spelling(
    client: Client, recorder: Recorder
) -> None:
    recorder.closes = True
    host, _, port = client.url.removeprefix("http://").partition(":")
    for name, (request, sent) in TAKEN.items():
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        async with asyncio.timeout(10):
            got = await reader.readuntil(OK[-6:])
        writer.close()
        assert got.startswith(b"HTTP/1.1 200 OK\r\n"), (name, got)
        assert bytes(recorder.wires[-1]) == sent, name
    assert len(recorder.wires) == len(TAKEN)


async def test_nothing_behind_an_upgrade_that_was_not_taken_is_read(
    client: Client, recorder: Recorder
) -> None:
    """aiohttp loses what arrived with it: its next request would begin anywhere in the last one."""
    for protocol in (b"h2c", b"websocket", b"tcp"):
        fields = b"Connection: Upgrade\r\nUpgrade: %s\r\n" % protocol
        answer = await exchanged(client.url, get(fields=fields) + SMUGGLED)
        assert behind_first(answer) == b""
        assert b"Connection: close\r\n" in answer
    assert b"smuggled" not in b"".join(recorder.wires)


TRAILED = put(CHUNKED, b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Claimed: bob\r\n\r\n")
CLEAN = put(CHUNKED, b"3\r\nabc\r\n0\r\n\r\n")
# Two messages, of which the last ends as one without trailers does.
CLEAN_BEHIND = TRAILED + CLEAN


async def sent_in_pieces(url: str, pieces: list[bytes]) -> bytes:
    """Send each piece once relproxy has read the one before; return all that is answered."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for piece in pieces:
            writer.write(piece)
            await turns()
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([TRAILED + OTHER], id="at once"),
        pytest.param([TRAILED, OTHER], id="one after the other"),
        pytest.param([TRAILED[:-1], TRAILED[-1:], OTHER], id="the last byte by itself"),
        pytest.param([TRAILED[:-1], TRAILED[-1:] + OTHER], id="the last byte with the next"),
        pytest.param([bytes((byte,)) for byte in TRAILED] + [OTHER], id="byte by byte"),
        pytest.param([CLEAN_BEHIND + OTHER], id="behind a clean one, at once"),
        pytest.param([CLEAN_BEHIND, OTHER], id="behind a clean one"),
    ],
)
async def test_a_trailer_is_no_header_of_the_next_request(
    client: Client, recorder: Recorder, pieces: list[bytes]
) -> None:
    """aiohttp's parser keeps the last one, and has the next head begin with it."""
    await sent_in_pieces(client.url, pieces)
    assert recorder.wires, "not even the first request went on"
    assert b"X-Claimed" not in b"".join(recorder.wires)


async def test_a_trailer_behind_a_body_that_waited_is_no_header_of_the_next_request(
    client: Client, recorder: Recorder
) -> None:
    """The parser holds back what follows a body that isn't read as fast as it arrives."""
    much = b"100000\r\n" + bytes(2**20) + b"\r\n"
    body = much * 4 + b"0\r\nX-Claimed: bob\r\n\r\n"
    await sent_in_pieces(client.url, [put(CHUNKED, body) + CLEAN + OTHER])
    assert b"X-Claimed" not in b"".join(recorder.wires)


async def test_a_connection_stays_open_behind_chunks_without_trailers(
    client: Client, recorder: Recorder
) -> None:
    for pieces in ([CLEAN, OTHER], [bytes((byte,)) for byte in CLEAN] + [OTHER]):
        got = await sent_in_pieces(client.url, pieces)
        assert got.count(b"HTTP/1.1 200 OK") == 2, pieces
    assert b"".join(recorder.received).count(b"schemas/other") == 2


async def test_a_body_in_the_name_of_a_list_is_not_the_next_request(
    client: Client, recorder: Recorder
) -> None:
    """A list's body is not forwarded; it is not taken for a request either."""
    recorder.answer = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"images": []}'
    head = b"GET /v2/images HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
    answer = await exchanged(client.url, head + SMUGGLED + OTHER)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert len(recorder.received) == 2
    assert b"smuggled" not in b"".join(recorder.wires)


async def test_a_body_that_turns_out_not_to_be_http_ends_both_connections(
    client: Client, recorder: Recorder
) -> None:
    """Else the request, and the registry's connection, wait for the rest of it for ever."""
    recorder.answer = b""
    host, _, port = client.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PUT + CHUNKED + b"\r\n3\r\nabc\r\n")
    async with asyncio.timeout(10):
        await recorder.has_got(b"3\r\nabc\r\n")
        writer.write(b"not a size\r\n" + SMUGGLED)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await recorder.gone.wait()
    writer.close()
    assert [bytes(wire) for wire in recorder.wires] == [UPLOADED + b"3\r\nabc\r\n"]


# -- what a registry, or something before it, answers


def answer(fields: bytes, body: bytes = b"ok", first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return first + b"\r\n" + fields + b"\r\n" + body


LENGTH = b"Content-Length: 2\r\n"
CHUNK = b"2\r\nok\r\n0\r\n\r\n"

GARBAGE = {
    "a length and chunks": answer(LENGTH + b"Transfer-Encoding: chunked\r\n", CHUNK),
    "chunks and a length": answer(b"Transfer-Encoding: chunked\r\n" + LENGTH, CHUNK),
    "equal lengths": answer(LENGTH + LENGTH),
    "two lengths": answer(LENGTH + b"Content-Length: 1\r\n"),
    "a list of lengths": answer(b"Content-Length: 2, 2\r\n"),
    "a negative length": answer(b"Content-Length: -1\r\n"),
    "a length with a plus": answer(b"Content-Length: +2\r\n"),
    "a length in base sixteen": answer(b"Content-Length: 0x2\r\n"),
    "an empty length": answer(b"Content-Length:\r\n"),
    "a length over 64 bits": answer(b"Content-Length: 99999999999999999999\r\n"),
    "a length on two lines": answer(b"Content-Length: 2\r\n 3\r\n"),
    "a blank before the colon of a length": answer(b"Content-Length : 2\r\n" + CHUNKED, CHUNK),
    "a blank before the colon of a coding": answer(b"Transfer-Encoding : chunked\r\n" + LENGTH),
    "a coding that is not chunked": answer(b"Transfer-Encoding: gzip\r\n"),
    "gzip, chunked": answer(b"Transfer-Encoding: gzip, chunked\r\n", CHUNK),
    "chunked, gzip": answer(b"Transfer-Encoding: chunked, gzip\r\n", CHUNK),
    "identity": answer(b"Transfer-Encoding: identity\r\n"),
    "identity and a length": answer(b"Transfer-Encoding: identity\r\n" + LENGTH),
    "chunked twice": answer(b"Transfer-Encoding: chunked\r\n" * 2, CHUNK),
    "chunked in HTTP/1.0": answer(CHUNKED, CHUNK, b"HTTP/1.0 200 OK"),
    "a chunk longer than its size": answer(CHUNKED, b"2\r\nokX\r\n0\r\n\r\n"),
    "a negative chunk size": answer(CHUNKED, b"-2\r\nok\r\n0\r\n\r\n"),
    "a chunk size over 64 bits": answer(CHUNKED, b"fffffffffffffffff\r\nok\r\n0\r\n\r\n"),
    "a length as trailer": answer(CHUNKED, b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n"),
    "a carriage return in a value": answer(b"X-A: b\rX-B: c\r\n" + LENGTH),
    "two carriage returns": answer(b"X-A: b\r\rX-B: c\r\n" + LENGTH),
    "a zero in a value": answer(b"X-A: b\0c\r\n" + LENGTH),
    "control characters in a value": answer(b"X-A: \x01\x1b\x7f\r\n" + LENGTH),
    "a blank in a name": answer(b"X A: b\r\n" + LENGTH),
    "a blank before a colon": answer(b"Cache-Control : public\r\n" + LENGTH),
    "no colon": answer(b"X-A\r\n" + LENGTH),
    "no name": answer(b": b\r\n" + LENGTH),
    "a name in Latin": answer(b"X-\xe9: b\r\n" + LENGTH),
    "control characters in the reason": answer(LENGTH, first=b"HTTP/1.1 200 O\x01\0K"),
    "a carriage return in the reason": answer(LENGTH, first=b"HTTP/1.1 200 O\rX-A: b"),
    "a switch of protocols": answer(b"Upgrade: x\r\n", STOLEN, b"HTTP/1.1 101 Switching"),
    "a switch of protocols with a length": answer(LENGTH, first=b"HTTP/1.1 101 Switching"),
    "an interim answer with a body": answer(LENGTH, b"ok" + STOLEN, b"HTTP/1.1 100 Continue"),
    "status 0": answer(LENGTH, first=b"HTTP/1.1 000 OK"),
    "status 99": answer(LENGTH, first=b"HTTP/1.1 99 OK"),
    "status 600": answer(LENGTH, first=b"HTTP/1.1 600 OK"),
    "status 2000": answer(LENGTH, first=b"HTTP/1.1 2000 OK"),
    "another version": answer(LENGTH, first=b"HTTP/2.0 200 OK"),
    "another protocol": answer(LENGTH, first=b"ICY 200 OK"),
    "no head": b"hello\r\n\r\n",
}  # fmt: skip


async def test_an_answer_that_two_readers_may_read_differently_reaches_nobody(
    client: Client, recorder: Recorder
) -> None:
    for name, garbage in GARBAGE.items():
        recorder.answer = garbage
        got = await until_broken(client.url, get(fields=b"Connection: close\r\n"))
        # Chunks that break are passed on up to there.
        is_partial = got.startswith(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n")
        assert got == b"" or is_partial or got.startswith(b"HTTP/1.1 502 "), (name, got)
        assert not got.endswith(b"0\r\n\r\n"), (name, got)
        assert b"stolen" not in got, name
        await next_request_gets_its_own(client.url, recorder, name)


CLEANED = {
    "a value on two lines": (answer(b"X-A: b\r\n c\r\n" + LENGTH), b"X-A: b c\r\n" + LENGTH),
    "lines that end in line feeds": (
        b"HTTP/1.1 200 OK\nX-A: b\nContent-Length: 2\n\nok", b"X-A: b\r\n" + LENGTH,
    ),
    "an interim answer": (answer(b"", b"", b"HTTP/1.1 100 Continue") + OK, LENGTH),
    "early hints": (answer(b"Link: x\r\n", b"", b"HTTP/1.1 103 Early") + OK, LENGTH),
    "fields of the hop": (
        answer(b"Keep-Alive: x\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: X\r\n" + LENGTH), LENGTH,
    ),
    "trailers": (answer(CHUNKED, b"2\r\nok\r\n0\r\nSet-Cookie: a\r\n\r\n"), CHUNKED),
}  # fmt: skip


async def test_an_answer_reaches_the_client_in_one_spelling(
    client: Client, recorder: Recorder
) -> None:
    for name, (raw, fields) in CLEANED.items():
        recorder.answer = raw
        got = await exchanged(client.url, get(fields=b"Connection: close\r\n"))
        body = CHUNK if fields == CHUNKED else b"ok"
        expected = b"HTTP/1.1 200 OK\r\n" + fields + b"Connection: close\r\n\r\n" + body
        assert got == expected, name


SECOND = {
    "behind the first": answer(LENGTH) + STOLEN,
    "behind chunks": answer(CHUNKED, CHUNK) + STOLEN,
    "as the body of a 204": answer(b"Content-Length: 44\r\n", STOLEN, b"HTTP/1.1 204 No Content"),
    "as the body of a 304": answer(b"Content-Length: 44\r\n", STOLEN, b"HTTP/1.1 304 Not Modified"),
    "behind an announced end": answer(b"Connection: close\r\n" + LENGTH) + STOLEN,
    "that is none": answer(LENGTH) + b"stolen",
}


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_a_second_answer_is_nobodys(
    client: Client, recorder: Recorder, method: bytes
) -> None:
    for name, raw in SECOND.items():
        recorder.answer = raw
        asked = get(fields=b"Connection: close\r\n").replace(b"GET", method)
        assert b"stolen" not in await exchanged(client.url, asked), name
        await next_request_gets_its_own(client.url, recorder, name)


@pytest.mark.parametrize("was_read", [True, False])
async def test_what_a_registry_sends_unasked_answers_nobodys_request(
    client: Client, recorder: Recorder, *, was_read: bool
) -> None:
    """What comes on an idle connection would answer the next request: another project's."""
    for later in (STOLEN, b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"x"):
        await exchanged(client.url, OTHER)
        recorder.writers[-1].write(later)
        if was_read:
            await turns()
        await next_request_gets_its_own(client.url, recorder, repr(later))


@pytest.mark.parametrize("length", [b"Content-Length: 44\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_an_answer_that_has_no_body_promises_none_and_ends_its_connection(
    client: Client, recorder: Recorder, length: bytes
) -> None:
    recorder.answer = answer(length, b"", b"HTTP/1.1 204 No Content")
    got = await exchanged(client.url, get(fields=b"Connection: close\r\n"))
    assert got == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    await next_request_gets_its_own(client.url, recorder, "204")


async def test_a_connection_on_which_nothing_came_is_used_again(
    client: Client, recorder: Recorder
) -> None:
    for _ in range(3):
        assert (await exchanged(client.url, OTHER)).endswith(b"\r\n\r\nok")
    assert len(recorder.wires) == 1


async def test_an_answer_that_breaks_off_anywhere_is_never_whole(
    client: Client, recorder: Recorder
) -> None:
    recorder.closes = True
    for at in range(1, len(OK)):
        recorder.answer = OK[:at]
        got = await until_broken(client.url, get(fields=b"Connection: close\r\n"))
        assert not got.endswith(b"\r\n\r\nok")
        is_partial = got.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
        assert got == b"" or is_partial or got.startswith(b"HTTP/1.1 502 "), got
