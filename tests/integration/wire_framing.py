"""Bodies of requests and where they end: lengths, chunks, codings, expectations, early answers."""

from __future__ import annotations

from tests.integration.recorder import OK
from tests.integration.wire_case import CHUNKED, CHUNKS, CLOSE, LAST, Case, answered, closing, put

_PUT = b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\n"
_LAST = LAST.replace(CLOSE, b"")
_SIZED = _PUT + b"Content-Length: 3\r\n\r\nabc" + _LAST
_PARTED = _PUT + CHUNKED + b"\r\n" + CHUNKS
_TWO = OK + closing(OK)
_LONG = b"z" * 300_000


def _sized(fields: bytes, up: bytes = _SIZED) -> Case:
    return Case(put(fields, b"abc"), up=up, down=_TWO)


def _chunks(body: bytes, up: bytes = _PARTED, fields: bytes = CHUNKED) -> Case:
    return Case(_PUT + fields + CLOSE + b"\r\n" + body, up=up, down=closing(OK))


def _refused(fields: bytes, body: bytes = b"abc") -> Case:
    return Case(put(fields, body), status=400)


def _coding(value: bytes) -> Case:
    return _refused(b"Transfer-Encoding:" + value + b"\r\n", CHUNKS)


def _broken(body: bytes) -> Case:
    return _refused(CHUNKED, body)


LENGTHS = {
    "a length": _sized(b"Content-Length: 3\r\n"),
    "a length of zero": Case(
        put(b"Content-Length: 0\r\n"), up=_PUT + b"Content-Length: 0\r\n\r\n" + _LAST, down=_TWO
    ),
    "a length with blanks around it": _sized(b"Content-Length: \t3 \r\n"),
    "a length with zeros before it": _sized(
        b"Content-Length: 0003\r\n", _SIZED.replace(b" 3\r", b" 0003\r")
    ),
    "a length by another spelling": _sized(
        b"content-LENGTH: 3\r\n", _SIZED.replace(b"Content-Length", b"content-LENGTH")
    ),
    "a length with a plus": _refused(b"Content-Length: +3\r\n"),
    "a negative length": _refused(b"Content-Length: -3\r\n"),
    "a length in base sixteen": _refused(b"Content-Length: 0x3\r\n"),
    "an empty length": _refused(b"Content-Length:\r\n"),
    "a length and a word": _refused(b"Content-Length: 3 3\r\n"),
    "a list of equal lengths": _refused(b"Content-Length: 3, 3\r\n"),
    "equal lengths": _refused(b"Content-Length: 3\r\nContent-Length: 3\r\n"),
    "two lengths": _refused(b"Content-Length: 3\r\nContent-Length: 9\r\n"),
    "a length over 64 bits": _refused(b"Content-Length: 18446744073709551619\r\n"),
    "a length on the next line": _refused(b"Content-Length:\r\n 3\r\n"),
    "a blank before the colon of a length": _refused(b"Content-Length : 3\r\n"),
    "an underscore in the name of a length": _refused(b"Content_Length: 3\r\n", b""),
    "a length that Connection names": _refused(
        b"Connection: Content-Length\r\nContent-Length: 3\r\n"
    ),
    "a GET with a body": Case(
        b"GET /v2/schemas/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + LAST
    ),
    "a body of 300,000 bytes": Case(
        put(b"Content-Length: 300000\r\n", _LONG),
        up=_PUT + b"Content-Length: 300000\r\n\r\n" + _LONG + _LAST,
        down=_TWO,
    ),
}  # fmt: skip

