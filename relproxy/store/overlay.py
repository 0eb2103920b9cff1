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
from relproxy.store.base import EntryKind, RelationPage, RelationQuery, Store
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal_file import Row
from relproxy.store.place import as_cursor, from_cursor

# Images that were made under one id, one after the other or in several registries.
_OF_ONE_ID = 1000


class Overlay:
    """See `OwnerLookup`, `ImageLookup` and `Relations` in `relproxy.store.base`."""

    def __init__(self, journals: HostJournals, store: Store) -> None:
        self._journals = journals
        self._store = store

    async def owners(self, registry: str, image_ids: Collection[str]) -> Mapping[str, Ownership]:
        """Look in the journals, then in the store."""
        changes = await self._pending_of(registry, image_ids)
        owners = await self._store.owners(registry, image_ids)
        return with_changes(owners, changes) if changes else owners

    async def images_of_instance(self, registry: str, query: InstanceQuery) -> Sequence[ImageKey]:
        """Look in the journals, then in the store; newest first."""
        rows = await self._journals.pending_of_instance(query.instance_id)
        gained = await self._gained(query.project)
        found = await self._store.images_of_instance(registry, query)
        if any(row.registry == registry for row in gained):
            # Whoever they belonged to.
            ids = {row.image_id for row in gained} | {key.id for key in found}
            of_all = await self._store.images_of_instance(registry, replace(query, project=None))
            found = [key for key in of_all if key.id in ids]
        # Of any project: a change may have followed, and what isn't the asked one's goes below.
        records = [r for r in _records(rows) if r.registry == registry and _is_of(r, query)]
        keys = dict.fromkeys(ImageKey(r.image_id, r.created_at) for r in reversed(records))
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
        pending = (row.change.image_id for row in rows if row.registry == registry)
        ids = list(dict.fromkeys([*found, *pending]))
        changes = await self._pending_of(registry, ids)
        if changes:
            owners = with_changes(await self._store.owners(registry, ids), changes)
            changed = {change.image_id for change in changes}
            ids = [i for i in ids if i not in changed or _owner(owners, i) == project]
        return None if len(ids) > at_most else ids

    async def relations(
        self, query: RelationQuery, *, limit: int, cursor: str | None
    ) -> RelationPage:
        """Look in the journals, then in the store; each record stands on one page.

        A page may hold fewer than `limit` before the last: those that a pending change of the
        owner has taken out of the question.
        """
        before = None if cursor is None else from_cursor(cursor)
        pending = await self._pending_records(query)
        found = await self._store.records(query, limit=limit + 1, before=before)
        place = self._store.place
        page = {place(record): record for record in found[:limit]}
        for record in pending:
            at = place(record)
            if before is None or at < before:
                page.setdefault(at, record)
        # What is further back than a full page is for a later one, the store's and the others.
        places = sorted(page, reverse=True)
        is_last = len(found) <= limit and len(places) <= limit
        shown = await self._changed([page[at] for at in places[:limit]])
        return RelationPage(
            tuple(record for record in shown if _matches(record, query)),
            None if is_last else as_cursor(places[limit - 1]),
        )

    async def _pending_records(self, query: RelationQuery) -> list[ImageRecord]:
        """Return records that the store may lack, or have under another project."""
        if query.image_id is not None:
            rows = await self._journals.pending_of_images([query.image_id])
        elif query.instance_id is not None:
            rows = await self._journals.pending_of_instance(query.instance_id)
        elif query.project is not None:
            rows = await self._journals.pending_of_project(query.project)
        else:
            return []
        records = _records(rows)
        gained = await self._gained(query.project)
        if gained:
            ids = {row.change.image_id for row in gained}
            records += _records(await self._journals.pending_of_images(ids))
            for image_id in ids:
                asked = RelationQuery(image_id=image_id)
                records += await self._store.records(asked, limit=_OF_ONE_ID, before=None)
        return [r for r in records if _matches(r, replace(query, project=None))]

    async def _changed(self, records: Sequence[ImageRecord]) -> list[ImageRecord]:
        """Return records as they are once the store has taken what is pending."""
        changes: dict[str, list[Change]] = {}
        if records:
            for row in await self._journals.pending_of_images({r.image_id for r in records}):
                changes.setdefault(row.change.image_id, []).append(row.change)
        return [_after(record, changes.get(record.image_id, ())) for record in records]

    async def _gained(self, project: str | None) -> list[Row]:
        """Return the pending changes that make a project the owner."""
        if project is None:
            return []
        rows = await self._journals.pending_of_project(project)
        return [row for row in rows if row.kind is EntryKind.OWNER]

    async def _gone(
        self, registry: str, keys: Iterable[ImageKey], project: str | None
    ) -> set[ImageKey]:
        """Return those that, with what is pending, are deleted or another project's."""
        ids = {key.id for key in keys}
        changes = await self._pending_of(registry, ids)
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

    async def _pending_of(self, registry: str, image_ids: Collection[str]) -> list[Change]:
        rows = await self._journals.pending_of_images(image_ids) if image_ids else []
        return [row.change for row in rows if row.registry == registry]


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


def _after(record: ImageRecord, changes: Iterable[Change]) -> ImageRecord:
    """Return a record as it is once the store has taken `changes`, oldest first."""
    for change in changes:
        if change.registry != record.registry:
            continue
        match change:
            case Burial():
                if record.deleted_at is None and record.recorded_at <= change.at:
                    record = replace(record, deleted_at=change.at)
            case OwnerChange():
                if record.created_at == change.created_at:
                    record = replace(record, project=change.project)
    return record


def _records(rows: Iterable[Row]) -> list[ImageRecord]:
    return [change for row in rows if isinstance(change := row.change, ImageRecord)]


def _owner(owners: Mapping[str, Ownership], image_id: str) -> str | None:
    held = owners.get(image_id)
    return held.project if held else None


def _is_of(record: ImageRecord, query: InstanceQuery) -> bool:
    instance = record.capture.instance if record.capture else None
    return (
        instance is not None
        and instance.id == query.instance_id
        and query.installation in (None, instance.installation)
    )


def _matches(record: ImageRecord, query: RelationQuery) -> bool:
    instance = record.capture.instance if record.capture else None
    return (
        query.image_id in (None, record.image_id)
        and query.project in (None, record.project)
        and query.instance_id in (None, instance.id if instance else None)
        and query.installation in (None, instance.installation if instance else None)
    )
