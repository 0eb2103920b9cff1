"""Forwarding to a registry, by aiohttp's client: heads as they are, bodies as they arrive.

The client's own additions (headers, cookies, decompression, redirects, retries) are all off: what
goes upstream is what the flow decided, once. A create is never sent twice; a bodyless GET or HEAD
is tried on the next endpoint if no connection to one could be made, because then nothing was sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from relproxy.config import Timeouts
from relproxy.endpoints import Endpoint, Endpoints
from relproxy.errors import (
    BadRequestError,
    NothingSentError,
    RegistryGarbageError,
    RegistryTimeoutError,
    RegistryUnreachableError,
)
from relproxy.messages import HeaderPair, Headers, RequestBody, Response, ResponseHead
from relproxy.metrics import Metrics

# With the default of 64 KiB every socket read overruns the buffer's mark and costs a pause.
_READ_BUFFER_BYTES = 1024**2
_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
# Header fields that a registry may send: Location and metadata of v1 are long.
_MAX_FIELD_BYTES = 64 * 1024
_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def open_session(timeouts: Timeouts) -> aiohttp.ClientSession:
    """Return the one client session of a relproxy; whoever opens it closes it."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=timeouts.keepalive_s),
        cookie_jar=aiohttp.DummyCookieJar(),
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
            kept = held.pop_all()

        async def aclose() -> None:
            kept.close()

        return Response(_head(answer), self._chunks(answer), aclose)

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
    pairs: tuple[HeaderPair, ...] = tuple(answer.raw_headers)
    return ResponseHead(answer.status, answer.reason or "", Headers(pairs))
