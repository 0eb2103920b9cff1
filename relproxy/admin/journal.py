"""Entries in doubt of every worker of this host, as JSON."""

from __future__ import annotations

from aiohttp import web

from relproxy.store.host_journals import HostJournals
from relproxy.store.journal_file import Row


class JournalView:
    """Answers /v1/journal."""

    def __init__(self, journals: HostJournals) -> None:
        self._journals = journals

    async def in_doubt(self, _: web.Request) -> web.Response:
        """Return the entries in doubt, oldest first."""
        rows = await self._journals.in_doubt()
        return web.json_response({"in_doubt": [shown(row) for row in rows]})


def shown(row: Row) -> dict[str, object]:
    """Return an entry as operators are shown it."""
    instance = row.capture.instance if row.capture else None
    return {
        "entry": row.id,
        "kind": row.kind.value,
        "state": row.state.value,
        "registry": row.registry,
        "image_id": row.image_id,
        "is_assigned": row.is_assigned,
        "image_name": row.image_name,
        "project": row.project,
        "nova_installation_uuid": instance.installation if instance else None,
        "instance_id": instance.id if instance else None,
        "begun_at": row.begun_at.isoformat(),
        "reason": row.reason,
    }
