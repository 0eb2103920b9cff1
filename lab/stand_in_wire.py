"""What goes over the stand-in Glance's wire: recorded requests, answers, ordered faults."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from lab.stand_in_query import Caller, Image, RefusedError, routed_method

if TYPE_CHECKING:
    import asyncio

_PIECE = bytes(64 * 1024)
# A chunked body counts as one even when it is empty, with these methods only.
_MAY_BE_CHUNKED = ("POST", "PUT", "PATCH")
_CURRENT_MINOR = 17
_MINORS = (15, 13, 12, 11, 10, 9, 8, _CURRENT_MINOR, 7, 6, 5, 4, 3, 2, 1, 0)


@dataclass(frozen=True)
class Recorded:
    """One request as it arrived; an upload has `length` and `sha256` instead of its body.

    An upload is recorded when its head arrives, and that record is replaced when its body ends;
    `complete` is False before, and stays so if it never ends.
    """

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    length: int = 0
    sha256: str = ""
    complete: bool = True

    def values(self, name: str) -> list[str]:
        """Return the values of a header, in order; its name in any case."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]


Hook = Callable[[], Awaitable[None]]


@dataclass
class Faults:
    """What goes wrong; all off by default, each may be changed at any time."""

    delay: asyncio.Event | None = None  # every request waits for it before it is answered
    gzip: bool = False  # lists are gzip-encoded, whatever the client accepts
    truncate_after: int | None = None  # so many bytes of a body announced in full, then the end
    garbage: bytes | None = None  # 200 and this, as JSON, instead of any list
    status: tuple[int, bytes] | None = None  # this to everything
    fail_after_create: bool = False  # the image is made, the answer is 500
    hang_after_create: asyncio.Event | None = None  # the image is made, the answer waits
    drop_after_create: bool = False  # the image is made, the connection aborted
    hang_after_change: asyncio.Event | None = None  # likewise, of an image changed or deleted
    before_list: Hook | None = None  # awaited before a list is made; may raise
    after_list: Hook | None = None  # awaited once it is made, before it is sent
    before_create: Hook | None = None  # awaited before an image is made; may raise
    after_create: Hook | None = None  # awaited once it is made; may raise
    drop: bool = False  # every connection is aborted once its request was read
    ignore_limit: bool = False  # lists return everything
    extra_headers: list[tuple[str, str]] = field(default_factory=list)  # on every answer
    slow_upload_reader: asyncio.Event | None = None  # no byte of an upload is read before
    refuse_upload: int | None = None  # this status to an upload, its body unread
    status_of_meta: int | None = None  # this when v1 is asked what an image is
    shares: bytes | None = None  # 200 and this when v1 is asked what is shared with a project
    image_patch: Callable[[Image], bytes] | None = None  # renders one row of a list


@dataclass
class Answer:
    """What goes back; a number as `body` stands for so many zero bytes, streamed."""

    status: int = 200
    body: bytes | int = b""
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)
    is_list: bool = False
    is_traced: bool = True  # answered within Glance's context, so with a request id


@dataclass(frozen=True)
class Call:
    """One request, taken apart."""

    request: web.BaseRequest
    recorded: Recorded
    path: str
    within_v2: str | None
    query: str
    form: str
    caller: Caller = field(default_factory=lambda: Caller(None, is_admin=True))
    arguments: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """The method that Glance's router obeys."""
        return routed_method(self.request.method, self.query, self.form)

    @property
    def media_type(self) -> str:
        """The Content-Type without parameters; empty where there is none, unlike aiohttp's."""
        return self.request.headers.get("Content-Type", "").partition(";")[0].strip()

    @property
    def has_body(self) -> bool:
        """Whether Glance takes the request to have a body."""
        is_chunked = self.request.headers.get("Transfer-Encoding", "").lower() == "chunked"
        may_be = is_chunked and self.request.method in _MAY_BE_CHUNKED
        return may_be or bool(self.request.content_length)


Handler = Callable[[Call], Awaitable[Answer]]


class DroppedError(Exception):
    """The connection is to be aborted without an answer."""


def json_bytes(value: object) -> bytes:
    """Return JSON as Glance writes it."""
    return json.dumps(value, ensure_ascii=False).encode()


def read_json(call: Call) -> object:
    """Return the list or dict in a body; raise `RefusedError` as Glance would."""
    if not call.has_body:
        raise RefusedError(400, "Body expected in request.")
    try:
        body: object = json.loads(call.recorded.body)
    except ValueError as error:
        raise RefusedError(400, "Malformed JSON in request body.") from error
    if not isinstance(body, dict | list):
        raise RefusedError(400, "Unexpected body type. Expected list/dict.")
    return body


async def reached(event: asyncio.Event | None) -> None:
    """Wait for the event, if there is one."""
    if event is not None:
        await event.wait()


async def pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield a request's body as it comes, after the 100 that its client may wait for."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    async for piece in request.content.iter_any():
        yield piece


def error_page(refusal: RefusedError, request: web.BaseRequest) -> Answer:
    """Return the page for a refusal, in the form that the client accepts."""
    accept = ",".join(request.headers.getall("Accept", ()))
    content_type, text = refusal.page("text/html" if request.method == "HEAD" else accept)
    is_traced = refusal.status != 401  # refused before there is a context
    headers = list(refusal.headers)
    return Answer(refusal.status, text.encode(), content_type, headers, is_traced=is_traced)


def version_document(host: str, status: int) -> Answer:
    """Return the versions; their links echo the Host header."""
    link = {"rel": "self", "href": f"http://{host}/v2/"}
    versions = [
        {
            "id": f"v2.{minor}",
            "status": "CURRENT" if minor == _CURRENT_MINOR else "SUPPORTED",
            "links": [link],
        }
        for minor in _MINORS
    ]
    return Answer(status, json_bytes({"versions": versions}), is_traced=False)


async def send(
    request: web.BaseRequest, answer: Answer, faults: Faults, *, send_length: bool
) -> web.StreamResponse:
    """Send an answer, whole or cut short; keep the order of repeated headers."""
    headers = [("Server", "gunicorn")]  # tells a passed header from the proxy's own
    if answer.content_type:
        headers.append(("Content-Type", answer.content_type))
    body = b"" if request.method == "HEAD" else answer.body
    if answer.is_list and faults.gzip and isinstance(body, bytes):
        body = gzip.compress(body)
        headers.append(("Content-Encoding", "gzip"))
    headers += [*answer.headers, *faults.extra_headers]
    response = web.StreamResponse(status=answer.status, headers=CIMultiDict(headers))
    whole = len(body) if isinstance(body, bytes) else body
    cut = whole if faults.truncate_after is None else min(whole, faults.truncate_after)
    if isinstance(body, bytes) or send_length or cut < whole:
        response.content_length = whole
    await response.prepare(request)
    for piece in _beginning(body, cut):
        await response.write(piece)
    if cut < whole and request.transport is not None:
        request.transport.close()  # not abort(), which would also lose the bytes before
    return response


def _beginning(body: bytes | int, count: int) -> Iterator[bytes]:
    """Yield the first `count` bytes of a body, of which there are as many."""
    if isinstance(body, bytes):
        yield body[:count]
        return
    while count:
        yield _PIECE[:count]
        count -= min(count, len(_PIECE))
