"""The composition root's part about the listeners: what serves each of them, on which sockets."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aiohttp import web

from relproxy.accepting import Crowd, Door
from relproxy.announcing import announcements_of
from relproxy.config import Configuration
from relproxy.metrics import Metrics
from relproxy.proxy import Proxy
from relproxy.server import Shared, make_server

# For aiohttp to close connections on which nothing is under way.
_CLOSE_S = 0.1


async def runners_of(
    opened: AsyncExitStack,
    configuration: Configuration,
    proxy: Proxy,
    shared: Shared,
    metrics: Metrics,
) -> list[web.ServerRunner]:
    """Return what serves each listener, once it is given sockets."""
    return [
        await _runner(
            opened,
            make_server(
                proxy.respond,
                listener=listener.name,
                shared=shared,
                announcements=announcements_of(configuration, listener, metrics),
            ),
        )
        for listener in configuration.listeners
    ]


async def listening_admin(
    opened: AsyncExitStack, sockets: Sequence[socket.socket], application: web.Application
) -> web.AppRunner:
    """Serve operators."""
    runner = web.AppRunner(application, access_log=None)
    opened.push_async_callback(runner.cleanup)
    await runner.setup()
    await accepting(runner, sockets)
    return runner


async def _runner(opened: AsyncExitStack, server: web.Server) -> web.ServerRunner:
    # Nothing is under way any more when it is cleaned up, or has had its time.
    runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_S)
    opened.push_async_callback(runner.cleanup)
    await runner.setup()
    return runner


async def accepting(
    runner: web.BaseRunner, sockets: Sequence[socket.socket], crowd: Crowd | None = None
) -> tuple[str, int]:
    """Take connections on these sockets, and return the address of the last of them.

    They are of a crowd; operators, who have none, are let in whoever else is there.
    """
    for each in sockets:
        await (web.SockSite(runner, each) if crowd is None else Door(runner, each, crowd)).start()
    return address_of(runner)


def address_of(runner: web.BaseRunner) -> tuple[str, int]:
    """Return where a runner listens, as (host, port)."""
    address = runner.addresses[-1]
    return address[0], address[1]
