"""One client's connection: what has arrived on it, and what is answered that isn't HTTP."""

from __future__ import annotations

import asyncio
import logging
import uuid
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from relproxy.draining import InFlight

_LOG = logging.getLogger(__name__)

# A Keystone token, a list of 200 ids: both fit 16 KiB with room.
MAX_LINE_BYTES = 16 * 1024
# As many as aiohttp takes of itself, and in its words when there are more.
MAX_FIELDS = 128
# A request has a token, or two, and may have a long path: all together is far less.
MAX_HEAD_BYTES = 64 * 1024
_TOO_MANY_FIELDS = "Too many headers received"


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
    has_left = False
    _has_part_of_head = False
    _request_id: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request has come, nor the beginning of one, since the last was answered."""
        return self._awaits_head and not self._has_part_of_head

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
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        super().data_received(data)
        # A line end too many after a body is no beginning.
        self._has_part_of_head = self._awaits_head and bool(data.strip(b"\r\n"))
        under_way = self._current_request
        is_broken = bool(self._messages) and not isinstance(
            self._messages[-1][0], RawRequestMessage
        )
        if is_broken and under_way is not None and not under_way.content.is_eof():
            _LOG.info("request broke off")
            if self.transport is not None:
                self.transport.abort()

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
        answer = super().handle_error(request, status, exc, message)
        if status != HTTPStatus.BAD_REQUEST:
            return answer
        if isinstance(exc, LineTooLong) or message == _TOO_MANY_FIELDS:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            message = (
                f"The head of this request is too large: {MAX_FIELDS} header fields are taken, "
                f"{MAX_LINE_BYTES} bytes of each line, and {MAX_HEAD_BYTES} bytes in all."
            )
        own = {"Server": "relproxy", "X-Openstack-Request-Id": self._request_id}
        answer = web.Response(status=status, text=message, headers=own)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """Write what isn't HTTP to the log, with the id that its answer has."""
        super().log_exception(*args, extra={"request_id": self._request_id}, **kw)
