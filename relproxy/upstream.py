"""Forwarding to a registry, by aiohttp's client: heads as they are, bodies as they arrive.

The client's own additions (headers, cookies, decompression, redirects, retries) are all off: what
goes upstream is what the flow decided, once. A request goes to another endpoint only if no
connection to one could be made, so that nothing was sent; or if its method is safe, it has no body,
and no byte of an answer was read. A create is never sent twice, nor a body of which anything is
gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from typing import cast

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from relproxy.account import current
from relproxy.config import Timeouts
from relproxy.config_forwarding import Forwarding
from relproxy.endpoints import Endpoint, Endpoints, Reason
from relproxy.errors import (
    BadRequestError,
    NoDescriptorError,
    NothingSentError,
    RegistryGarbageError,
    RegistryTimeoutError,
    RegistryUnreachableError,
    RelproxyError,
    TlsFailedError,
)
from relproxy.messages import PLAIN, Errand, Headers, RequestBody, Response, ResponseHead
from relproxy.metrics import Metrics
from relproxy.outgoing import Outgoing, Upload
from relproxy.tls_failures import cause_of, detail_of
from relproxy.transports import EXHAUSTED
from relproxy.unix_endpoints import origin_of, with_host
from relproxy.upstream_upload import asking_requests
from relproxy.upstream_wire import READ_BUFFER_BYTES, Connector, HandshakeRefusedError

_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
# Header fields that a registry may send: Location and metadata of v1 are long.
_MAX_FIELD_BYTES = 64 * 1024
_REASONS: Mapping[type[RelproxyError], Reason] = {
    TlsFailedError: "tls",
    RegistryTimeoutError: "timeout",
    RegistryGarbageError: "garbage",
    RegistryUnreachableError: "unreachable",
}
_NO_TLS = (aiohttp.ClientSSLError, HandshakeRefusedError)
_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def open_session(
    timeouts: Timeouts, forwarding: Forwarding | None = None, metrics: Metrics | None = None
) -> aiohttp.ClientSession:
    """Return the one client session of a relproxy; whoever opens it closes it."""
    forwarding = forwarding or Forwarding()
    connector = Connector(limit=0, keepalive_timeout=timeouts.keepalive_s)
    connector.tally = metrics.upstream_connections.inc if metrics is not None else None
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=asking_requests(forwarding.expect_continue_s),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=timeouts.connect_s, sock_read=timeouts.read_s
        ),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=_AUTOMATIC_HEADERS,
        read_bufsize=READ_BUFFER_BYTES,
        max_field_size=_MAX_FIELD_BYTES,
        max_line_size=_MAX_FIELD_BYTES,
    )
    # aiohttp has no public switch for this; tests/integration/test_forwarding.py fails if it moves.
    session._retry_connection = False  # noqa: SLF001
    # Nor for this: of fields that differ in the case of their names only it would send the last.
    session._prepare_headers = _as_they_are  # type: ignore[method-assign]  # noqa: SLF001
    return session


def _as_they_are(headers: object) -> CIMultiDict[str]:
    """Return the headers that a request was given; there are no others."""
    return cast("CIMultiDict[str]", headers)


class Upstream:
    """The way to one registry."""

    def __init__(
        self,
        name: str,
        endpoints: Endpoints,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.name = name
        self._endpoints = endpoints
        self._session = session
        self._metrics = metrics
        self._timeouts = timeouts or Timeouts()

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: RequestBody | bytes | None = None,
        *,
        errand: Errand = PLAIN,
    ) -> Response:
        """Send one request and return its answer as soon as its head is there.

        Raises `NothingSentError`, `RegistryUnreachableError`, `RegistryTimeoutError` or
        `RegistryGarbageError`; `BadRequestError` if a header can't be sent as it came.
        """
        request = Outgoing(
            method,
            target,
            _as_text(headers),
            body if isinstance(body, bytes) else None,
            None if body is None or isinstance(body, bytes) else Upload(body),
            errand,
        )
        with self._counted():
            return await self._answered(request)

    @property
    def endpoints(self) -> Endpoints:
        """The registry's endpoints, and how they are."""
        return self._endpoints

    async def passes(self, endpoint: Endpoint, target: str, *, timeout_s: float) -> bool:
        """Tell whether one endpoint answers a health check; this says nothing of requests.

        Below 500: a registry without a health check has an answer too.
        """
        request = Outgoing("GET", target, CIMultiDict(), None, None, PLAIN)
        try:
            with _translated():
                async with asyncio.timeout(timeout_s):
                    response = await self._sent(endpoint, request)
                    await response.aclose()
        except tuple(_REASONS):
            return False
        return response.head.status < HTTPStatus.INTERNAL_SERVER_ERROR

    async def _answered(self, request: Outgoing) -> Response:
        """Return the answer of the first endpoint that gives one."""
        failure: RelproxyError = NothingSentError("The registry can't be reached.")
        preferred = self._endpoints.by_preference(
            may_try=request.is_repeatable, stays_with=request.errand.stays_with
        )
        for endpoint in preferred:
            is_try = not endpoint.is_well
            try:
                return await self._attempted(endpoint, request)
            except NothingSentError as nothing:
                if request.upload and request.upload.has_begun:
                    raise  # What was taken of it is gone.
                # That it may have reached another one is what counts.
                failure = nothing if isinstance(failure, NothingSentError) else failure
            except RegistryUnreachableError as broken:
                if not request.is_repeatable:
                    raise
                failure = broken
            except RegistryTimeoutError as late:
                # Only a try may cost twice: a question that takes too long does so everywhere.
                if not (request.is_repeatable and is_try):
                    raise
                failure = late
        raise failure

    async def _attempted(self, endpoint: Endpoint, request: Outgoing) -> Response:
        """Send a request to one endpoint, and remember how that went."""
        with self._endpoints.attempt(endpoint):
            try:
                with _translated():
                    response = await self._sent(endpoint, request)
            except tuple(_REASONS) as failure:
                # A client that breaks its upload off says nothing about the endpoint.
                # Nor does that relproxy has no descriptor left.
                is_own = isinstance(failure, NoDescriptorError)
                if not (is_own or (request.upload and request.upload.has_failed)):
                    self._endpoints.failed(endpoint, _reason(failure))
                elif request.upload is not None and request.upload.refusal is not None:
                    raise request.upload.refusal from failure
                raise
            self._endpoints.answered(endpoint, response.head.status)
        return response

    async def _sent(self, endpoint: Endpoint, request: Outgoing) -> Response:
        with contextlib.ExitStack() as held:
            held.enter_context(endpoint.busy())
            account = current()
            answers = account.asks(endpoint.url)
            with self._securely(endpoint):
                answer = await self._asked(endpoint, request)
            held.callback(answer.close)
            head = _head(answer)
            seconds = answers(head)
            treatment = account.treatment or "none"
            self._metrics.upstream_seconds.labels(self.name, treatment).observe(seconds)
            kept = held.pop_all()

        async def aclose() -> None:
            kept.close()

        return Response(head, self._chunks(answer), aclose)

    @contextlib.contextmanager
    def _securely(self, endpoint: Endpoint) -> Iterator[None]:
        """Tell of TLS that fails, and why: whoever was asked, and whatever for."""
        try:
            with _translated():
                yield
        except TlsFailedError as failure:
            self._endpoints.distrusted(endpoint, failure.cause, failure.detail)
            raise
        endpoint.tls_cause = None

    async def _asked(self, endpoint: Endpoint, request: Outgoing) -> aiohttp.ClientResponse:
        """Send a request, and wait for the head of its answer for as long as it may take."""
        # An answer about image data is waited for as for each of its pieces, by the session itself.
        head_s = None if request.errand.moves_data else self._timeouts.head_s
        async with asyncio.timeout(None if request.upload else head_s) as deadline:
            data: AsyncIterator[bytes] | bytes | None = request.body
            with contextlib.ExitStack() as until_answered:
                headers = with_host(request.headers, endpoint.url, self._endpoints.host)
                if request.upload is not None:
                    if request.upload.is_awaited:
                        headers = CIMultiDict((*headers.items(), ("Expect", "100-continue")))
                    until_answered.enter_context(request.upload.moving(deadline))
                    data = request.upload.chunks(piece_s=self._timeouts.read_s, head_s=head_s)
                return await self._session.request(
                    request.method,
                    URL(origin_of(endpoint.url) + request.target, encoded=True),
                    headers=headers,
                    data=data,
                    allow_redirects=False,
                    **self._endpoints.tls_options(endpoint),
                )

    async def _chunks(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        with self._counted(), _translated():
            async for chunk in answer.content.iter_any():
                yield chunk

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request that gets no usable answer."""
        try:
            yield
        except tuple(_REASONS) as failure:
            self._metrics.upstream_errors.labels(self.name, _reason(failure)).inc()
            raise


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Translate the client's errors."""
    try:
        yield
    except _NO_TLS as failure:
        cause = failure.__cause__
        raise TlsFailedError(
            "The registry can't be reached securely.",
            cause=cause_of(cause),
            detail=detail_of(cause),
        ) from failure
    except _NO_CONNECTION as failure:
        if isinstance(failure, OSError) and failure.errno in EXHAUSTED:
            raise NoDescriptorError("relproxy has too many connections.") from failure
        raise NothingSentError("The registry can't be reached.") from failure
    except TimeoutError as failure:
        raise RegistryTimeoutError("The registry did not answer in time.") from failure
    except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as failure:
        raise RegistryGarbageError("The registry's answer broke off.") from failure
    except (aiohttp.ClientError, OSError) as failure:
        raise RegistryUnreachableError("The registry can't be reached.") from failure


def _reason(failure: Exception) -> Reason:
    return next(reason for kind, reason in _REASONS.items() if isinstance(failure, kind))


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
