"""A stand-in Keystone on a real socket, with faults to order: it logs in and shows tokens.

Faithful to Identity API v3 in what relproxy asks of it: `POST /v3/auth/tokens` and
`GET /v3/auth/tokens`. The real one is `lab.keystone`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from types import TracebackType

PASSWORD = "sesame"  # noqa: S105 - of a Keystone that lives for a test
_CLOSE_S = 0.01


@dataclass
class KeystoneFaults:
    """What to do to the next requests; `status` and `body` are answered instead of the truth."""

    before_log_in: Callable[[], Awaitable[None]] | None = None
    before_showing: Callable[[], Awaitable[None]] | None = None
    status: int | None = None
    body: bytes | None = None
    drop: bool = False
    echo: str | None = None


@dataclass(eq=False)
class StandInKeystone:
    """A Keystone to enter with `async with`; `tokens` maps what it knows to what it shows.

    With `tls` it is served over that alone.
    """

    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    own_lasts: timedelta = timedelta(hours=1)
    faults: KeystoneFaults = field(default_factory=KeystoneFaults)
    log_ins: list[dict[str, Any]] = field(default_factory=list)
    shown: list[tuple[str, str]] = field(default_factory=list)
    own_tokens: set[str] = field(default_factory=set)
    tls: ssl.SSLContext | None = None
    auth_url: str = field(init=False, default="")

    def add(
        self,
        token: str,
        project: str | None,
        *roles: str,
        lasts: timedelta = timedelta(hours=1),
        **more: object,
    ) -> str:
        """Make a token known, of a project and with roles, that ends so much later."""
        ends = datetime.now(UTC) + lasts
        said: dict[str, Any] = {
            "user": {"id": f"user-of-{token}", "domain": {"id": "default"}},
            "roles": [{"name": role} for role in roles],
            "expires_at": ends.isoformat(),
            **more,
        }
        if project is not None:
            said["project"] = {"id": project, "domain": {"id": "default"}}
        self.tokens[token] = said
        return token

    def forget_own(self) -> None:
        """Take no token that relproxy has logged in for any more."""
        self.own_tokens.clear()

    async def __aenter__(self) -> Self:
        self._server = web.Server(self._answer, access_log=None)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, "127.0.0.1", 0, ssl=self.tls)
        scheme = "http" if self.tls is None else "https"
        self.auth_url = f"{scheme}://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/v3"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Go away: no connection is taken any more, and none is kept."""
        self._listener.close()
        transports = [connection.transport for connection in self._server.connections]
        await self._server.shutdown(_CLOSE_S)
        if self.tls is not None:
            # Over TLS a transport waits for the other side to say goodbye, too.
            for transport in filter(None, transports):
                transport.abort()
        await self._listener.wait_closed()
        # Turns of the loop, for each layer of transports.
        for _ in range(5):
            await asyncio.sleep(0)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/v3/auth/tokens":
            return web.Response(status=404)
        if request.method == "POST":
            return await self._log_in(request)
        return await self._show(request)

    async def _log_in(self, request: web.BaseRequest) -> web.Response:
        asked = await request.json()
        self.log_ins.append(asked)
        if self.faults.before_log_in is not None:
            await self.faults.before_log_in()
        identity = asked["auth"]["identity"]
        (method,) = identity["methods"]
        known = identity[method]["user"] if method == "password" else identity[method]
        if PASSWORD not in {known.get("password"), known.get("secret")}:
            return web.json_response({"error": {"code": 401}}, status=401)
        token = f"own-{len(self.log_ins)}"
        self.own_tokens.add(token)
        ends = datetime.now(UTC) + self.own_lasts
        return web.json_response(
            {"token": {"expires_at": ends.isoformat()}},
            status=201,
            headers={"X-Subject-Token": token},
        )

    async def _show(self, request: web.BaseRequest) -> web.StreamResponse:
        subject = request.headers["X-Subject-Token"]
        self.shown.append((subject, request.query_string))
        if self.faults.before_showing is not None:
            await self.faults.before_showing()
        if self.faults.drop:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # goes nowhere, but aiohttp wants one
        if self.faults.status is not None or self.faults.body is not None:
            return web.Response(status=self.faults.status or 200, body=self.faults.body or b"")
        if request.headers.get("X-Auth-Token") not in self.own_tokens:
            return web.json_response({"error": {"code": 401}}, status=401)
        said = self.tokens.get(subject)
        if said is None or not self._is_shown(said, request):
            return web.json_response({"error": {"code": 404}}, status=404)
        return web.Response(
            body=json.dumps({"token": said}),
            content_type="application/json",
            headers=_echoed(subject if self.faults.echo is None else self.faults.echo),
        )

    def _is_shown(self, said: dict[str, Any], request: web.BaseRequest) -> bool:
        has_ended = datetime.fromisoformat(said["expires_at"]) <= datetime.now(UTC)
        if has_ended and request.query.get("allow_expired") != "1":
            return False
        narrow = said.get("application_credential", {}).get("access_rules") is not None
        return not narrow or "OpenStack-Identity-Access-Rules" in request.headers


def _echoed(token: str) -> dict[str, str]:
    return {"X-Subject-Token": token} if token else {}
