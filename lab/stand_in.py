"""A stand-in Glance (image API v2) in this process, on a real socket, with faults to order.

Faithful to Glance 33 in what a proxy in front of it can trip over: how requests are routed, how
lists are filtered, sorted and paged, error pages, who sees and may change what, sharing, statuses
and headers. `lab.stand_in_query` and `lab.stand_in_image` decide, `lab.stand_in_registry` and
`lab.stand_in_members` do, this file serves. Left out: Range, the quota of members, staging and
import, locations, metadefs, the cache, the 400 to an upload into an image without formats, and the
roles: a trusting Glance refuses who has not `reader` for reading and `member` for writing.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from lab.stand_in_query import Caller, RefusedError, path_within_v2, routed_method, split_target
from lab.stand_in_registry import IMAGE_PATH, Registry
from lab.stand_in_wire import (
    Answer,
    Call,
    DroppedError,
    Faults,
    Recorded,
    error_page,
    pieces,
    reached,
    send,
    version_document,
)

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Faults", "Recorded", "StandIn"]

# How long aiohttp waits for idle connections when it closes; zero would mean for ever.
_CLOSE_S = 0.01
_BROKEN_BODY = (ConnectionError, web.RequestPayloadError)
_FORM = "application/x-www-form-urlencoded"


@dataclass(kw_only=True, eq=False)
class StandIn(Registry):
    """A Glance to enter with `async with`; `url` is its endpoint, without a version.

    With `tls` it is served over that alone.
    """

    tls: ssl.SSLContext | None = None
    url: str = field(init=False, default="")
    # Glance's is 503 while the file of its disable_by_file exists.
    healthcheck_status: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        self._arrival = asyncio.Event()
        self._active: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        # Not decompressed: a request is recorded as it was sent.
        self._server = web.Server(self._serve, auto_decompress=False, access_log=None)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, "127.0.0.1", 0, ssl=self.tls)
        scheme = "http" if self.tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.close()
        active = list(self._active)
        for task in active:
            task.cancel()
        await asyncio.gather(*active, return_exceptions=True)
        transports = [connection.transport for connection in self._server.connections]
        await self._server.shutdown(_CLOSE_S)
        if self.tls is not None:
            # Over TLS a transport waits for the other side to say goodbye, too.
            for transport in filter(None, transports):
                transport.abort()
        await self._listener.wait_closed()
        # Turns of the loop: one for the connections' own tasks, one for each layer of transports.
        for _ in range(5):
            await asyncio.sleep(0)

    async def await_requests(self, count: int) -> None:
        """Wait until so many requests were recorded, uploads as soon as their head arrived."""
        while len(self.requests) < count:
            self._arrival.clear()
            await self._arrival.wait()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        if task is not None:
            self._active.add(task)
            task.add_done_callback(self._active.discard)
        try:
            answer = await self._answer(request)
            return await send(request, answer, self.faults, send_length=self.send_length)
        except (DroppedError, *_BROKEN_BODY):
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # goes nowhere, but aiohttp wants one

    async def _answer(self, request: web.BaseRequest) -> Answer:
        call = await self._read(request)
        await reached(self.faults.delay)
        if self.faults.drop:
            raise DroppedError
        try:
            answer = await self._route(call)
        except RefusedError as refusal:
            answer = error_page(refusal, request)
        if answer.is_traced:
            answer.headers.append(("x-openstack-request-id", self._request_id(request)))
        return answer

    async def _read(self, request: web.BaseRequest) -> Call:
        """Take a request apart and record it; an upload's body stays unread."""
        path, query = split_target(request.raw_path)
        within_v2 = path_within_v2(path, ",".join(request.headers.getall("Accept", ())))
        is_file = re.fullmatch(f"{IMAGE_PATH}/file", within_v2 or "")
        is_upload = bool(is_file) and routed_method(request.method, query, "") == "PUT"
        body = b"" if is_upload else b"".join([piece async for piece in pieces(request)])
        recorded = Recorded(
            request.method,
            request.raw_path,
            request.raw_headers,
            body,
            len(body),
            complete=not is_upload,
        )
        self.requests.append(recorded)
        self._arrival.set()
        form = body.decode("latin-1") if request.content_type == _FORM else ""
        return Call(request, recorded, path, within_v2, query, form)

    def _request_id(self, request: web.BaseRequest) -> str:
        """Return the id that Glance gives or, with identity headers, takes over."""
        asked = request.headers.get("X-OpenStack-Request-ID") if self.trusting else None
        return f"req-{(asked or str(uuid.uuid4())).removeprefix('req-')}"

    async def _route(self, call: Call) -> Answer:
        if self.faults.status is not None:
            return Answer(*self.faults.status, content_type="text/html; charset=UTF-8")
        if call.request.method == "OPTIONS":  # Glance's CORS filter takes them all
            return Answer(content_type="", is_traced=False)
        if f"{call.path}/".startswith("/healthcheck/"):
            return Answer(
                self.healthcheck_status,
                body=b"OK",
                content_type="text/plain; charset=UTF-8",
                is_traced=False,
            )
        if f"{call.path}/".startswith("/versions/"):
            return version_document(call.request.host, 200)
        if call.within_v2 is None:
            return version_document(call.request.host, 300)
        return await self._dispatch(replace(call, caller=self._caller(call.request)))

    def _caller(self, request: web.BaseRequest) -> Caller:
        if not self.trusting:
            return Caller(None, is_admin=True)
        if request.headers.get("X-Identity-Status") != "Confirmed":
            raise RefusedError(401)
        names = ("X-Project-Id", "X-Tenant-Id", "X-Tenant")  # oslo.context still takes the old ones
        project = next((request.headers[name] for name in names if name in request.headers), None)
        roles = ",".join(request.headers.getall("X-Roles", ())).lower().split(",")
        return Caller(project, is_admin="admin" in [role.strip() for role in roles])

    async def _dispatch(self, call: Call) -> Answer:
        if not call.within_v2:
            location = ("Location", f"http://{call.request.host}/v2/")
            return Answer(302, content_type="text/plain; charset=utf8", headers=[location])
        for pattern, handlers, allowed in self.routes():
            match = re.fullmatch(pattern, call.within_v2)
            if match:
                handler = handlers.get(call.method)
                if handler is None:
                    raise RefusedError(405, call.request.method, headers=(("Allow", allowed),))
                if call.has_body and not self.takes_body(handler):
                    raise RefusedError(400, "A body is not expected with this request.")
                return await handler(replace(call, arguments=match.groups()))
        raise RefusedError(404)
