"""What is configured and what was counted, as one JSON document: what the operator's page polls.

Counters are the sums over all workers, as /metrics shows them; the page makes rates of two polls.
Nothing is asked of a registry or the store: /readyz does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from aiohttp import web

from relproxy import __version__
from relproxy.config import Configuration, Registry, Route
from relproxy.errors import RelproxyError
from relproxy.metrics import Metrics
from relproxy.store.host_journals import HostJournals

_Sample = tuple[str, Mapping[str, str], float]


class OverviewView:
    """Answers /v1/overview."""

    def __init__(
        self, configuration: Configuration, journals: HostJournals, metrics: Metrics
    ) -> None:
        self._configuration = configuration
        self._journals = journals
        self._metrics = metrics

    async def overview(self, _: web.Request) -> web.Response:
        """Return the document; what can't be read now is named, and the rest is there."""
        counted = tuple(self._metrics.samples())
        configured = self._configuration
        body = {
            "version": __version__,
            "at": datetime.now(UTC).isoformat(),
            "requests_in_progress": _sum(counted, "relproxy_requests_in_progress"),
            "store": {"driver": configured.store.driver},
            "journal": {
                **await self._depth(),
                "lag_s": _sum(counted, "relproxy_relay_lag_seconds"),
            },
            "registries": [_registry(each, counted) for each in configured.registries],
            "routes": [
                *(_route(each, counted) for each in configured.routes),
                # What no route takes is counted under this name.
                {"name": "none", "registry": None, **_traffic("none", counted)},
            ],
            "installations": [
                {
                    "name": each.name,
                    "uuid": each.uuid,
                    "routes": [r.name for r in configured.routes if r.installation == each.name],
                }
                for each in configured.installations
            ],
        }
        return web.json_response(body)

    async def _depth(self) -> Mapping[str, object]:
        try:
            return await self._journals.depth()
        except RelproxyError as failure:
            return {"reason": failure.sentence}


def _registry(registry: Registry, counted: tuple[_Sample, ...]) -> Mapping[str, object]:
    return {
        "name": registry.name,
        "dialect": registry.dialect,
        "tenancy": registry.tenancy.value,
        "endpoints": [
            {"url": url, "metrics": _of_endpoint(registry.name, url, counted)}
            for url in registry.endpoints
        ],
        "errors": _by(counted, "relproxy_upstream_errors_total", "reason", registry=registry.name),
        "records": _by(counted, "relproxy_records_total", "result", registry=registry.name),
    }


def _of_endpoint(registry: str, url: str, counted: tuple[_Sample, ...]) -> Mapping[str, float]:
    """Return whatever is measured of one endpoint, by the metric's name."""
    return {
        name: value
        for name, labels, value in counted
        if labels == {"registry": registry, "endpoint": url}
    }


def _route(route: Route, counted: tuple[_Sample, ...]) -> Mapping[str, object]:
    conditions = {
        "host": route.host,
        "path_prefix": route.path_prefix,
        "listener": route.listener,
        "network": None if route.network is None else str(route.network),
    }
    return {
        "name": route.name,
        "registry": route.registry,
        "installation": route.installation,
        "mode": route.mode,
        "conditions": {name: value for name, value in conditions.items() if value is not None},
        **_traffic(route.name, counted),
    }


def _traffic(route: str, counted: tuple[_Sample, ...]) -> Mapping[str, object]:
    return {
        "requests": _by(counted, "relproxy_requests_total", "status", route=route),
        "treatments": _by(counted, "relproxy_requests_total", "treatment", route=route),
        "seconds": _sum(counted, "relproxy_request_seconds_sum", route=route),
        "images_hidden": _sum(counted, "relproxy_images_hidden_total", route=route),
        "shadow": _by(counted, "relproxy_shadow_total", "verdict", route=route),
    }


def _by(
    counted: tuple[_Sample, ...], metric: str, label: str, **labels: str
) -> Mapping[str, float]:
    """Return the sums of a metric by the values of one label."""
    sums: dict[str, float] = {}
    for found, value in _samples(counted, metric, labels):
        sums[found[label]] = sums.get(found[label], 0) + value
    return sums


def _sum(counted: tuple[_Sample, ...], metric: str, **labels: str) -> float:
    return sum(value for _, value in _samples(counted, metric, labels))


def _samples(
    counted: tuple[_Sample, ...], metric: str, labels: Mapping[str, str]
) -> Iterator[tuple[Mapping[str, str], float]]:
    """Yield the samples of a metric that have these labels, and maybe others."""
    for name, found, value in counted:
        if name == metric and labels.items() <= found.items():
            yield found, value
