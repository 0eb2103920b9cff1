"""One client's connection: what has arrived on it, and what is answered that isn't HTTP."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from relproxy.arrival import Arrival
from relproxy.draining import InFlight
from relproxy.request_heads import ArrivingHead
from relproxy.trailers import Payload, Trailers

_LOG = logging.getLogger(__name__)

# A Keystone token, a list of 200 ids: both fit 16 KiB with room.
MAX_LINE_BYTES = 16 * 1024
# As many as aiohttp takes of itself, and in its words when there are more.
MAX_FIELDS = 128
# A request has a token, or two, and may have a long path: all together is far less.
MAX_HEAD_BYTES = 64 * 1024
# With what isn't counted of a whole one: colons, blanks, line ends.
_MAX_RAW_HEAD_BYTES = MAX_HEAD_BYTES + 4 * 1024
_TOO_MANY_FIELDS = "Too many headers received"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client may take, in seconds.

    For the head of a request, between two pieces of a body, to take any of an answer, and between
    two requests.
    """

    head_s: float
    body_s: float
    write_s: float
    idle_s: float


class _WithoutForeignBytes(logging.Filter):
    """Keeps what a client sent out of the log: aiohttp quotes a header that is too long."""

    def filter(self, record: logging.LogRecord) -> bool:
        failure = record.exc_info[1] if record.exc_info else None
        if isinstance(failure, HttpProcessingError):
            record.msg, record.args = "request is not HTTP", None
            record.reason, record.exc_info = type(failure).__name__, None
        return True


HTTP_LOG = logging.getLogger("relproxy.server.http")
HTTP_LOG.addFilter(_WithoutForeignBytes())


class _LastWord(web.Response):
    """An answer behind which nothing is said, to a client that may still be sending."""

    async def write_eof(self, data: bytes = b"") -> None:
        request = self._req  # Forgotten once it is answered.
        await super().write_eof(data)
        if request is not None:
            half_close(request.transport)


def half_close(transport: asyncio.Transport | None) -> None:
    """End the connection on this side, so that a client which still sends reads its answer.

    Closing it whole would reset it, and the answer might be lost. aiohttp throws away what still
    comes, for ten seconds at most.
    """
    if transport is not None and transport.can_write_eof():
        transport.write_eof()


class SentResponse(web.StreamResponse):
    """What aiohttp's server is given when everything has been written already."""

    def __init__(self, status: int, *, keeps_alive: bool) -> None:
        super().__init__(status=status)
        self._keeps_alive = keeps_alive

    @property
    def keep_alive(self) -> bool:
        """Whether the connection goes on."""
        return self._keeps_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing: the head has been written."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the end has been written."""


