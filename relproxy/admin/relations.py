"""Which image relates to which instance and project: the store, as JSON."""

from __future__ import annotations

from aiohttp import web

from relproxy.admin.gate import holder_of
from relproxy.admin.parameters import given
from relproxy.admin.scope import narrowed, shows
from relproxy.errors import BadRequestError, RelproxyError
from relproxy.filters.capture import canonical_installation, checked_instance_id
from relproxy.model import ImageRecord
from relproxy.store.base import RelationPage, RelationQuery, Relations

_PARAMETERS = frozenset(
    {"instance_id", "nova_installation_uuid", "image_id", "project", "limit", "cursor"}
)
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 1000


class RelationsView:
    """Answers /v1/relations."""

    def __init__(self, store: Relations) -> None:
        self._store = store

    async def relations(self, request: web.Request) -> web.Response:
        """Return one page of records, newest first, of what the asker's token is for."""
        holder = holder_of(request)
        try:
            asked = given(request, _PARAMETERS)
            limit, query = _limit(asked.get("limit")), narrowed(_query(asked), holder)
            page = RelationPage((), None)
            if query is not None:
                cursor = asked.get("cursor")
                page = await self._store.relations(query, limit=limit, cursor=cursor)
        except RelproxyError as refusal:
            return web.json_response({"message": refusal.sentence}, status=refusal.status)
        relations = [shown(record) for record in page.records if shows(holder, record)]
        return web.json_response({"relations": relations, "next_cursor": page.next_cursor})


def _query(asked: dict[str, str]) -> RelationQuery:
    instance_id = asked.get("instance_id")
    installation = asked.get("nova_installation_uuid")
    image_id = asked.get("image_id")
    if not {"instance_id", "image_id", "project"} & set(asked):
        raise BadRequestError("Ask by 'instance_id', 'image_id' or 'project'.")
    return RelationQuery(
        instance_id=instance_id and checked_instance_id(instance_id, "instance_id"),
        installation=installation
        and canonical_installation(installation, "nova_installation_uuid"),
        image_id=image_id and image_id.lower(),
        project=asked.get("project"),
    )


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_LIMIT):
        raise BadRequestError(f"'limit' is not a number from 1 to {_MAX_LIMIT}.")
    return int(text)


def shown(record: ImageRecord) -> dict[str, object]:
    """Return a record as operators are shown it; its instance only where that counts."""
    capture = record.counted
    return {
        "registry": record.registry,
        "image_id": record.image_id,
        "project": record.project,
        "nova_installation_uuid": capture.instance.installation if capture else None,
        "instance_id": capture.instance.id if capture else None,
        "grade": record.counted_grade and record.counted_grade.value,
        "created_at": record.created_at,
        "recorded_at": record.recorded_at.isoformat(),
        "deleted_at": record.deleted_at.isoformat() if record.deleted_at else None,
    }
