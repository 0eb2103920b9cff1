"""The composition root's part about the listeners: what serves each of them, on which sockets."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiohttp import web

from relproxy.accepting import OPERATORS, Crowd, Door, most_connections
from relproxy.announcing import announcements_of
from relproxy.config import Configuration, Timeouts
from relproxy.config_tls import ServerTls
from relproxy.connections import Patience
from relproxy.draining import InFlight
from relproxy.entrance import Entrance
from relproxy.metrics import Metrics
from relproxy.proxy import Proxy
from relproxy.securing import Securing, SecuringTerms
from relproxy.server import Shared, make_admin_server, make_server
from relproxy.sockets import Sockets
from relproxy.tls_contexts import listener_context

# What metrics and logs call the admin listener: names of listeners have no brackets.
_ADMIN = "(admin)"
# For aiohttp to close connections on which nothing is under way.
_CLOSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Opening:
    """With what listeners are opened: the sockets, and what is shown and counted on them."""

    configuration: Configuration
    sockets: Sockets
    metrics: Metrics


def patience_of(timeouts: Timeouts) -> Patience:
    """Return how long clients may take."""
    return Patience(
        head_s=timeouts.request_head_s,
        body_s=timeouts.request_body_s,
        write_s=timeouts.write_s,
        idle_s=timeouts.client_keepalive_s,
    )


async def runners_of(
    opened: AsyncExitStack, opening: Opening, proxy: Proxy, shared: Shared
) -> list[web.ServerRunner]:
    """Return what serves each listener, once it is given sockets."""
    return [
        await _runner(
            opened,
            make_server(proxy.respond, _entrance_of(opening, index, shared.in_flight), shared),
        )
        for index in range(len(opening.configuration.listeners))
    ]


async def listening_admin(
    opened: AsyncExitStack, opening: Opening, application: web.Application, shared: Shared
) -> web.AppRunner:
    """Serve operators; who else can connect takes nothing away from clients."""
    tls = opening.configuration.admin.tls
    # Operators aren't waited for: their requests are small, and asked again.
    securing = (
        None if tls is None else _securing_of(opening, "admin.tls", _ADMIN, tls, shared.in_flight)
    )
    runner = _AdminRunner(application, Entrance(_ADMIN, securing=securing), shared)
    opened.push_async_callback(runner.cleanup)
    await runner.setup()
    crowd = Crowd()
    crowd.limit(OPERATORS)
    await accepting(runner, opening.sockets.admin, crowd)
    return runner


class _AdminRunner(web.AppRunner):
    """Serves an application on connections like those of clients."""

    def __init__(self, application: web.Application, entrance: Entrance, shared: Shared) -> None:
        super().__init__(application, access_log=None)
        self._entrance = entrance
        self._shared = shared

    async def _make_server(self) -> web.Server:
        # For what it does besides.
        await super()._make_server()
        return make_admin_server(self.app, self._entrance, self._shared)


def _entrance_of(opening: Opening, index: int, in_flight: InFlight) -> Entrance:
    listener = opening.configuration.listeners[index]
    tls, path = listener.tls, f"listeners[{index}].tls"
    return Entrance(
        listener.name,
        announcements_of(opening.configuration, listener, opening.metrics, in_flight),
        None if tls is None else _securing_of(opening, path, listener.name, tls, in_flight),
        listener.fronted,
    )


def _securing_of(
    opening: Opening, path: str, name: str, tls: ServerTls, in_flight: InFlight
) -> Securing:
    proof = opening.sockets.proofs[path]
    timeout_s = opening.configuration.timeouts.tls_handshake_s
    terms = SecuringTerms(name, listener_context(proof, tls), timeout_s)
    opening.metrics.certificate_expiry.labels(name).set(proof.expires_at)
    return Securing(terms, opening.metrics, in_flight)


async def _runner(opened: AsyncExitStack, server: web.Server) -> web.ServerRunner:
    # Nothing is under way any more when it is cleaned up, or has had its time.
    runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_S)
    opened.push_async_callback(runner.cleanup)
    await runner.setup()
    return runner


async def all_accepting(
    opening: Opening, runners: Sequence[web.ServerRunner], crowd: Crowd
) -> Mapping[str, tuple[str, int]]:
    """Let in clients on every listener, as many as there may be; return where, by its name."""
    configuration = opening.configuration
    crowd.limit(most_connections(configuration))
    return {
        listener.name: await accepting(runner, opening.sockets.listeners[listener.name], crowd)
        for listener, runner in zip(configuration.listeners, runners, strict=True)
    }


async def accepting(
    runner: web.BaseRunner, sockets: Sequence[socket.socket], crowd: Crowd
) -> tuple[str, int]:
    """Take connections of a crowd on these sockets, and return the address of the last of them."""
    for each in sockets:
        await Door(runner, each, crowd).start()
    return address_of(runner)


def address_of(runner: web.BaseRunner) -> tuple[str, int]:
    """Return where a runner listens, as (host, port); of a Unix socket as (unix:/PATH, 0)."""
    address = runner.addresses[-1]
    return (f"unix:{address}", 0) if isinstance(address, str) else (address[0], address[1])