CODINGS = {
    "chunked": _chunks(CHUNKS),
    "chunked in another case": _chunks(CHUNKS, fields=b"TRANSFER-encoding: ChUnKeD\r\n"),
    "chunked, although Connection names it": _chunks(
        CHUNKS, fields=b"Connection: Transfer-Encoding\r\n" + CHUNKED
    ),
    "chunked in HTTP/1.0": Case(
        (_PUT + CHUNKED + b"\r\n").replace(b"1.1", b"1.0") + CHUNKS,
        up=_PARTED, down=closing(OK),
    ),
    "a request behind chunks, in good time": Case(
        _PUT + CHUNKED + b"\r\n" + CHUNKS, then=LAST, up=_PARTED + _LAST, down=_TWO
    ),
    "a request behind chunks, at once": Case(
        put(CHUNKED, CHUNKS), up=_PARTED, down=closing(OK)
    ),
    "a request behind trailers": Case(
        _PUT + CHUNKED + b"\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", then=LAST,
        up=_PARTED, down=closing(OK),
    ),
    "a length, then chunked": _refused(b"Content-Length: 3\r\n" + CHUNKED, CHUNKS),
    "chunked, then a length": _refused(CHUNKED + b"Content-Length: 3\r\n", CHUNKS),
    "xchunked": _coding(b" xchunked"),
    "chunked with a tab before it": _chunks(CHUNKS, fields=b"Transfer-Encoding:\tchunked\r\n"),
    "chunked with a vertical tab before it": _coding(b" \x0bchunked"),
    "chunked in quotes": _coding(b' "chunked"'),
    "chunked with a parameter": _coding(b" chunked;q=1"),
    "chunked, gzip": _coding(b" chunked, gzip"),
    "gzip, chunked": _coding(b" gzip, chunked"),
    "chunked twice in one field": _coding(b" chunked, chunked"),
    "chunked in two fields": _refused(CHUNKED * 2, CHUNKS),
    "chunked and identity in two fields": _refused(
        CHUNKED + b"Transfer-Encoding: identity\r\n", CHUNKS
    ),
    "identity": _coding(b" identity"),
    "no coding": _coding(b""),
    "chunked on the next line": _coding(b"\r\n chunked"),
    "a blank before the colon of a coding": _refused(b"Transfer-Encoding : chunked\r\n", CHUNKS),
    "an underscore in the name of a coding": _refused(b"Transfer_Encoding: chunked\r\n", b""),
}  # fmt: skip

CHUNKS_OF_REQUESTS = {
    "a chunk size in capital letters": _chunks(
        b"1A\r\n" + b"z" * 26 + b"\r\n0\r\n\r\n",
        _PUT + CHUNKED + b"\r\n1a\r\n" + b"z" * 26 + b"\r\n0\r\n\r\n",
    ),
    "zeros before a chunk size": _chunks(b"0003\r\nabc\r\n000\r\n\r\n"),
    "extensions of chunks stay behind": _chunks(b'3;a="b\\"c";d\r\nabc\r\n0;e\r\n\r\n'),
    "a blank before an extension": _broken(b"3 ;a=b\r\nabc\r\n0\r\n\r\n"),
    "trailers stay behind": _chunks(b"3\r\nabc\r\n0\r\nX-Project-Id: p\r\nX-Sum: 1\r\n\r\n"),
    "a trailer that is no field": _broken(b"3\r\nabc\r\n0\r\nX Y\r\n\r\n"),
    "a length as trailer": _broken(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"),
    "a chunk of no size": _broken(b"\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with a prefix": _broken(b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with a plus": _broken(b"+3\r\nabc\r\n0\r\n\r\n"),
    "a negative chunk size": _broken(b"-3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size over 64 bits": _broken(b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "a blank before a chunk size": _broken(b" 3\r\nabc\r\n0\r\n\r\n"),
    "a blank behind a chunk size": _broken(b"3 \r\nabc\r\n0\r\n\r\n"),
    "a chunk size that ends in a line feed": _broken(b"3\nabc\r\n0\r\n\r\n"),
    "a line feed in an extension": _broken(b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    "a carriage return in an extension": _broken(b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    "a chunk longer than its size": _broken(b"3\r\nabcd\r\n0\r\n\r\n"),
    "a chunk that ends in a line feed": _broken(b"3\r\nabc\n0\r\n\r\n"),
    "a last chunk that ends in a line feed": _broken(b"3\r\nabc\r\n0\n\n"),
}  # fmt: skip

_EXPECTS = _PUT + b"Content-Length: 3\r\nExpect: 100-continue\r\n" + CLOSE + b"\r\n"
_CONTINUE = answered(b"", b"", b"HTTP/1.1 100 Continue")
_NO = answered(b"Content-Length: 2\r\n", b"no", b"HTTP/1.1 413 Too Large")

EXPECTATIONS = {
    "a 100 that the registry says": Case(
        _EXPECTS,
        at_head=_CONTINUE,
        closes=True,
        then=b"abc",
        up=_EXPECTS.replace(CLOSE, b"") + b"abc",
        down=_CONTINUE + closing(OK),
    ),
    "a refusal before the body is sent": Case(
        _EXPECTS, answer=b"", at_head=_NO, hangs_up=True,
        up=_EXPECTS.replace(CLOSE, b""), down=closing(_NO),
    ),
    "an expectation of a client that is too old for it": Case(
        _EXPECTS.replace(b"1.1", b"1.0") + b"abc",
        up=_SIZED.replace(_LAST, b""), down=closing(OK),
    ),
    "an answer while the body arrives": Case(
        _PUT + CHUNKED + b"\r\n3\r\nabc\r\n", answer=b"", at_head=_NO,
        up=_PUT + CHUNKED + b"\r\n3\r\nabc\r\n", down=closing(_NO),
    ),
}  # fmt: skip

FRAMING = {**LENGTHS, **CODINGS, **CHUNKS_OF_REQUESTS, **EXPECTATIONS}
