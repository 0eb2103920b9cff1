"""Answers of a registry: what of them reaches a client, and in what form."""

from __future__ import annotations

from tests.integration.recorder import OK
from tests.integration.wire_case import CHUNKED, CLOSE, Case, answered, closing, get, line

_LENGTH = b"Content-Length: 2\r\n"
_CHUNKS = b"2\r\nok\r\n0\r\n\r\n"


def _passed(fields: bytes, gone: bytes | None = None) -> Case:
    """Return an answer with some fields, of which those of `gone` don't go on."""
    down = None if gone is None else closing(answered(gone + _LENGTH))
    return Case(get(), answered(fields + _LENGTH), down=down)


def _status(first: bytes, status: int | None = None) -> Case:
    case = Case(get(), answered(_LENGTH, first=first))
    return case if status is None else _none(case.answer)


def _none(answer: bytes) -> Case:
    """Return an answer that is none: the client gets relproxy's own 502.

    The registry's connection ends with it, because nginx would wait for more of some.
    """
    return Case(get(), answer, up=get().replace(CLOSE, b""), status=502, closes=True)


def _cut(answer: bytes, down: bytes) -> Case:
    """Return an answer that breaks off, and what the client gets of it."""
    return Case(get(), answer, down=down, closes=True)


def _chunked(body: bytes, down: bytes = _CHUNKS) -> Case:
    return Case(get(), answered(CHUNKED, body), down=closing(answered(CHUNKED, down)))


