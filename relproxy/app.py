"""The composition root: from a configuration to objects, and from objects to listeners.

The only place that picks implementations. A new store, identity provider or dialect is one line in
a table here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from relproxy import config, config_identity
from relproxy.accepting import Crowd
from relproxy.admin.gate import guarded
from relproxy.admin.health import Health, Probe, Watched
from relproxy.app_admin import admin_of
from relproxy.app_forwarding import way_of
from relproxy.app_identity import Logins, opened_identity, opened_logins
from relproxy.app_listeners import (
    Opening,
    address_of,
    all_accepting,
    listening_admin,
    patience_of,
    runners_of,
)
from relproxy.app_recording import Recorder, open_store, opened_recorder
from relproxy.app_seeing import looking, opened_accounts
from relproxy.app_upstreams import admission_of, health_checks_of, opened_upstreams
from relproxy.app_walks import Terms, walked_store
from relproxy.certificates import Proof, read_upstream_proofs
from relproxy.draining import Departure, InFlight
from relproxy.explanation import Explainer
from relproxy.filters.base import Dialect
from relproxy.filters.capture import MetadataHeaders
from relproxy.filters.glance_registry import GlanceRegistry
from relproxy.filters.glance_v1 import GlanceV1
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.filters.trust import TrustedSources
from relproxy.health_checks import HealthChecks
from relproxy.identity.base import IdentityProvider
from relproxy.metrics import Metrics
from relproxy.model import Tenancy
from relproxy.proxy import Parts, Proxy
from relproxy.recording import Recording
from relproxy.registry_walk import RegistryWalk
from relproxy.routing import route_table
from relproxy.server import Shared
from relproxy.settlement import (
    Asked,
    Settlement,
    SettlementParts,
)
from relproxy.sockets import Sockets, bind_all
from relproxy.store.base import Store
from relproxy.store.host_journals import HostJournals
from relproxy.store.overlay import Overlay
from relproxy.store.relayed_journal import RelayedJournal
from relproxy.stores import store_of, store_to_read
from relproxy.tasks import TaskSet
from relproxy.upstream import Upstream
from relproxy.walking import WalkParts

_LOG = logging.getLogger(__name__)

_DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (GlanceV2(), GlanceV1(), GlanceRegistry())
}


@dataclass(frozen=True, slots=True)
class Running:
    """A relproxy that serves: the addresses that were really bound, as (host, port)."""

    listeners: Mapping[str, tuple[str, int]]
    admin: tuple[str, int]
    departure: Departure


@asynccontextmanager
async def running(
    configuration: config.Configuration,
    sockets: Sockets | None = None,
    metrics: Metrics | None = None,
    *,
    workers: int = 1,
    crowd: Crowd | None = None,
) -> AsyncIterator[Running]:
    """Serve for as long as the context lasts; leave it to finish what runs and close everything.

    Accepts on `sockets`, if somebody has bound them already, and counts in `metrics`, if others do.
    `workers` is how many serve together; `crowd` is who is connected to this process already.

    Raises `ConfigurationError` if an address can't be bound, `StoreUnavailableError` if the store
    can't be opened.
    """
    async with AsyncExitStack() as opened:
        sockets = sockets or _bound(opened, configuration)
        opened.callback(sockets.close)
        metrics = metrics or Metrics()
        accounts = await opened.enter_async_context(opened_accounts(configuration, metrics))
        store = store_of(configuration.store)
        opened.push_async_callback(store.close)
        await open_store(store, configuration)
        recorder = await opened_recorder(opened, configuration, store, metrics)
        upstreams, asked = await _ways(opened, configuration, sockets.proofs, metrics)
        settlement = _settlement(configuration, recorder, asked, metrics)
        checks = health_checks_of(configuration, upstreams, workers=workers)
        watched = _background(opened, recorder, settlement, checks)
        if workers > 1:
            await opened.enter_async_context(looking(metrics))
        tasks = TaskSet()
        opened.push_async_callback(tasks.drain, configuration.timeouts.shutdown_s)
        identity = await opened.enter_async_context(
            opened_identity(configuration.identity, sockets.proofs, metrics)
        )
        proxy = Proxy(_parts(configuration, recorder, upstreams, identity=identity, tasks=tasks))
        health = _health(configuration, store, upstreams, watched)
        known = recorder.journals, recorder.overlay
        explainer = Explainer(configuration, asked, *known)
        admin = admin_of(configuration, health, explainer, known, metrics)
        admin = guarded(admin, configuration.admin, metrics)
        opening = Opening(configuration, sockets, metrics)
        timeouts = configuration.timeouts
        shared = Shared(in_flight := InFlight(metrics), accounts, patience_of(timeouts))
        operators = replace(shared, in_flight=InFlight(metrics))
        admin_runner = await listening_admin(opened, opening, admin, operators)
        runners = await runners_of(opened, opening, proxy, shared)
        departure = Departure(health, in_flight, runners, admin_runner, notice_s=timeouts.notice_s)
        opened.push_async_callback(departure.drain, timeouts.shutdown_s)
        listeners = await all_accepting(opening, runners, crowd or Crowd(metrics))
        admin_address = address_of(admin_runner)
        _LOG.info("serving", extra={"listeners": listeners, "admin": admin_address})
        yield Running(listeners, admin_address, departure)


def _bound(opened: AsyncExitStack, configuration: config.Configuration) -> Sockets:
    bound = bind_all(configuration)
    opened.callback(bound.remove_files)
    return bound.sockets


def _background(
    opened: AsyncExitStack,
    recorder: Recorder,
    settlement: Settlement,
    checks: Mapping[str, HealthChecks],
) -> Mapping[str, Watched]:
    """Start what runs beside the requests, and say how each can be seen to be alive."""
    background = TaskSet()
    opened.push_async_callback(recorder.relay.flush)
    opened.push_async_callback(background.cancel)
    return {
        "relay": background.start(recorder.relay.run(), name="relay"),
        "settlement": background.start(settlement.run(), name="settlement"),
        "adoption": background.start(recorder.adoption.run(), name="adoption"),
        **{
            f"health checks of {registry}": background.start(each.run(), name=f"checks {registry}")
            for registry, each in checks.items()
        },
    }


@asynccontextmanager
async def explainer_beside(configuration: config.Configuration) -> AsyncIterator[Explainer]:
    """Put together what explains, for a command: beside a running relproxy, or without one."""
    async with AsyncExitStack() as opened:
        store = await opened.enter_async_context(store_to_read(configuration.store))
        journals = HostJournals(configuration.journal.directory)
        opened.push_async_callback(journals.close)
        proofs = await asyncio.to_thread(read_upstream_proofs, configuration)
        _, asked = await _ways(opened, configuration, proofs, Metrics())
        yield Explainer(configuration, asked, journals, Overlay(journals, store))


@asynccontextmanager
async def walking_beside(
    configuration: config.Configuration, terms: Terms
) -> AsyncIterator[WalkParts]:
    """Put together what walks a registry, for a command: beside a running relproxy, or without.

    Raises `StoreRefusedError` if the store is another host's, or names registries otherwise.
    """
    registry = terms.registry
    async with AsyncExitStack() as opened:
        store = await opened.enter_async_context(walked_store(configuration, writes=terms.writes))
        journals = HostJournals(configuration.journal.directory)
        opened.push_async_callback(journals.close)
        proofs = await asyncio.to_thread(read_upstream_proofs, configuration)
        _, ways = await _ways(opened, configuration, proofs, Metrics())
        asked = ways[registry.name]
        walk = RegistryWalk(
            asked,
            max_bytes=configuration.limits.max_page_bytes,
            page_size=terms.page_size,
            per_s=terms.per_s,
        )
        yield WalkParts(registry, walk, asked.dialect, store, journals, terms.installation)


def _settlement(
    configuration: config.Configuration,
    recorder: Recorder,
    asked: Mapping[str, Asked],
    metrics: Metrics,
) -> Settlement:
    return Settlement(
        SettlementParts(
            recorder.journal,
            recorder.relay,
            asked,
            recorder.overlay,
            configuration.limits,
            metrics,
            recorder.journals,
        ),
        abandon_after_s=configuration.journal.abandon_after_s,
    )


async def _ways(
    opened: AsyncExitStack,
    configuration: config.Configuration,
    proofs: Mapping[str, Proof],
    metrics: Metrics,
) -> tuple[Mapping[str, Upstream], Mapping[str, Asked]]:
    """Open the way to each registry, and what relproxy itself asks it with."""
    upstreams = await opened.enter_async_context(opened_upstreams(configuration, proofs, metrics))
    logins = await opened.enter_async_context(opened_logins(configuration, proofs))
    return upstreams, _asked(configuration, upstreams, logins)


def _asked(
    configuration: config.Configuration, upstreams: Mapping[str, Upstream], logins: Logins
) -> Mapping[str, Asked]:
    """Say how relproxy itself asks each registry."""
    return {
        registry.name: Asked(
            upstreams[registry.name],
            _DIALECTS[registry.dialect],
            logins[registry.name],
            _shows_every_image(registry),
        )
        for registry in configuration.registries
    }


def _shows_every_image(registry: config.Registry) -> bool:
    """Tell whether the registry takes relproxy for somebody from whom it hides nothing."""
    if registry.tenancy is Tenancy.RELPROXY or registry.upstream_identity == "headers":
        return True
    # What it shows to those without a token, if anything, are the public ones.
    return registry.credentials is not None


def _trusted(settings: config_identity.TrustedSources) -> TrustedSources:
    return TrustedSources(
        settings.networks,
        frozenset(settings.roles),
        frozenset(settings.service_roles),
        frozenset(settings.certificates),
    )


def _health(
    configuration: config.Configuration,
    store: Store,
    upstreams: Mapping[str, Upstream],
    watched: Mapping[str, Watched],
) -> Health:
    return Health(
        store,
        {r.name: _probe(r, upstreams[r.name]) for r in configuration.registries},
        watched,
        probe_s=configuration.timeouts.probe_s,
        shadow=configuration.shadow_routes(),
    )


def _probe(registry: config.Registry, upstream: Upstream) -> Probe:
    dialect = _DIALECTS[registry.dialect]
    must_refuse = registry.tenancy is Tenancy.REGISTRY and not registry.allows_anonymous
    target = dialect.guarded_target if must_refuse else dialect.probe_target
    return Probe(upstream, target, must_refuse)


def _parts(
    configuration: config.Configuration,
    recorder: Recorder,
    upstreams: Mapping[str, Upstream],
    *,
    identity: IdentityProvider,
    tasks: TaskSet,
) -> Parts:
    recording = Recording(
        upstreams,
        RelayedJournal(recorder.journal, recorder.relay),
        recorder.overlay,
        configuration.limits,
        recorder.metrics,
        goes_on_unrecorded=configuration.journal.when_unwritable == "forward",
    )
    names = configuration.metadata_headers
    return Parts(
        way=way_of(configuration),
        routes=route_table(configuration, _DIALECTS),
        identity=identity,
        trusted_sources=_trusted(configuration.trusted_sources),
        metadata_headers=MetadataHeaders(names.installation, names.instance),
        upstreams=upstreams,
        recording=recording,
        owners=recorder.overlay,
        images=recorder.overlay,
        limits=configuration.limits,
        admission=admission_of(configuration, recorder.metrics),
        metrics=recorder.metrics,
        tasks=tasks,
        shadow_s=configuration.timeouts.shadow_s,
    )
