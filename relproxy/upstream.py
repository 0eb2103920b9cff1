"""Forwarding to a registry, by aiohttp's client: heads as they are, bodies as they arrive.

The client's own additions (headers, cookies, decompression, redirects, retries) are all off: what
goes upstream is what the flow decided, once. A create is never sent twice; a bodyless GET or HEAD
is tried on the next endpoint if no connection to one could be made, because then nothing was sent.

aiohttp reads answers leniently, and takes whatever arrives on an idle connection for the answer to
the next request, which may be another project's. So here a connection on which anything is left is
closed instead of used, and an answer whose head is not strictly HTTP/1.x is none.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
from asyncio import BaseTransport
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from yarl import URL

from relproxy.config import Timeouts
from relproxy.config_forwarding import Forwarding
from relproxy.endpoints import Endpoint, Endpoints
from relproxy.errors import (
    BadRequestError,
    NothingSentError,
    RegistryGarbageError,
    RegistryTimeoutError,
    RegistryUnreachableError,
)
from relproxy.messages import Headers, RequestBody, Response, ResponseHead
from relproxy.metrics import Metrics
from relproxy.upstream_upload import asking_requests

# With the default of 64 KiB every socket read overruns the buffer's mark and costs a pause.
_READ_BUFFER_BYTES = 1024**2
_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
# Header fields that a registry may send: Location and metadata of v1 are long.
_MAX_FIELD_BYTES = 64 * 1024
_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

# RFC 9110, sections 5.6.2 and 5.5; a reason phrase has the characters of a value.
_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_VERSIONS = (aiohttp.HttpVersion10, aiohttp.HttpVersion11)


def open_session(timeouts: Timeouts, forwarding: Forwarding | None = None) -> aiohttp.ClientSession:
    """Return the one client session of a relproxy; whoever opens it closes it."""
    forwarding = forwarding or Forwarding()
    session = aiohttp.ClientSession(
        connector=_Connector(limit=0, keepalive_timeout=timeouts.keepalive_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=asking_requests(forwarding.expect_continue_s),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=timeouts.connect_s, sock_read=timeouts.read_s
        ),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=_AUTOMATIC_HEADERS,
        read_bufsize=_READ_BUFFER_BYTES,
        max_field_size=_MAX_FIELD_BYTES,
        max_line_size=_MAX_FIELD_BYTES,
    )
    # aiohttp has no public switch for this; tests/integration/test_forwarding.py fails if it moves.
    session._retry_connection = False  # noqa: SLF001
    return session


class _Wire(ResponseHandler):
    """One connection; an answer that isn't strictly HTTP ends it, as garbage does."""

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
        if HTTPStatus.CONTINUE < message.code < HTTPStatus.OK:
            return  # aiohttp takes any interim answer for the 100 that a body waits for.
        if _has_no_body_but_says_so(message):
            self.force_close()
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Take that no answer will come any more; one that has arrived still counts."""
        self._hear_out(exc)
        super().set_exception(exc, *cause)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take the end of the connection; an answer that has arrived still counts."""
        self._hear_out(exc)
        super().connection_lost(exc)

    def _hear_out(self, failure: BaseException | None) -> None:
        """Take what a registry said before it closed a connection that was being written to.

        It may refuse an upload half-way and close at once. Writing then fails, and asyncio gives
        the connection up without a look at the refusal, which waits to be read.
        """
        transport = self.transport
        if transport is None or not (isinstance(failure, OSError) and transport.is_closing()):
            return
        if transport.get_extra_info("sslcontext") is None and self._parser is not None:
            with contextlib.suppress(OSError):
                peer = transport.get_extra_info("socket")
                self.data_received(os.read(peer.fileno(), _READ_BUFFER_BYTES))


