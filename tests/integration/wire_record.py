"""What arrived on both sides of one exchange, and the one spelling in which two are compared.

What is no difference: the order of fields of different names (RFC 9110, section 5.3), `Connection:
keep-alive` in HTTP/1.1, where it says nothing (RFC 9112, section 9.3), where one chunk ends and the
next begins, `Server` and `Date` that nginx puts into an answer without them, and the words in which
either one refuses. Ports of this run read 80.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.integration.recorder import Recorder
from tests.integration.wire_case import CLOSE, Case, closing

_TIME_S = 20
# Of a line that differs.
_SHOWN = 70
_NGINX_SAYS = re.compile(rb"(?m)^(Server: nginx\S*|Date: [^\r\n]*)\r\n")
_OWN_REFUSAL = re.compile(rb"(?i)<center>nginx|^x-openstack-request-id: req-", re.MULTILINE)
_PORT = re.compile(rb"127\.0\.0\.1:\d+")


@dataclass(frozen=True)
class Record:
    """What the registry got, connection after connection, and what the client got."""

    up: bytes
    down: bytes

    @property
    def refusal(self) -> int | None:
        """The status with which the proxy itself answered, or None."""
        head, _, body = self.down.partition(b"\r\n\r\n")
        if not _OWN_REFUSAL.search(head + body):
            return None
        return int(head.split(b" ", 2)[1])


async def recorded(url: str, recorder: Recorder, case: Case) -> Record:
    """Play one exchange through whoever serves `url`, before a registry of this case's."""
    recorder.answer, recorder.at_head = case.answer, case.at_head
    recorder.closes, recorder.hangs_up = case.closes, case.hangs_up
    first = len(recorder.wires)
    down = await _exchanged(url, case)
    for writer in recorder.writers[first:]:
        writer.close()
    up = b"".join(bytes(wire) for wire in recorder.wires[first:])
    return Record(_PORT.sub(b"127.0.0.1:80", up), down)


async def _exchanged(url: str, case: Case) -> bytes:
    """Return what a client gets up to the end of its connection, be it closed or reset.

    On a bare socket: asyncio's streams throw away what came before a reset.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    got, rest = bytearray(), case.then
    with socket.socket() as client:
        client.setblocking(False)
        async with asyncio.timeout(_TIME_S):
            await loop.sock_connect(client, (host, int(port)))
            try:
                await loop.sock_sendall(client, case.request)
                while piece := await loop.sock_recv(client, 2**16):
                    got += piece
                    if rest and b"\r\n\r\n" in got:
                        await loop.sock_sendall(client, rest)
                        rest = b""
            except ConnectionError:
                pass
    return bytes(got)


# -- what is otherwise


def differences(case: Case, nginx: Record) -> tuple[str, ...]:
    """Return what nginx does otherwise, in lines; none where it does what relproxy does.

    `answers` is a status that it answers itself, `passes` that it doesn't, where relproxy does. A
    line that only nginx has begins with +, one that it lacks with -, after the side on which that
    is: compared with relproxy's, or with what was sent, where relproxy refuses.
    """
    if nginx.refusal is not None:
        times = len(requests(nginx.up))
        again = (f"asks {times} times",) if times > 1 else ()
        return () if nginx.refusal == case.status else (f"answers {nginx.refusal}", *again)
    is_refused = case.status is not None
    up = case.up if case.up is not None else case.request.replace(CLOSE, b"")
    count = len(requests(nginx.up))
    down = case.answer * (count - 1) + closing(case.answer) if is_refused else case.to_client
    lines = (
        *_otherwise("up", requests(up), requests(nginx.up)),
        *_otherwise("down", answers(Record(b"", down), case), answers(nginx, case)),
    )
    return (*(("passes",) if is_refused else ()), *lines)


def _otherwise(side: str, ours: list[bytes], theirs: list[bytes]) -> Iterator[str]:
    have, get = (b"\r\n".join(each).split(b"\r\n") for each in (ours, theirs))
    less, more = Counter(have) - Counter(get), Counter(get) - Counter(have)
    yield from (f"{side} -{_short(each)}" for each in less.elements())
    yield from (f"{side} +{_short(each)}" for each in more.elements())
    if not (less or more) and have != get:
        yield f"{side} in another order"


def _short(text: bytes) -> str:
    shown = repr(text)[2:-1]
    return shown if len(shown) <= _SHOWN else f"{shown[:20]}... ({len(shown)})"


# -- one spelling


def requests(raw: bytes) -> list[bytes]:
    """Return the requests that a registry got, each in the one spelling."""
    found = []
    while raw:
        one, raw = _message(raw, has_body=True, is_answer=False)
        found.append(one)
    return found


def answers(record: Record, case: Case) -> list[bytes]:
    """Return the answers that a client got, each in the one spelling."""
    if record.refusal is not None:
        return [b"refused: %d" % record.refusal]
    raw = record.down
    if b"\r\nDate: " not in case.answer:
        raw = _NGINX_SAYS.sub(b"", raw)
    found = []
    is_new = b"keep-alive" not in case.request
    has_body = not case.request.startswith(b"HEAD ")
    while raw:
        one, raw = _message(raw, has_body=has_body, is_answer=True)
        found.append(one.replace(b"Connection: keep-alive\r\n", b"") if is_new else one)
    return found


def _message(raw: bytes, *, has_body: bool, is_answer: bool) -> tuple[bytes, bytes]:
    """Return the first message, fields sorted by name and chunks joined; and what follows."""
    head, end, rest = raw.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    fields.sort(key=lambda field: field.partition(b":")[0].lower())
    sorted_head = b"\r\n".join((first, *fields)) + end
    lower = head.lower()
    if re.match(rb"HTTP/1\.1 (1\d\d|204|304) ", first) or not has_body:
        body = b""
    elif b"\r\ntransfer-encoding: chunked" in lower:
        body, rest = _joined(rest)
    elif length := re.search(rb"\r\ncontent-length: *(\d+)", lower):
        body, rest = rest[: int(length[1])], rest[int(length[1]) :]
    else:
        body, rest = (rest, b"") if is_answer else (b"", rest)
    return sorted_head + body, rest


def _joined(raw: bytes) -> tuple[bytes, bytes]:
    """Return a chunked body as one chunk, with its trailers, if it is whole; and what follows."""
    body = b""
    while match := re.match(rb"([0-9a-fA-F]+)[^\r\n]*\r\n", raw):
        size, raw = int(match[1], 16), raw[match.end() :]
        if size == 0:
            trailers, end, raw = (b"\r\n" + raw).partition(b"\r\n\r\n")
            whole = b"%x:" % len(body) + body + b" end" + trailers if end else body
            return whole, raw
        body += raw[:size]
        raw = raw[size:].removeprefix(b"\r\n")
    return b"%x:" % len(body) + body + b" broken", b""
