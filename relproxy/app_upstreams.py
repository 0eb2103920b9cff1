"""The composition root's part about registries: the way to each; what is told of endpoints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from relproxy.certificates import Proof
from relproxy.concurrency import Admission
from relproxy.config import Configuration, Registry
from relproxy.endpoints import Endpoint, Endpoints, Reason
from relproxy.health_checks import HealthChecks
from relproxy.metrics import Metrics
from relproxy.upstream import Upstream, open_session
from relproxy.upstream_tls import Tls, tls_of

_LOG = logging.getLogger(__name__)


class EndpointWatch:
    """Logs and counts what becomes of one registry's endpoints."""

    def __init__(self, registry: str, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics

    def failed(self, endpoint: Endpoint, reason: Reason) -> None:
        """Count a failure."""
        self._metrics.endpoint_failures.labels(self._registry, endpoint.url, reason).inc()

    def distrusted(self, endpoint: Endpoint, cause: str, news: str | None) -> None:
        """Count that TLS failed, and say why, once for as long as it goes on."""
        self._metrics.endpoint_tls_failures.labels(self._registry, endpoint.url, cause).inc()
        if news is not None:
            fields = self._fields(endpoint) | {"reason": cause, "detail": news}
            _LOG.error("endpoint fails TLS", extra=fields)

    def ejected(self, endpoint: Endpoint, reason: Reason, out_s: float | None) -> None:
        """Say that an endpoint gets no requests for a while."""
        self._metrics.endpoint_ejections.labels(self._registry, endpoint.url, reason).inc()
        self._set_up(endpoint, 0)
        fields = self._fields(endpoint) | {"reason": reason, "out_s": out_s}
        _LOG.warning("endpoint ejected", extra=fields)

    def kept(self, endpoint: Endpoint, reason: Reason) -> None:
        """Say that the last endpoint fails."""
        self._set_up(endpoint, 0)
        _LOG.error("last endpoint fails", extra=self._fields(endpoint) | {"reason": reason})

    def returned(self, endpoint: Endpoint) -> None:
        """Say that an endpoint is well again."""
        self._set_up(endpoint, 1)
        _LOG.info("endpoint is back", extra=self._fields(endpoint))

    def _set_up(self, endpoint: Endpoint, up: int) -> None:
        self._metrics.endpoint_up.labels(self._registry, endpoint.url).set(up)

    def _fields(self, endpoint: Endpoint) -> dict[str, object]:
        return {"registry": self._registry, "endpoint": endpoint.url, "failures": endpoint.failures}


@asynccontextmanager
async def opened_upstreams(
    configuration: Configuration, proofs: Mapping[str, Proof], metrics: Metrics
) -> AsyncIterator[Mapping[str, Upstream]]:
    """Open the way to each registry, by its name; all share one client session.

    `proofs` are those of the configuration.
    """
    tls = await asyncio.to_thread(_tls_of, configuration, proofs)
    async with open_session(configuration.timeouts, configuration.forwarding, metrics) as session:
        with _known(configuration, metrics):
            yield {
                registry.name: Upstream(
                    registry.name,
                    _endpoints_of(registry, tls.get(registry.name), metrics),
                    session,
                    metrics,
                    configuration.timeouts,
                )
                for registry in configuration.registries
            }


@contextmanager
def _known(configuration: Configuration, metrics: Metrics) -> Iterator[None]:
    """Say of each endpoint whether it is up, until no configuration has it any more."""
    endpoints = [(each.name, url) for each in configuration.registries for url in each.endpoints]
    for endpoint in endpoints:
        metrics.know_endpoint(*endpoint)
    try:
        yield
    finally:
        for endpoint in endpoints:
            metrics.forget_endpoint(*endpoint)


def _tls_of(configuration: Configuration, proofs: Mapping[str, Proof]) -> Mapping[str, Tls]:
    return {
        registry.name: tls_of(registry.tls, proofs[f"registries[{index}].tls"])
        for index, registry in enumerate(configuration.registries)
        if registry.has_tls
    }


def _endpoints_of(registry: Registry, tls: Tls | None, metrics: Metrics) -> Endpoints:
    watch = EndpointWatch(registry.name, metrics)
    endpoints = Endpoints(registry.endpoints, registry.ejection, watch, registry.health_check)
    endpoints.host, endpoints.tls = registry.host, tls
    return endpoints


def health_checks_of(
    configuration: Configuration, upstreams: Mapping[str, Upstream], *, workers: int
) -> Mapping[str, HealthChecks]:
    """Return the health checks of each registry that has a choice of endpoints."""
    return {
        registry.name: HealthChecks(
            upstreams[registry.name],
            registry.health_check,
            timeout_s=configuration.timeouts.probe_s,
            workers=workers,
        )
        for registry in configuration.registries
        if len(registry.endpoints) > 1 and registry.health_check.path is not None
    }


def admission_of(configuration: Configuration, metrics: Metrics) -> Admission:
    """Return what counts the requests under way."""
    registries = {registry.name: registry.concurrency for registry in configuration.registries}
    return Admission(configuration.concurrency, registries, metrics)
