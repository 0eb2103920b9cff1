"""Asking the endpoints of one registry how they are, whether requests come or not.

All endpoints are asked at a time, and again after an interval. It is as many times longer as there
are workers, which each keep an eye on all endpoints: together they ask no more than one would.
Only while what an endpoint says may be news is it asked again soon.
"""

from __future__ import annotations

import asyncio
import random

from relproxy.config_endpoints import HealthCheck
from relproxy.endpoints import Endpoint, spread
from relproxy.upstream import Upstream


class HealthChecks:
    """The health checks of one registry."""

    def __init__(
        self, upstream: Upstream, settings: HealthCheck, *, timeout_s: float, workers: int
    ) -> None:
        self._upstream = upstream
        self._interval_s = settings.interval_s
        self._path = settings.path
        self._timeout_s = timeout_s
        self._workers = workers

    async def run(self) -> None:
        """Check at intervals until cancelled."""
        wait_s = self._interval_s * random.random()  # noqa: S311 - no secret
        while True:
            await asyncio.sleep(wait_s)
            is_news = await self.check()
            wait_s = spread(self._interval_s * (1 if is_news else self._workers))

    async def check(self) -> bool:
        """Check every endpoint once; return whether that has to be repeated soon."""
        endpoints = self._upstream.endpoints
        return any(await asyncio.gather(*map(self._check, endpoints.all)))

    async def _check(self, endpoint: Endpoint) -> bool:
        if self._path is None:
            return False
        has_passed = await self._upstream.passes(endpoint, self._path, timeout_s=self._timeout_s)
        return self._upstream.endpoints.checked(endpoint, has_passed=has_passed)
