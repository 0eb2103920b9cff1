"""Serving the flow on aiohttp's server: its requests become values, values become its answers.

Response heads are written here byte by byte, because aiohttp's own response class adds fields,
merges nothing twice and writes text as UTF-8; the registry's fields must arrive as it sent them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from relproxy.account import Account, Accounts, current
from relproxy.arrival import Arrival, peer_of
from relproxy.connections import (
    HTTP_LOG,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    Connection,
    Patience,
    SentResponse,
    half_close,
)
from relproxy.draining import InFlight
from relproxy.entrance import Entrance
from relproxy.errors import RegistryGarbageError, RelproxyError, SlowRequestError
from relproxy.messages import Headers, Request, RequestHead, Response
from relproxy.transports import reset
from relproxy.writing import Writing

_LOG = logging.getLogger(__name__)

_READ_BUFFER_BYTES = 256 * 1024
# Of a body that nobody wants, where the connection is kept for the next request.
_MAX_DRAINED_BYTES = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODYLESS = frozenset({204, 304})

Respond = Callable[[Request], Awaitable[Response]]
_Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_MakeRequest = Callable[..., web.BaseRequest]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the listeners of a relproxy have in common."""

    in_flight: InFlight
    accounts: Accounts
    patience: Patience


def make_server(respond: Respond, entrance: Entrance, shared: Shared) -> web.Server:
    """Return the protocol factory of one listener. It must be made inside the running loop.

    A client that takes nothing for `shared.patience.write_s` is cut off.
    """
    in_flight = shared.in_flight

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        with in_flight.one(), _accounted(request, shared.accounts) as account:
            if (refused := _too_long(request)) is not None:
                return refused
            arrival = cast("Connection", request.protocol).arrival
            head = _head(request, entrance, arrival)
            account.came_in(head)
            body = _Body(request, shared.patience.body_s)
            response = await respond(Request(head, body))
            body.is_awaited = False  # A 100 would stand in the middle of the answer.
            account.status = response.head.status
            try:
                writing = Writing(request, shared.patience.write_s, arrival.beneath)
                may_keep_alive = not in_flight.is_draining
                return await _sent(request, response, writing, may_keep_alive=may_keep_alive)
            finally:
                await response.aclose()

    return _Server(handle, entrance, shared)


def make_admin_server(application: web.Application, entrance: Entrance, shared: Shared) -> _Server:
    """Return the protocol factory of the admin listener, whose callers have a client's limits."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if (refused := _too_long(request)) is not None:
            return refused
        response = await application._handle(cast("web.Request", request))  # noqa: SLF001
        if _is_doubtful(request):
            response.force_close()
        try:
            async with asyncio.timeout(shared.patience.write_s):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError as failure:
            if request.transport is not None:
                reset(request.transport)
            raise ConnectionResetError("the answer was not taken") from failure
        return response

    return _Server(handle, entrance, shared, application._make_request)  # noqa: SLF001


def _too_long(request: web.BaseRequest) -> web.StreamResponse | None:
    """Refuse a head that is too large; None if it isn't."""
    if _head_bytes(request) <= MAX_HEAD_BYTES:
        return None
    too_long = LineTooLong(b"", MAX_HEAD_BYTES)
    return request.protocol.handle_error(request, HTTPStatus.BAD_REQUEST, too_long)


class _Server(web.Server):
    """Makes the protocol of each connection, behind what it has to go through."""

    def __init__(
        self,
        handle: _Handle,
        entrance: Entrance,
        shared: Shared,
        make_request: _MakeRequest | None = None,
    ) -> None:
        super().__init__(
            handle,
            request_factory=make_request,
            handler_cancellation=True,
            access_log=None,
            logger=HTTP_LOG,
            auto_decompress=False,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_FIELDS,
            read_bufsize=_READ_BUFFER_BYTES,
        )
        self._entrance = entrance
        self._shared = shared

    def __call__(self) -> asyncio.BaseProtocol:  # type: ignore[override]  # The loop needs no more.
        return self._entrance.connection(self._connection)

    def pre_shutdown(self) -> None:
        self._entrance.close()
        super().pre_shutdown()

    def _connection(self, arrival: Arrival) -> Connection:
        made = Connection(self, self._shared.patience, loop=self._loop, **self._kwargs)
        made.in_flight, made.arrival = self._shared.in_flight, arrival
        return made


class _Body:
    """The body of a request that aiohttp is receiving; see `relproxy.messages.RequestBody`."""

    def __init__(self, request: web.BaseRequest, patience_s: float) -> None:
        self._request = request
        self._patience_s = patience_s
        self.is_awaited = _expects_continue(request)

    @property
    def is_empty(self) -> bool:
        return not self._request.body_exists

    @property
    def length(self) -> int | None:
        return self._request.content_length

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.is_awaited:
            self.is_awaited = False
            await self._request.writer.write(_CONTINUE)
        while chunk := await self._next():
            yield chunk

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._request.content.readany()
        except TimeoutError as failure:
            raise SlowRequestError(
                f"None of this request's body arrived for {self._patience_s:g} s."
            ) from failure


