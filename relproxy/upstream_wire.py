"""Connections to registries, on which only what is strictly an answer to a request is one.

aiohttp reads answers leniently, and takes whatever arrives on an idle connection for the answer to
the next request, which may be another project's. So here a connection on which anything is left is
closed instead of used, and an answer whose head is not strictly HTTP/1.x is none.

Over TLS an answer without a length has ended only if the registry says so (close_notify): the end
of the connection alone may be anyone's doing, or that of a registry that has died.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import select
import ssl
from asyncio import BaseTransport
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.tracing import Trace

from relproxy.tls_failures import is_refusal
from relproxy.transports import reset
from relproxy.unix_endpoints import path_of

# With the default of 64 KiB every socket read overruns the buffer's mark and costs a pause.
READ_BUFFER_BYTES = 1024**2

# RFC 9110, sections 5.6.2 and 5.5; a reason phrase has the characters of a value.
_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_BODYLESS = (b"204", b"304")
_VERSIONS = (aiohttp.HttpVersion10, aiohttp.HttpVersion11)


class HandshakeRefusedError(aiohttp.ClientOSError):
    """A registry has refused relproxy's certificate, and so has read nothing of a request.

    With TLS 1.3 it says so only when relproxy takes the handshake for done.
    """


class _Wire(ResponseHandler):
    """One connection; an answer that isn't strictly HTTP ends it, as garbage does.

    So is one of which only a part of the head came: who got none may ask somebody else.
    """

    # Whether any of an answer that counts has arrived; whether the request has been sent whole.
    _has_begun = False
    _is_sent = False
    # Told of 1 when it is made, and of -1 when it is lost.
    tally: Callable[[int], None] | None = None
    # Whether nothing at all has arrived on this connection; whether the registry has ended it.
    _is_new = True
    _is_ended = False
    _is_for_head = False
    _layer: asyncio.BufferedProtocol | None = None
    # What was wrong with TLS, where that was only heard once writing had failed.
    _tls_failure: BaseException | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Take a new connection, over TLS after the handshake."""
        super().connection_made(transport)
        if self.tally is not None:
            self.tally(1)
        # asyncio's own between this and the socket, which it shows to nobody; tests in
        # tests/integration/test_upstream_tls.py fail if it moves.
        self._layer = getattr(transport, "_ssl_protocol", None)
        if self._layer is not None:
            # It is told first of a connection that is lost; then its socket is closed.
            self._layer.connection_lost = functools.partial(self._lose, self._layer)

    def set_response_params(self, **params: Any) -> None:  # noqa: ANN401 - what they are is aiohttp's
        """Expect the answer to the next request."""
        self._has_begun = self._is_sent = False
        self._is_for_head = bool(params.get("skip_payload"))
        super().set_response_params(**params)

    def start_timeout(self) -> None:
        """Take that the request has been sent, and that the registry is to answer it."""
        self._is_sent = True
        super().start_timeout()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if not self._has_begun and (self._is_for_head or data[9:12] in _BODYLESS):
            data = self._only_head(data)
        self._has_begun = self._has_begun or bool(data)
        self._is_new = self._is_new and not data
        super().data_received(data)
        if self._is_sent and not self._has_begun:
            # aiohttp takes the interim answer for the one that counts, and waits for ever.
            super().start_timeout()

    def _only_head(self, data: bytes) -> bytes:
        """Return an answer that has no body, without what some servers send in the place of one.

        aiohttp takes it for a broken answer behind the first, and the first for as broken.
        """
        if data[9:10] == b"1":
            return data  # An interim answer: the one that counts is behind it.
        head, end, rest = data.partition(b"\r\n\r\n")
        if rest:
            self.force_close()
        return head + end

    def feed_data(
        self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0
    ) -> None:
        """Take the head of an answer, with the stream of its body."""
        message, _ = data
        if not _is_strict(message):
            if self.transport is not None:
                self.transport.close()
            self.set_exception(HttpProcessingError(message="not strictly HTTP"))
            return
        self._has_begun = message.code >= HTTPStatus.OK
        if HTTPStatus.CONTINUE < message.code < HTTPStatus.OK:
            return  # aiohttp takes any interim answer for the 100 that a body waits for.
        if _has_no_body_but_says_so(message):
            self.force_close()
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Take that no answer will come any more; one that has arrived still counts."""
        self._hear_out(exc)
        failure = self._tls_failure or next(iter(cause), None)
        if self._is_new and is_refusal(failure):
            exc, cause = HandshakeRefusedError(*exc.args), ()
            exc.__cause__ = failure
        if self._has_begun and isinstance(
            exc, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError
        ):
            exc = HttpProcessingError(message="the head broke off")
        super().set_exception(exc, *cause)

    def eof_received(self) -> None:
        """Take that nothing more comes; asyncio says so too if a TLS connection just ends."""
        self._is_ended = _has_said_so(self.transport)
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take the end of the connection; an answer that has arrived whole still counts."""
        self._hear_out(exc)
        # Without TLS a refusal half-way of an upload has all been read, and counts, reset or not.
        if not self._is_ended and (self._layer is not None or self._is_sent):
            self._cut_off()
        super().connection_lost(exc)
        if self.tally is not None:
            self.tally(-1)

    def close(self) -> None:
        """Close the connection; what of a request is still held here is thrown away.

        asyncio would wait until a registry that takes nothing has taken it, and over TLS until it
        agrees: that may be for ever.
        """
        if isinstance(self.transport, asyncio.Transport) and self.transport.get_write_buffer_size():
            reset(self.transport)
        if self._layer is not None:
            self.abort()
        else:
            super().close()

    def _cut_off(self) -> None:
        """Fail an answer that isn't whole, also one that ends with its connection."""
        if self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(aiohttp.ClientPayloadError("The connection broke off."))

    def _hear_out(self, failure: BaseException | None) -> None:
        """Take what a registry said before it closed a connection that was being written to.

        It may refuse an upload half-way and close at once. Writing then fails, and asyncio gives
        the connection up without a look at the refusal, which waits to be read.
        """
        transport = self.transport
        if transport is None or not (isinstance(failure, OSError) and transport.is_closing()):
            return
        if self._layer is not None:
            self._tls_failure = self._tls_failure or _hear_out(self._layer, transport)
        elif self._parser is not None:
            self.data_received(_rest(transport))

    def _lose(self, layer: asyncio.BufferedProtocol, failure: Exception | None) -> None:
        """Have a TLS connection take that it is lost, once all has been heard."""
        if isinstance(failure, OSError) and self.transport is not None:
            self._tls_failure = self._tls_failure or _hear_out(layer, self.transport)
        type(layer).connection_lost(layer, failure)