HEADS = {
    "fields of an answer keep their order and repeats": _passed(
        b"X-A: 1\r\nX-B: 2\r\nX-A: 3\r\nLink: <a>\r\nlink: <b>\r\n"
    ),
    "cookies are two": _passed(b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"),
    "challenges are two": _passed(b"WWW-Authenticate: A\r\nWWW-Authenticate: B\r\n"),
    "names of an answer keep their spelling": _passed(b'x-aB: 1\r\nETAG: "a"\r\netag: W/"b"\r\n'),
    "the type of an answer in another spelling": _passed(b"content-TYPE: text/plain\r\n"),
    "a type with a charset": _passed(b'Content-Type: text/plain;charset="x" ; a=b\r\n'),
    "bytes above 127 in a value of an answer": _passed(b"X-A: \xc3\xa9\xe9\r\n"),
    "an empty value of an answer": _passed(b"X-A: \r\n"),
    "blanks around a value of an answer": _passed(b"X-A: \t 1  2 \t\r\n", b"X-A: 1  2\r\n"),
    "an underscore in a name of an answer": _passed(b"X_A: 1\r\n"),
    "dates and servers": _passed(
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: glance\r\nAge: 1\r\n"
    ),
    "what caches go by": _passed(
        b"Cache-Control: no-cache\r\nExpires: 0\r\nVary: A\r\nVary: B\r\n"
        b"Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    ),
    "what nginx itself would go by": _passed(
        b"X-Accel-Buffering: no\r\nX-Accel-Expires: 0\r\nX-Accel-Limit-Rate: 0\r\n"
    ),
    "a path of nginx's own": _passed(b"X-Accel-Redirect: /v2/images\r\n"),
    "a coding of content": Case(
        get(b"Accept-Encoding: gzip\r\n"),
        answered(b"Content-Encoding: gzip\r\nContent-Length: 4\r\n", b"\x1f\x8b\x00\x01"),
    ),
    "a location goes on": Case(
        get(),
        answered(b"Location: http://a/v2/x\r\nContent-Length: 0\r\n", b"", b"HTTP/1.1 302 Found"),
    ),
    "a location that names the registry": Case(
        get(), answered(b"Location: /v2/x\r\nContent-Length: 0\r\n", b"", b"HTTP/1.1 201 Created")
    ),
    "fields of the hop of an answer stay behind": _passed(
        b"Keep-Alive: timeout=9\r\nProxy-Connection: x\r\nX-A: 1\r\n", b"X-A: 1\r\n"
    ),
    "what Connection of an answer names stays behind": _passed(
        b"Connection: X-Hop\r\nX-Hop: 1\r\n", b""
    ),
    "Trailer and TE of an answer stay behind": _passed(b"Trailer: X-Sum\r\nTE: x\r\n", b""),
    "a proposal of another protocol stays behind": _passed(b"Upgrade: h2\r\n", b""),
    "a challenge of a proxy stays behind": _passed(b"Proxy-Authenticate: Basic\r\n", b""),
    "a value of an answer on two lines": _passed(b"X-A: 1\r\n 2\r\n", b"X-A: 1 2\r\n"),
    "line feeds end the lines of an answer": Case(
        get(), answered(b"X-A: 1\r\n" + _LENGTH).replace(b"\r\n", b"\n"),
        down=closing(answered(b"X-A: 1\r\n" + _LENGTH)),
    ),
    "a carriage return in a value of an answer": _none(answered(b"X-A: 1\rX-B: 2\r\n" + _LENGTH)),
    "a zero in a value of an answer": _none(answered(b"X-A: 1\x002\r\n" + _LENGTH)),
    "a control character in a value of an answer": _none(answered(b"X-A: 1\x1b2\r\n" + _LENGTH)),
    "a blank in a name of an answer": _none(answered(b"X A: 1\r\n" + _LENGTH)),
    "a blank before a colon of an answer": _none(answered(b"X-A : 1\r\n" + _LENGTH)),
    "no colon in an answer": _none(answered(b"X-A\r\n" + _LENGTH)),
    "no name in an answer": _none(answered(b": 1\r\n" + _LENGTH)),
    "100 fields of an answer": _passed(b"".join(b"X-%d: 1\r\n" % n for n in range(100))),
    "200 fields of an answer": _none(
        answered(b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + _LENGTH)
    ),
    "3,000 bytes of fields": _passed(b"X-A: " + b"a" * 3_000 + b"\r\n"),
    "30,000 bytes of fields": _passed(b"X-A: " + b"a" * 30_000 + b"\r\n"),
    "70,000 bytes in one field": _none(answered(b"X-A: " + b"a" * 70_000 + b"\r\n" + _LENGTH)),
}  # fmt: skip

STATUSES = {
    "no reason": _status(b"HTTP/1.1 200 "),
    "no reason, nor a blank before it": Case(
        get(), answered(_LENGTH, first=b"HTTP/1.1 200"),
        down=closing(answered(_LENGTH, first=b"HTTP/1.1 200 ")),
    ),
    "another reason": _status(b"HTTP/1.1 200 As You Like"),
    "a reason above 127": _status(b"HTTP/1.1 404 N\xc3\xa4"),
    "status 299": _status(b"HTTP/1.1 299 Odd"),
    "status 418": _status(b"HTTP/1.1 418 Teapot"),
    "status 599": _status(b"HTTP/1.1 599 Odd"),
    "status 600": _status(b"HTTP/1.1 600 Odd", 502),
    "status 999": _status(b"HTTP/1.1 999 Odd", 502),
    "status 99": _status(b"HTTP/1.1 099 Odd", 502),
    "a switch of protocols that nobody asked for": _status(b"HTTP/1.1 101 Switching", 502),
    "an answer in HTTP/1.0": Case(
        get(), answered(_LENGTH, first=b"HTTP/1.0 200 OK"), down=closing(OK)
    ),
    "an answer in HTTP/2.0": _status(b"HTTP/2.0 200 OK", 502),
    "an answer in HTTP/1.2": _status(b"HTTP/1.2 200 OK", 502),
    "an answer of another protocol": _status(b"ICY 200 OK", 502),
    "an answer without a head": _none(b"hello, who is there?\r\n\r\n"),
    "no answer": _none(b""),
    "half of a head": _none(b"HTTP/1.1 200 OK\r\nX-A"),
    "an interim 100 that nobody waits for": Case(
        get(), answered(b"", b"", b"HTTP/1.1 100 Continue") + OK, down=closing(OK), closes=True,
    ),
    "an interim 102": Case(
        get(), answered(b"", b"", b"HTTP/1.1 102 Processing") + OK, down=closing(OK), closes=True,
    ),
    "an interim 103": Case(
        get(), answered(b"Link: <a>\r\n", b"", b"HTTP/1.1 103 Early Hints") + OK,
        down=closing(OK), closes=True,
    ),
}  # fmt: skip

BODIES = {
    "a part": Case(
        get(b"Range: bytes=0-1\r\n"),
        answered(b"Content-Range: bytes 0-1/9\r\n" + _LENGTH, b"ok", b"HTTP/1.1 206 Partial"),
    ),
    "several parts": Case(
        get(b"Range: bytes=0-0,2-2\r\n"),
        answered(
            b"Content-Type: multipart/byteranges; boundary=x\r\nContent-Length: 6\r\n", b"--x--\n",
            b"HTTP/1.1 206 Partial",
        ),
    ),
    "no such part": Case(
        get(b"Range: bytes=9-\r\n"),
        answered(b"Content-Range: bytes */2\r\nContent-Length: 0\r\n", b"", b"HTTP/1.1 416 Range"),
    ),
    "nothing": Case(get(), answered(b"X-A: 1\r\n", b"", b"HTTP/1.1 204 No Content")),
    "nothing, with a length": Case(
        get(), answered(_LENGTH, b"", b"HTTP/1.1 204 No Content"),
        down=closing(answered(b"", b"", b"HTTP/1.1 204 No Content")),
    ),
    "nothing, with bytes": Case(
        get(), answered(b"X-A: 1\r\n", b"ok", b"HTTP/1.1 204 No Content"),
        down=closing(answered(b"X-A: 1\r\n", b"", b"HTTP/1.1 204 No Content")),
    ),
    "not modified, with a length": Case(
        get(), answered(b'ETag: "a"\r\nContent-Length: 44\r\n', b"", b"HTTP/1.1 304 Not Modified")
    ),
    "not modified, with bytes": Case(
        get(), answered(b"Content-Length: 2\r\n", b"ok", b"HTTP/1.1 304 Not Modified"),
        down=closing(answered(b"Content-Length: 2\r\n", b"", b"HTTP/1.1 304 Not Modified")),
    ),
    "HEAD, chunked": Case(
        line(b"HEAD /v2/schemas/x HTTP/1.1"), answered(CHUNKED, b""),
        down=closing(answered(b"", b"")),
    ),
    "HEAD, with bytes": Case(
        line(b"HEAD /v2/schemas/x HTTP/1.1"), OK, down=closing(answered(_LENGTH, b""))
    ),
    "HEAD, behind an interim answer": Case(
        line(b"HEAD /v2/schemas/x HTTP/1.1"),
        answered(b"", b"", b"HTTP/1.1 103 Early Hints") + answered(_LENGTH, b""),
        down=closing(answered(_LENGTH, b"")),
    ),
    "an end that the connection is": Case(
        get(), answered(b"", b"abc"), down=closing(answered(CHUNKED, b"3\r\nabc\r\n0\r\n\r\n")),
        closes=True,
    ),
    "a second answer behind the first": Case(get(), OK + OK, down=closing(OK)),
    "chunks": _chunked(_CHUNKS),
    "chunks for HTTP/1.0": Case(
        line(b"GET /v2/schemas/x HTTP/1.0"), answered(CHUNKED, _CHUNKS),
        up=get().replace(CLOSE, b""), down=closing(answered(b"")),
    ),
    "extensions of chunks": _chunked(b"2;a=b\r\nok\r\n0;c\r\n\r\n"),
    "chunk sizes in capital letters": _chunked(
        b"1A\r\n" + b"z" * 26 + b"\r\n0\r\n\r\n", b"1a\r\n" + b"z" * 26 + b"\r\n0\r\n\r\n"
    ),
    "trailers of an answer": _chunked(b"2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a\r\n\r\n"),
    "a coding in another case": Case(
        get(), answered(b"transfer-ENCODING: Chunked\r\n", _CHUNKS),
        down=closing(answered(CHUNKED, _CHUNKS)),
    ),
    "a length, then chunks": _none(answered(_LENGTH + CHUNKED, _CHUNKS)),
    "chunks, then a length": _none(answered(CHUNKED + _LENGTH, _CHUNKS)),
    "gzip, chunked, of an answer": _none(
        answered(b"Transfer-Encoding: gzip, chunked\r\n", _CHUNKS)
    ),
    "identity, of an answer": _none(answered(b"Transfer-Encoding: identity\r\n")),
    "chunked twice, of an answer": _none(answered(CHUNKED * 2, _CHUNKS)),
    "chunks in HTTP/1.0": _none(answered(CHUNKED, _CHUNKS, b"HTTP/1.0 200 OK")),
    "equal lengths of an answer": _none(answered(_LENGTH * 2)),
    "two lengths of an answer": _none(answered(_LENGTH + b"Content-Length: 1\r\n")),
    "a list of lengths of an answer": _none(answered(b"Content-Length: 2, 2\r\n")),
    "a length of an answer with a plus": _none(answered(b"Content-Length: +2\r\n")),
    "a negative length of an answer": _none(answered(b"Content-Length: -1\r\n")),
    "a length of an answer that is none": _none(answered(b"Content-Length: x\r\n")),
    "an empty length of an answer": _none(answered(b"Content-Length:\r\n")),
    "an answer shorter than its length": _cut(
        answered(b"Content-Length: 9\r\n"), closing(answered(b"Content-Length: 9\r\n"))
    ),
    "chunks that break off": _cut(
        answered(CHUNKED, b"2\r\nok\r\n"), closing(answered(CHUNKED, b"2\r\nok\r\n"))
    ),
    "a chunk that breaks off": _cut(
        answered(CHUNKED, b"9\r\nok"), closing(answered(CHUNKED, b"2\r\nok\r\n"))
    ),
}  # fmt: skip

ANSWERS = {**HEADS, **STATUSES, **BODIES}