class _Connector(aiohttp.TCPConnector):
    """Connections of which an idle one is used again only if nothing has arrived on it since.

    aiohttp has no public switch for this; tests/integration/test_desync.py fails if it moves.
    """

    def __init__(self, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        protocol: type[ResponseHandler] = _Wire
        self._factory = functools.partial(protocol, loop=self._loop)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        # What a registry, or a balancer before it, sends unasked would answer the next request.
        for protocol, _ in self._conns.get(key, ()):
            if not (protocol.should_close or _has_more(protocol.transport)):
                break
            protocol.close()
        return await super()._get(key, traces)


def _has_more(transport: BaseTransport | None) -> bool:
    """Tell whether bytes, or the end, wait to be read on a connection."""
    if transport is None or (peer := transport.get_extra_info("socket")) is None:
        return True
    poll = select.poll()
    poll.register(peer.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Upstream:
    """The way to one registry."""

    def __init__(
        self, name: str, endpoints: Endpoints, session: aiohttp.ClientSession, metrics: Metrics
    ) -> None:
        self.name = name
        self._endpoints = endpoints
        self._session = session
        self._metrics = metrics

    async def send(
        self, method: str, target: str, headers: Headers, body: RequestBody | bytes | None = None
    ) -> Response:
        """Send one request and return its answer as soon as its head is there.

        Raises `NothingSentError`, `RegistryUnreachableError`, `RegistryTimeoutError` or
        `RegistryGarbageError`; `BadRequestError` if a header can't be sent as it came.
        """
        with self._counted():
            for endpoint in self._endpoints.by_preference():
                with contextlib.suppress(*_NO_CONNECTION):
                    return await self._sent(endpoint, method, target, headers, body)
        self._metrics.upstream_errors.labels(self.name, "unreachable").inc()
        raise NothingSentError("The registry can't be reached.")

    async def _sent(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        headers: Headers,
        body: RequestBody | bytes | None,
    ) -> Response:
        if body is not None and not isinstance(body, bytes) and body.is_awaited:
            headers = headers.with_added(("Expect", "100-continue"))
        with contextlib.ExitStack() as held:
            held.enter_context(endpoint.busy())
            answer = await self._session.request(
                method,
                URL(endpoint.url + target, encoded=True),
                headers=_as_text(headers),
                data=body.chunks() if body is not None and not isinstance(body, bytes) else body,
                allow_redirects=False,
            )
            held.callback(answer.close)
            head = _head(answer)
            kept = held.pop_all()

        async def aclose() -> None:
            kept.close()

        return Response(head, self._chunks(answer), aclose)

    async def _chunks(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        with self._counted():
            async for chunk in answer.content.iter_any():
                yield chunk

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Translate the client's errors, and count each."""
        try:
            yield
        except TimeoutError as failure:
            self._metrics.upstream_errors.labels(self.name, "timeout").inc()
            raise RegistryTimeoutError("The registry did not answer in time.") from failure
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as failure:
            self._metrics.upstream_errors.labels(self.name, "garbage").inc()
            raise RegistryGarbageError("The registry's answer broke off.") from failure
        except (aiohttp.ClientError, OSError) as failure:
            self._metrics.upstream_errors.labels(self.name, "unreachable").inc()
            raise RegistryUnreachableError("The registry can't be reached.") from failure


def _as_text(headers: Headers) -> CIMultiDict[str]:
    """Return headers as aiohttp's client wants them: it writes text as UTF-8, and nothing else.

    Raises `BadRequestError` for bytes that it could not write as they came.
    """
    try:
        return CIMultiDict((_text(name), _text(value)) for name, value in headers.pairs)
    except UnicodeDecodeError as failure:
        raise BadRequestError("A header of this request is not UTF-8.") from failure


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "strict")


def _head(answer: aiohttp.ClientResponse) -> ResponseHead:
    headers = Headers(tuple(answer.raw_headers))
    if answer.status == HTTPStatus.NO_CONTENT and headers.first("Content-Length") != "0":
        # It has no body, whatever it says of its length (RFC 9110, section 8.6).
        headers = headers.without(("Content-Length",))
    version = (1, 0) if answer.version == aiohttp.HttpVersion10 else (1, 1)
    return ResponseHead(answer.status, answer.reason or "", headers, version)


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
