"""The admin listener's paths."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from relproxy.admin.explain import ExplainView
from relproxy.admin.health import Health
from relproxy.admin.journal import JournalView
from relproxy.admin.overview import OverviewView
from relproxy.admin.page import PageView
from relproxy.admin.rebinding import refuse_other_names
from relproxy.admin.relations import RelationsView
from relproxy.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Views:
    """Who answers operators."""

    health: Health
    relations: RelationsView
    journal: JournalView
    explain: ExplainView
    overview: OverviewView


def admin_application(views: Views, metrics: Metrics) -> web.Application:
    """Return the application that serves operators."""

    async def show_metrics(_: web.Request) -> web.Response:
        body = generate_latest(metrics.shown())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application(middlewares=[refuse_other_names])
    application.router.add_get("/", PageView().page)
    application.router.add_get("/healthz", views.health.healthz)
    application.router.add_get("/readyz", views.health.readyz)
    application.router.add_get("/metrics", show_metrics)
    application.router.add_get("/v1/relations", views.relations.relations)
    application.router.add_get("/v1/journal", views.journal.waiting)
    application.router.add_get("/v1/explain", views.explain.explain)
    application.router.add_get("/v1/overview", views.overview.overview)
    return application