class Connector(aiohttp.TCPConnector):
    """Connections of which an idle one is used again only if nothing has arrived on it since.

    aiohttp has no public switch for this; tests/integration/test_desync.py fails if it moves.
    """

    def __init__(self, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        # Told how many connections are made, 1, or lost, -1.
        self.tally: Callable[[int], None] | None = None
        self._factory = self._wire  # type: ignore[assignment]  # It is called, and no more.

    def _wire(self) -> _Wire:
        made = _Wire(loop=self._loop)
        made.tally = self.tally
        return made

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
    ) -> ResponseHandler:
        path = path_of(req.url.raw_host or "")
        if path is None:
            return await super()._create_connection(req, traces, timeout)
        try:
            async with asyncio.timeout(timeout.sock_connect):
                _, protocol = await self._loop.create_unix_connection(self._factory, path)
        except TimeoutError:
            raise
        except OSError as failure:
            raise UnixClientConnectorError(path, req.connection_key, failure) from failure
        return protocol

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        # What a registry, or a balancer before it, sends unasked would answer the next request.
        for protocol, _ in self._conns.get(key, ()):
            if not (protocol.should_close or _has_more(protocol.transport)):
                break
            protocol.close()
        return await super()._get(key, traces)


def _rest(transport: BaseTransport) -> bytes:
    """Return what waits to be read on a connection that is being closed, if it isn't yet."""
    if (peer := transport.get_extra_info("socket")) is None:
        return b""
    try:
        return os.read(peer.fileno(), READ_BUFFER_BYTES)
    except OSError:
        return b""


def _hear_out(layer: asyncio.BufferedProtocol, transport: BaseTransport) -> BaseException | None:
    """Have a TLS connection understand what waits to be read on it; return what it can't.

    That may be the alert by which the other side has ended it. asyncio only logs it by then.
    """
    failures: list[BaseException] = []
    vars(layer)["_fatal_error"] = lambda failure, *_: failures.append(failure)
    data = _rest(transport)
    while data:
        buffer = memoryview(layer.get_buffer(len(data)))
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        layer.buffer_updated(count)
        data = data[count:]
    del vars(layer)["_fatal_error"]
    return next(iter(failures), None)


def _has_said_so(transport: BaseTransport | None) -> bool:
    """Tell whether the other side has ended a connection in order: over TLS by close_notify."""
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    if tls is None:
        return True
    try:
        return not tls.read(1)
    except ssl.SSLError:
        # It would go on, if there were more.
        return False


def _has_more(transport: BaseTransport | None) -> bool:
    """Tell whether bytes, or the end, wait to be read on a connection."""
    if transport is None or (peer := transport.get_extra_info("socket")) is None:
        return True
    poll = select.poll()
    poll.register(peer.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _is_strict(message: RawResponseMessage) -> bool:
    """Tell whether a head is HTTP/1.x for every reader, and of an answer that relproxy can take."""
    return (
        message.version in _VERSIONS
        and message.code < 600
        and message.code >= HTTPStatus.CONTINUE
        and message.code != HTTPStatus.SWITCHING_PROTOCOLS
        and _FIELD_VALUE.fullmatch(message.reason.encode("utf-8", "surrogateescape")) is not None
        and all(_is_field(name, value) for name, value in message.raw_headers)
        and _is_framed_once(message)
    )


def _is_field(name: bytes, value: bytes) -> bool:
    return bool(_FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value))


def _is_framed_once(message: RawResponseMessage) -> bool:
    """Tell whether everyone finds the end of a body where aiohttp does."""
    codings = [coding.strip().lower() for coding in message.headers.getall("Transfer-Encoding", ())]
    return not codings or (codings == ["chunked"] and message.version == aiohttp.HttpVersion11)


def _has_no_body_but_says_so(message: RawResponseMessage) -> bool:
    """Tell whether an answer without a body names the length of one, which may still come."""
    named = message.headers.get("Content-Length", "0")
    return message.code == HTTPStatus.NO_CONTENT and (message.chunked or named != "0")
