"""Leaving without a failed request: what is under way, and in which order it comes to an end.

Two ways of leaving begin differently. Who is told to stop *announces* it: readiness turns red and
connections are still taken for a while, so that a balancer sends its requests elsewhere. Who is
replaced *retires*: others accept on the same sockets, so it takes no more connections at once.
From then on each answer closes its connection and says so. A client that is told loses nothing; one
that sends a request just when its idle connection is closed may, so idle connections are the last
thing to go. Then what is under way has its time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from aiohttp import web

from relproxy.metrics import Metrics

# How often the connections are looked at while they end.
_LOOK_S = 0.02
# A connection's first request is there by then, if it was opened for one.
_FIRST_REQUEST_S = 1.0
# Turns of the loop from a connection that is accepted to one that is counted.
_TURNS = 3


class Connection(Protocol):
    """A client's connection."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way on it, and none has begun to arrive."""
        ...

    @property
    def was_used(self) -> bool:
        """Whether there has been a request on it."""
        ...

    def force_close(self) -> None:
        """Close it."""
        ...


class InFlight:
    """The connections of every listener, and the requests whose answer is not finished."""

    def __init__(self, metrics: Metrics) -> None:
        self._gauge = metrics.requests_in_progress
        # When each was opened: seconds, monotonic.
        self._connections: dict[Connection, float] = {}
        self.is_draining = False

    def add(self, connection: Connection) -> None:
        """Count a connection."""
        self._connections[connection] = time.monotonic()

    def discard(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(connection, None)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one request for as long as it lasts."""
        self._gauge.inc()
        try:
            yield
        finally:
            self._gauge.dec()

    async def end(self, timeout_s: float) -> None:
        """Wait until clients have closed their connections, or got an answer that closes them."""
        self.is_draining = True
        await self._looking(timeout_s, lambda: None)

    async def drain(self, timeout_s: float) -> None:
        """Close what is idle, and wait until nothing is under way."""
        self.is_draining = True
        await self._looking(timeout_s, self._close_idle)

    async def _looking(self, timeout_s: float, look: Callable[[], None]) -> None:
        deadline = time.monotonic() + timeout_s
        while self._connections and time.monotonic() < deadline:
            look()
            await asyncio.sleep(_LOOK_S)

    def _close_idle(self) -> None:
        opened_long_ago = time.monotonic() - _FIRST_REQUEST_S
        for connection, opened_at in list(self._connections.items()):
            if connection.is_idle and (connection.was_used or opened_at < opened_long_ago):
                connection.force_close()


class Readiness(Protocol):
    """Who answers whether traffic should come here."""

    is_draining: bool


class Departure:
    """How one relproxy leaves; `drain` is the end of both ways."""

    def __init__(
        self,
        readiness: Readiness,
        in_flight: InFlight,
        runners: Sequence[web.BaseRunner],
        admin: web.BaseRunner,
        *,
        notice_s: float,
    ) -> None:
        self._readiness = readiness
        self._in_flight = in_flight
        self._runners = runners
        self._admin = admin
        self._notice_s = notice_s

    async def announce(self) -> None:
        """Say that this relproxy stops, and serve for as long as others may take to notice."""
        self._readiness.is_draining = True
        self._in_flight.is_draining = True
        await asyncio.sleep(self._notice_s)

    async def retire(self) -> None:
        """Leave new connections to those who accept on the same sockets."""
        await _stop_accepting((*self._runners, self._admin))
        if self._admin.server is not None:
            # Or a balancer would go on to ask a relproxy that is no more.
            self._admin.server.pre_shutdown()
        await self._in_flight.end(self._notice_s)

    async def drain(self, timeout_s: float) -> None:
        """Take no more connections, and let what is under way finish.

        Not left to aiohttp's own shutdown, which throws away the rest of an upload.
        """
        self._readiness.is_draining = True
        await _stop_accepting(self._runners)
        await self._in_flight.drain(timeout_s)


async def _stop_accepting(runners: Sequence[web.BaseRunner]) -> None:
    for runner in runners:
        for site in list(runner.sites):
            await site.stop()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