@contextmanager
def _accounted(request: web.BaseRequest, accounts: Accounts) -> Iterator[Account]:
    """Lend a request's account, and note at its end how much of its body has come."""
    protocol = request.protocol
    with accounts.one(lambda: isinstance(protocol, Connection) and protocol.has_left) as account:
        try:
            yield account
        finally:
            # Of no body there is nothing to count.
            account.bytes_in = request.content.total_bytes if request.body_exists else 0


def _head_bytes(request: web.BaseRequest) -> int:
    fields = sum(len(name) + len(value) for name, value in request.raw_headers)
    return len(request.raw_path) + fields


def _head(request: web.BaseRequest, entrance: Entrance, arrival: Arrival) -> RequestHead:
    peer, announcement = peer_of(request.transport), arrival.announcement
    return RequestHead(
        method=request.method,
        target=request.raw_path,
        headers=Headers(tuple(request.raw_headers)),
        peer=peer,
        listener=entrance.listener,
        version=(request.version.major, request.version.minor),
        connection_source=announcement.source(peer) if announcement else peer,
        is_fronts_own=announcement is not None and not announcement.is_relayed,
        is_relayed=announcement is not None and announcement.is_relayed,
        is_front_socket=entrance.is_fronted,
        scheme=request.scheme,
        certificate_names=arrival.names,
    )


def _expects_continue(request: web.BaseRequest) -> bool:
    return request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue"


def _is_doubtful(request: web.BaseRequest) -> bool:
    """Tell whether two readers may see two ends of a request: nothing behind it is read then.

    After an upgrade that wasn't taken, aiohttp loses its place in what has arrived already.
    """
    codings = request.headers.getall("Transfer-Encoding", ())
    is_plain = all(coding.lower() == "chunked" for coding in codings)
    connection = request.protocol
    must_end = isinstance(connection, Connection) and connection.must_end
    return not is_plain or must_end or "Upgrade" in request.headers


def _is_soon_over(request: web.BaseRequest) -> bool:
    """Tell whether the rest of a body costs less to throw away than a new connection does."""
    length = request.content_length
    return length is not None and length <= _MAX_DRAINED_BYTES and not _expects_continue(request)


async def _sent(
    request: web.BaseRequest, response: Response, writing: Writing, *, may_keep_alive: bool
) -> web.StreamResponse:
    """Write the whole response; a body that breaks off breaks the connection off too."""
    has_body = request.method != "HEAD" and response.head.status not in _BODYLESS
    has_length = response.head.headers.first("Content-Length") is not None
    is_chunked = has_body and not has_length and request.version >= (1, 1)
    # A request body that wasn't read to its end leaves the connection in the middle of it.
    is_whole = not request.body_exists or request.content.is_eof()
    keeps_alive = (
        may_keep_alive
        and request.keep_alive
        and response.head.headers.first("Connection") != "close"
        and not _is_doubtful(request)
        and (is_chunked or has_length or not has_body)
        and (is_whole or _is_soon_over(request))
    )
    connection = b"" if keeps_alive else b"close"
    if keeps_alive and request.version < (1, 1):
        connection = b"keep-alive"  # Or the client waits for the end of the connection.
    head = _rendered(response, is_chunked=is_chunked, connection=connection)
    if isinstance(response.body, bytes):
        body = response.body if has_body else b""
        await writing.whole(head, body)
        current().bytes_out = len(body)
    else:
        await writing.part(head)
        if is_chunked:
            request.writer.enable_chunking()
        await _streamed(request, response.body, writing, has_body=has_body)
    await writing.end()
    if not (is_whole or keeps_alive):
        half_close(request.transport)
    return SentResponse(response.head.status, keeps_alive=keeps_alive)


async def _streamed(
    request: web.BaseRequest, chunks: AsyncIterator[bytes], writing: Writing, *, has_body: bool
) -> None:
    account = current()
    try:
        async for chunk in chunks:
            if has_body:
                await writing.part(chunk)
                account.bytes_out += len(chunk)
    except RelproxyError as failure:
        # The head is gone: only a broken connection still tells the client that this isn't all.
        _LOG.warning("answer broke off", extra={"reason": failure.sentence})
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the answer broke off") from failure


def _rendered(response: Response, *, is_chunked: bool, connection: bytes) -> bytes:
    head = response.head
    lines = [b"HTTP/1.1 %d %s" % (head.status, head.reason.encode("utf-8", "surrogateescape"))]
    lines += [b"%s: %s" % pair for pair in head.headers.without(("Connection",)).pairs]
    if is_chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if connection:
        lines.append(b"Connection: " + connection)
    whole = b"\r\n".join(lines)
    if b"\n" in whole.replace(b"\r\n", b"") or b"\0" in whole:
        raise RegistryGarbageError("The registry's answer has a broken header.")
    return whole + b"\r\n\r\n"
