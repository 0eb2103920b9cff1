"""What the store knows, and what this host's journals have for it on the way.

The journals are read before the store: an entry that is delivered between the two looks is in the
store by then. So what a client of this host has been told, every worker of the host answers with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from relproxy.model import (
    Burial,
    Change,
    ImageKey,
    ImageRecord,
    InstanceQuery,
    OwnerChange,
    Ownership,
)
from relproxy.store.base import RelationPage, RelationQuery, Store
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal_file import Row


class Overlay:
    """See `OwnerLookup`, `ImageLookup` and `Relations` in `relproxy.store.base`."""

    def __init__(self, journals: HostJournals, store: Store) -> None:
        self._journals = journals
        self._store = store

    async def owners(self, registry: str, image_ids: Collection[str]) -> Mapping[str, Ownership]:
        """Look in the journals, then in the store."""
        changes = _changes(await self._journals.pending_of_images(registry, image_ids))
        owners = await self._store.owners(registry, image_ids)
        return with_changes(owners, changes) if changes else owners

    async def images_of_instance(self, registry: str, query: InstanceQuery) -> Sequence[ImageKey]:
        """Look in the journals, then in the store; newest first."""
        changes = _changes(await self._journals.pending_of_instance(query.instance_id))
        pending = [r for r in _records(changes) if r.registry == registry and _is_asked(r, query)]
        found = await self._store.images_of_instance(registry, query)
        keys = dict.fromkeys(ImageKey(r.image_id, r.created_at) for r in reversed(pending))
        keys |= dict.fromkeys(found)
        gone = await self._gone(registry, keys, query.project)
        return [key for key in keys if key not in gone]

    async def images_of_project(
        self, registry: str, project: str, *, at_most: int
    ) -> Sequence[str] | None:
        """Look in the journals, then in the store."""
        rows = await self._journals.pending_of_project(project)
        found = await self._store.images_of_project(registry, project, at_most=at_most)
        if found is None:
            return None
        pending = (c for c in _changes(rows) if c.registry == registry)
        ids = list(dict.fromkeys([*found, *(c.image_id for c in pending)]))
        changes = _changes(await self._journals.pending_of_images(registry, ids)) if ids else []
        if changes:
            owners = with_changes(await self._store.owners(registry, ids), changes)
            changed = {change.image_id for change in changes}
            ids = [i for i in ids if i not in changed or _owner(owners, i) == project]
        return None if len(ids) > at_most else ids

    async def relations(
        self, query: RelationQuery, *, limit: int, cursor: str | None
    ) -> RelationPage:
        """Look in the journals, for the first page only, then in the store."""
        rows = await self._pending(query) if cursor is None else []
        page = await self._store.relations(query, limit=limit, cursor=cursor)
        known = {(r.registry, r.image_id, r.created_at) for r in page.records}
        pending = [
            record
            for record in _records(_changes(rows))
            if _matches(record, query)
            and (record.registry, record.image_id, record.created_at) not in known
        ]
        # Not cut to the limit: the cursor is the store's, and nothing may be skipped by it.
        return replace(page, records=(*reversed(pending), *page.records)) if pending else page

    async def _pending(self, query: RelationQuery) -> list[Row]:
        if query.image_id is not None:
            return await self._journals.pending_of_image(query.image_id)
        if query.instance_id is not None:
            return await self._journals.pending_of_instance(query.instance_id)
        if query.project is not None:
            return await self._journals.pending_of_project(query.project)
        return []

    async def _gone(
        self, registry: str, keys: Iterable[ImageKey], project: str | None
    ) -> set[ImageKey]:
        """Return those that a pending change has taken away: deleted, or another project's."""
        ids = {key.id for key in keys}
        changes = _changes(await self._journals.pending_of_images(registry, ids)) if ids else []
        changes = [change for change in changes if not isinstance(change, ImageRecord)]
        if not changes:
            return set()
        owners = with_changes(await self._store.owners(registry, ids), changes)
        changed = {change.image_id for change in changes}
        return {
            key
            for key in keys
            if key.id in changed
            and (key.id not in owners or project not in (None, _owner(owners, key.id)))
        }


def with_changes(
    owners: Mapping[str, Ownership], changes: Iterable[Change]
) -> Mapping[str, Ownership]:
    """Return who owns what once the store has taken `changes`, oldest first."""
    after = dict(owners)
    for change in changes:
        held = after.get(change.image_id)
        match change:
            case Burial():
                after.pop(change.image_id, None)
            case OwnerChange():
                if held is not None and held.created_at == change.created_at:
                    after[change.image_id] = Ownership(change.project, change.created_at)
            case ImageRecord():
                if held is None or held.created_at != change.created_at:
                    after[change.image_id] = Ownership(change.project, change.created_at)
    return after


def _changes(rows: Iterable[Row]) -> list[Change]:
    return [row.change for row in rows]


def _records(changes: Iterable[Change]) -> list[ImageRecord]:
    return [change for change in changes if isinstance(change, ImageRecord)]


def _owner(owners: Mapping[str, Ownership], image_id: str) -> str | None:
    held = owners.get(image_id)
    return held.project if held else None


def _is_asked(record: ImageRecord, query: InstanceQuery) -> bool:
    instance = record.capture.instance if record.capture else None
    return (
        instance is not None
        and instance.id == query.instance_id
        and query.installation in (None, instance.installation)
        and query.project in (None, record.project)
    )


def _matches(record: ImageRecord, query: RelationQuery) -> bool:
    instance = record.capture.instance if record.capture else None
    return (
        query.image_id in (None, record.image_id)
        and query.project in (None, record.project)
        and query.instance_id in (None, instance.id if instance else None)
        and query.installation in (None, instance.installation if instance else None)
    )
