"""Accepting connections, for as long as there is room for one more.

A process has so many descriptors. Beyond what it may give to clients their connections wait in the
system's queue, for another worker or for one that ends, instead of taking the descriptors that
registries, the journal and the store need. asyncio's own server knows no such limit; where the
descriptors end it writes a traceback each second.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import time
from collections.abc import Callable
from typing import Literal

from aiohttp import web

from relproxy.config import Configuration
from relproxy.metrics import Metrics
from relproxy.tasks import TaskSet
from relproxy.transports import EXHAUSTED

_LOG = logging.getLogger(__name__)

Reason = Literal["limit", "descriptors"]

# Of what waits, in one turn of the loop.
_AT_ONCE = 128
# Until the system is asked again, if no connection of a client's ends before.
_RETRY_S = 1.0
# The log says that connections wait at most so often.
_SAY_S = 60.0
# What a process holds besides connections of clients, and to registries, PostgreSQL and Keystone:
# listeners, journals of the host, SQLite's files, the admin listener's clients.
_OWN_DESCRIPTORS = 128
_SCARCE = 1000
# Connections to the admin listener at once: a few probes, scrapers and people, whom strangers may
# outnumber. They are of a process's own.
OPERATORS = 64


class Crowd:
    """The connections of clients that this process holds, and who waits until there is room.

    One for the whole process: after a reload the old connections count too. Without `metrics` they
    are not clients, but operators.
    """

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics
        self._most: int | None = None
        self._count = 0
        self._waiting: dict[Callable[[], None], None] = {}
        self._said_at = -_SAY_S
        self._retry: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def has_room(self) -> bool:
        """Whether one more may be taken."""
        return self._most is None or self._count < self._most

    def limit(self, most: int) -> None:
        """Hold so many at most from now on; those that are there stay."""
        self._most = most
        if self._metrics is not None:
            self._metrics.client_connections_max.set(most)
        if self.has_room:
            self._wake()

    def enter(self) -> None:
        """Count a connection."""
        self._count += 1
        if self._metrics is not None:
            self._metrics.client_connections.inc()

    def leave(self) -> None:
        """Count one less, and let those accept who wait for that."""
        self._count -= 1
        if self._metrics is not None:
            self._metrics.client_connections.dec()
        if self.has_room:
            self._wake()

    def wait(self, resume: Callable[[], None], reason: Reason) -> None:
        """Have `resume` called once there may be room."""
        if self._metrics is not None:
            self._metrics.accept_pauses.labels(reason).inc()
        self._say(reason)
        self._waiting[resume] = None
        if reason == "descriptors" and self._retry is None:
            # They may come free without a client's leaving.
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._try_again)

    def forget(self, resume: Callable[[], None]) -> None:
        """Take back that `resume` is to be called."""
        self._waiting.pop(resume, None)

    def _try_again(self) -> None:
        self._retry = None
        if self.has_room:
            self._wake()

    def _wake(self) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        for resume in waiting:
            resume()

    def _say(self, reason: Reason) -> None:
        now = time.monotonic()
        if now - self._said_at < _SAY_S:
            return
        self._said_at = now
        _LOG.warning(
            "connections wait",
            extra={"reason": reason, "connections": self._count, "limit": self._most},
        )


class Door(web.SockSite):
    """One listening socket, on which a crowd's connections are accepted."""

    __slots__ = ("_crowd", "_tasks")

    def __init__(
        self,
        runner: web.BaseRunner,
        listening: socket.socket,
        crowd: Crowd,
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(runner, listening, ssl_context=ssl_context)
        self._crowd = crowd
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Begin to accept."""
        await web.BaseSite.start(self)
        # It owns the socket, and closes it; but it doesn't accept.
        self._server = await asyncio.get_running_loop().create_server(
            self._serve, sock=self._sock, start_serving=False
        )
        self._open()

    async def stop(self) -> None:
        """Accept no more."""
        self._crowd.forget(self._open)
        await super().stop()

    def _open(self) -> None:
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _close(self, reason: Reason) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._crowd.wait(self._open, reason)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._crowd.has_room:
                return self._close("limit")
            try:
                accepted, _address = self._sock.accept()
            except OSError as failure:
                # Otherwise nobody is there, or nobody any more.
                return self._close("descriptors") if failure.errno in EXHAUSTED else None
            accepted.setblocking(False)
            self._tasks.start(self._welcome(_Accepted(accepted, self._crowd)), name="accepting")
        return None

    async def _welcome(self, accepted: _Accepted) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._serve, accepted, ssl=self._ssl_context)
        except OSError as failure:
            # It has gone, or its TLS is none.
            accepted.close()
            _LOG.debug("connection failed", exc_info=failure)

    def _serve(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner was cleaned up before its sites")
        return server()


class _Accepted(socket.socket):
    """A client's connection; it is one of the crowd until its descriptor is closed."""

    __slots__ = ("_crowd",)

    def __init__(self, accepted: socket.socket, crowd: Crowd) -> None:
        family, kind, protocol = accepted.family, accepted.type, accepted.proto
        super().__init__(family, kind, protocol, fileno=accepted.detach())
        self._crowd: Crowd | None = crowd
        crowd.enter()

    def close(self) -> None:
        """Give the descriptor back."""
        super().close()
        crowd, self._crowd = self._crowd, None
        if crowd is not None:
            crowd.leave()


def descriptors() -> int:
    """Return how many this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_descriptors() -> None:
    """Take as many descriptors as this process is granted.

    The lower limit is for programs that use select(), which relproxy doesn't (systemd.exec(5),
    on process properties).
    """
    _, granted = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, granted))


def most_connections(configuration: Configuration) -> int:
    """Return how many connections of clients there may be at once, and warn where that is little.

    Each may have a request, which has a connection to a registry.
    """
    granted, own = descriptors(), _OWN_DESCRIPTORS + _elsewhere(configuration)
    safe = max((granted - own) // 2, 1)
    configured = configuration.concurrency.connections
    # Not the last ones, whatever is configured: the journal needs some.
    most = safe if configured is None else min(configured, max(granted - own, 1))
    if most > safe or (configured is None and most < _SCARCE):
        needed = 2 * max(most, _SCARCE if configured is None else 0) + own
        fields = {"descriptors": granted, "connections": most, "needed": needed}
        _LOG.warning("descriptors are few", extra=fields)
    return most


def _elsewhere(configuration: Configuration) -> int:
    """Return how many connections there may be to the store and to Keystone."""
    keystone, store = configuration.identity.keystone, configuration.store
    to_store = store.connections if store.driver == "postgres" else 0
    return to_store + (keystone.connections if keystone is not None else 0)
