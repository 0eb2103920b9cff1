"""Is relproxy alive, and is it ready? Each part says so itself, with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from relproxy.admin.gate import sees_all
from relproxy.errors import RelproxyError
from relproxy.messages import Headers
from relproxy.store.base import Store
from relproxy.upstream import Upstream

_OPEN = (
    "The registry shows images without credentials, so everyone may do everything with them by "
    "id: its tenancy is relproxy, or allows_anonymous is meant."
)


@dataclass(frozen=True, slots=True)
class Probe:
    """How to ask one registry. `must_refuse` says that it has to ask for credentials."""

    upstream: Upstream
    target: str
    must_refuse: bool


class Watched(Protocol):
    """Work in the background that never ends by itself, such as a task."""

    def done(self) -> bool:
        """Tell whether it has ended."""
        ...


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One part's own word."""

    is_ready: bool
    reason: str


class Health:
    """Answers /healthz and /readyz."""

    def __init__(
        self,
        store: Store,
        probes: Mapping[str, Probe],
        watched: Mapping[str, Watched],
        *,
        probe_s: float,
        shadow: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._probes = probes
        self._watched = watched
        self._probe_s = probe_s
        self._shadow = list(shadow)
        self.is_draining = False

    async def healthz(self, _: web.Request) -> web.Response:
        """Say that the process is alive."""
        return web.json_response({"status": "alive"})

    async def readyz(self, request: web.Request) -> web.Response:
        """Say which parts are ready; 200 if traffic should come here, else 503.

        The work in the background has to go on, and at least one registry has to be there: a
        relproxy in front of several must not leave the path of all because one is away. A store
        that is away is shown and turns nothing red, because it is away for every relproxy alike,
        and creates go on without it. Routes in shadow are named. `?registry=NAME` asks about
        one registry alone. Who may not see everything is told the status, and no more.
        """
        asked = request.query.get("registry")
        if asked is not None and asked not in self._probes:
            return web.json_response({"message": f"no registry is named '{asked}'"}, status=404)
        names = [asked] if asked is not None else list(self._probes)
        store, *found = await asyncio.gather(
            self._store_health(), *(self._registry_health(name) for name in names)
        )
        has_registry = any(health.is_ready for health in found)
        background = {name: _background_health(work) for name, work in self._watched.items()}
        goes_on = all(health.is_ready for health in background.values())
        is_ready = has_registry and goes_on and not self.is_draining
        status = "draining" if self.is_draining else "ready" if is_ready else "not ready"
        body = {
            "status": status,
            "store": _shown(store),
            "background": {name: _shown(health) for name, health in background.items()},
            # Nothing is protected there.
            "shadow": self._shadow,
            "registries": {
                name: _shown(health) | {"endpoints": self._endpoints(name)}
                for name, health in zip(names, found, strict=True)
            },
        }
        shown = body if sees_all(request) else {"status": body["status"]}
        return web.json_response(shown, status=200 if is_ready else 503)

    def _endpoints(self, registry: str) -> dict[str, str]:
        """Return how each endpoint of a registry is, as this worker knows it."""
        known = self._probes[registry].upstream.endpoints.all
        return {endpoint.url: endpoint.state for endpoint in known}

    async def _store_health(self) -> PartHealth:
        try:
            async with asyncio.timeout(self._probe_s):
                await self._store.check()
        except RelproxyError as failure:
            return PartHealth(is_ready=False, reason=failure.sentence)
        except TimeoutError:
            return PartHealth(is_ready=False, reason="The store did not answer in time.")
        return PartHealth(is_ready=True, reason="The store answers.")

    async def _registry_health(self, name: str) -> PartHealth:
        probe = self._probes[name]
        try:
            async with asyncio.timeout(self._probe_s):
                response = await probe.upstream.send("GET", probe.target, Headers())
                await response.aclose()
        except RelproxyError as failure:
            return PartHealth(is_ready=False, reason=failure.sentence)
        except TimeoutError:
            return PartHealth(is_ready=False, reason="The registry did not answer in time.")
        status = response.head.status
        if probe.must_refuse and status == 200:
            return PartHealth(is_ready=False, reason=_OPEN)
        # Any answer below 500 shows that it is there.
        return PartHealth(is_ready=status < 500, reason=f"The registry answers {status}.")


def _background_health(work: Watched) -> PartHealth:
    if work.done():
        return PartHealth(is_ready=False, reason="It has ended; the log says why.")
    return PartHealth(is_ready=True, reason="It is at work.")


def _shown(health: PartHealth) -> dict[str, object]:
    return {"ready": health.is_ready, "reason": health.reason}