class Connection(web.RequestHandler):
    """One client's connection; a body that turns out not to be HTTP ends it.

    aiohttp puts its complaint behind the request, which waits for the rest of its body for ever.
    """

    in_flight: InFlight
    arrival: Arrival
    has_left = False
    _is_refused = False
    _request_id: str | None = None

    def __init__(
        self,
        manager: web.Server,
        patience: Patience,
        **settings: Any,  # noqa: ANN401 - aiohttp's own
    ) -> None:
        super().__init__(manager, keepalive_timeout=patience.idle_s, **settings)
        self._patience = patience
        self._trailers = Trailers()
        self._head = ArrivingHead(patience.head_s, self._head_is_late)
        self._newest_payload: Payload | None = None

    @property
    def must_end(self) -> bool:
        """Whether nothing may be read behind what has arrived."""
        return self._trailers.may_have_come

    @property
    def is_idle(self) -> bool:
        """Whether no request has come, nor the beginning of one, since the last was answered."""
        return self._awaits_head and not self._head.size

    @property
    def was_used(self) -> bool:
        """Whether there has been a request on it."""
        return self._request_count > 0

    @property
    def _awaits_head(self) -> bool:
        is_waiting = self._waiter is not None and not self._waiter.done()
        return is_waiting and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection."""
        self.in_flight.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget a connection; the request under way ends with its client."""
        self.has_left = True
        self.in_flight.discard(self)
        self._head.is_whole()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._is_refused:
            return
        was_in_head = self._is_in_head
        before = self._request_count
        super().data_received(data)
        newest = self._newest(self._request_count - before)
        # Behind so many that wait the parser stops between two of them.
        self._trailers.took(data, newest, is_all=len(self._messages) <= 1)
        if newest:
            self._newest_payload = newest[-1][1]
        if not newest and was_in_head:
            self._head.took(data)
        else:
            self._head.is_whole()
        if self._head.size > _MAX_RAW_HEAD_BYTES:
            # Its client still sends: aiohttp throws away what comes, for ten seconds at most.
            rest = StreamReader(self, 0, loop=self._loop)
            self._refuse(HTTPStatus.BAD_REQUEST, LineTooLong(b"", MAX_HEAD_BYTES), rest)
        self._break_off_where_broken()

    @property
    def _is_in_head(self) -> bool:
        """Whether what comes next belongs to the head of another message."""
        return self._newest_payload is None or self._newest_payload.is_eof()

    def _break_off_where_broken(self) -> None:
        under_way = self._current_request
        is_broken = bool(self._messages) and not isinstance(
            self._messages[-1][0], RawRequestMessage
        )
        is_broken = is_broken and under_way is not None and not under_way.content.is_eof()
        # Answered or not: it is not a request that could still become whole.
        if is_broken or self._trailers.size > MAX_HEAD_BYTES:
            _LOG.info("request broke off")
            if self.transport is not None:
                self.transport.abort()

    def _process_keepalive(self) -> None:
        """Close a connection that was idle for its time; of one on which a head arrives, go on."""
        if self._head.size:
            self._keepalive_handle = None
        else:
            super()._process_keepalive()

    def _head_is_late(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, HttpProcessingError(message="late"), EMPTY_PAYLOAD)

    def _refuse(self, status: HTTPStatus, why: HttpProcessingError, rest: StreamReader) -> None:
        """Answer what has arrived of a head, behind the answers to what came before it."""
        self._is_refused = True
        self._head.is_whole()
        self._messages.append((_ErrInfo(status, why, why.message), rest))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _newest(self, count: int) -> Sequence[tuple[object, Payload]]:
        """Return the messages that were parsed last."""
        return [*self._messages][-count:] if count else []

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what isn't HTTP as relproxy takes it; aiohttp's own answer names its versions."""
        if isinstance(exc, ConnectionError):
            # There is nobody to answer: the client has left, or its answer was broken off.
            return SentResponse(status, keeps_alive=False)
        self._request_id = f"req-{uuid.uuid4()}"
        if status == HTTPStatus.REQUEST_TIMEOUT:
            _LOG.info("head is late", extra={"request_id": self._request_id})
            late = f"The head of this request did not arrive within {self._patience.head_s:g} s."
            return self._refusal(status, late)
        answer = super().handle_error(request, status, exc, message)
        if status != HTTPStatus.BAD_REQUEST:
            return answer
        if isinstance(exc, LineTooLong) or message == _TOO_MANY_FIELDS:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            message = (
                f"The head of this request is too large: {MAX_FIELDS} header fields are taken, "
                f"{MAX_LINE_BYTES} bytes of each line, and {MAX_HEAD_BYTES} bytes in all."
            )
        return self._refusal(status, message)

    def _refusal(self, status: int, message: str | None) -> web.Response:
        own = {
            "Server": "relproxy",
            "X-Openstack-Request-Id": str(self._request_id),
            "Cache-Control": "no-store",
        }
        kind = _LastWord if self._is_refused else web.Response
        answer = kind(status=status, text=message, headers=own)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """Write what isn't HTTP to the log, with the id that its answer has."""
        super().log_exception(*args, extra={"request_id": self._request_id}, **kw)
