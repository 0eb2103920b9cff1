"""The composition root's part about the admin listener: who answers on which path."""

from __future__ import annotations

from aiohttp import web

from relproxy.admin.explain import ExplainView
from relproxy.admin.health import Health
from relproxy.admin.journal import JournalView
from relproxy.admin.listener import Views, admin_application
from relproxy.admin.overview import OverviewView
from relproxy.admin.relations import RelationsView
from relproxy.config import Configuration
from relproxy.explanation import Explainer
from relproxy.metrics import Metrics
from relproxy.store.host_journals import HostJournals
from relproxy.store.overlay import Overlay


def admin_of(
    configuration: Configuration,
    health: Health,
    explainer: Explainer,
    known: tuple[HostJournals, Overlay],
    metrics: Metrics,
) -> web.Application:
    """Return what serves operators; `known` is what this host's journals and the store say."""
    journals, overlay = known
    views = Views(
        health,
        RelationsView(overlay),
        JournalView(journals),
        ExplainView(explainer),
        OverviewView(configuration, journals, metrics),
    )
    return admin_application(views, metrics)
