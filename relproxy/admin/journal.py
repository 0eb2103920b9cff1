"""What waits for an answer or for a person in every worker's journal of this host, as JSON."""

from __future__ import annotations

from aiohttp import web

from relproxy.errors import RelproxyError
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal_row import Row


class JournalView:
    """Answers /v1/journal."""

    def __init__(self, journals: HostJournals) -> None:
        self._journals = journals

    async def waiting(self, _: web.Request) -> web.Response:
        """Return the entries in doubt, and those that the store refuses; oldest first."""
        try:
            doubtful, parked = await self._journals.in_doubt(), await self._journals.parked()
        except RelproxyError as refusal:
            return web.json_response({"message": refusal.sentence}, status=refusal.status)
        said = {"in_doubt": doubtful, "parked": parked}
        return web.json_response({name: [shown(r) for r in rows] for name, rows in said.items()})


def shown(row: Row) -> dict[str, object]:
    """Return an entry as operators are shown it."""
    instance = row.capture.instance if row.capture else None
    return {
        "entry": row.id,
        "kind": row.kind.value,
        "state": "parked" if row.is_parked else row.state.value,
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
