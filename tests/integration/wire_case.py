"""One raw exchange: what a client sends, what a registry answers, and what either one gets of it.

The tables are wire_requests.py, wire_framing.py and wire_answers.py. What relproxy does is compared
byte by byte. What nginx does is compared in one spelling (wire_record.py); where it isn't the same,
wire_nginx.py says what it is, and why.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.integration.recorder import OK

CLOSE = b"Connection: close\r\n"
LAST = b"GET /v2/schemas/last HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """One exchange, at the end of which the client's connection is closed.

    `up` is what the registry gets and `down` what the client gets with relproxy between them: left
    out, what was sent, but that the client's connection ends. With a `status` relproxy answers
    itself, and without an `up` the registry gets nothing.

    The registry sends `at_head` once it has a head. It `closes` behind its answer, or `hangs_up`
    instead of reading a body. `then` is what the client sends once it has got a head.
    """

    request: bytes
    answer: bytes = OK
    up: bytes | None = None
    down: bytes | None = None
    status: int | None = None
    at_head: bytes = b""
    closes: bool = False
    hangs_up: bool = False
    then: bytes = b""
    tells_way: bool = False

    @property
    def to_registry(self) -> bytes:
        """What the registry gets."""
        if self.up is not None:
            return self.up
        return b"" if self.status is not None else self.request.replace(CLOSE, b"")

    @property
    def to_client(self) -> bytes:
        """What the client gets, where it isn't refused."""
        if self.down is not None:
            return self.down
        requests = self.to_registry.count(b" HTTP/1.1\r\n")
        return self.answer * (requests - 1) + closing(self.answer)


def closing(answer: bytes) -> bytes:
    """Return an answer as its client gets it on a connection that ends with it."""
    head, end, body = answer.partition(b"\r\n\r\n")
    return head + b"\r\n" + CLOSE[:-2] + end + body


def line(text: bytes, fields: bytes = b"Host: a\r\n") -> bytes:
    """Return a request by its first line, whose answer ends the connection."""
    return text + b"\r\n" + fields + CLOSE + b"\r\n"


def get(fields: bytes = b"", target: bytes = b"/v2/schemas/x") -> bytes:
    """Return a request without a body, whose answer ends the connection."""
    return line(b"GET " + target + b" HTTP/1.1", b"Host: a\r\n" + fields)


def put(fields: bytes, body: bytes = b"") -> bytes:
    """Return an upload, with a request behind it whose answer ends the connection.

    So what is left of a body that two readers find of two lengths would be a request.
    """
    return b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + body + LAST


def answered(fields: bytes, body: bytes = b"ok", first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Return an answer by its parts."""
    return first + b"\r\n" + fields + b"\r\n" + body
