"""The admin listener's paths."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from relproxy.admin.explain import ExplainView
from relproxy.admin.health import Health
from relproxy.admin.journal import JournalView
from relproxy.admin.relations import RelationsView
from relproxy.metrics import Metrics


def admin_application(
    health: Health,
    relations: RelationsView,
    journal: JournalView,
    explain: ExplainView,
    metrics: Metrics,
) -> web.Application:
    """Return the application that serves operators."""

    async def show_metrics(_: web.Request) -> web.Response:
        body = generate_latest(metrics.shown())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/healthz", health.healthz)
    application.router.add_get("/readyz", health.readyz)
    application.router.add_get("/metrics", show_metrics)
    application.router.add_get("/v1/relations", relations.relations)
    application.router.add_get("/v1/journal", journal.waiting)
    application.router.add_get("/v1/explain", explain.explain)
    return application
