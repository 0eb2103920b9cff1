"""What the store knows, and what this host's journals have for it on the way.

The journals are read before the store: an entry that is delivered between the two looks is in the
store by then. So what a client of this host has been told, every worker of the host answers with.

What the store keeps of an image whose record is still in a journal counts too: another host may
have told it first that the image has another owner, or is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from relproxy.errors import StoreUnavailableError
from relproxy.model import (
    Burial,
    Change,
    Grade,
    ImageKey,
    ImageRecord,
    InstanceQuery,
    OwnerChange,
    Ownership,
)
from relproxy.store.base import RelationPage, RelationQuery, Store
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal_row import Row
from relproxy.store.place import as_cursor, from_cursor

# Of more that is pending a list reads what concerns its pages; others wait while it is read.
_PENDING_AT_MOST = 2000
# What is told of a project is in memory all at once, some KiB for each.
_PENDING_TOLD_AT_MOST = 20_000


class Overlay:
    """See `OwnerLookup`, `ImageLookup` and `Relations` in `relproxy.store.base`."""

    def __init__(self, journals: HostJournals, store: Store) -> None:
        self._journals = journals
        self._store = store

    async def owners(self, registry: str, image_ids: Collection[str]) -> Mapping[str, Ownership]:
        """Look in the journals, then in the store."""
        rows, is_any = await self._journals.pending_of_images_or_others(image_ids)
        owners = await self._store.owners(registry, image_ids)
        if not is_any:
            return owners
        # Asked for whatever it is that is pending: that an image has a record shows in no call.
        kept = await self._store.changes(image_ids)
        return with_changes(owners, _changes(rows, registry), kept=_of(kept, registry))

    async def images_of_instance(self, registry: str, query: InstanceQuery) -> Sequence[ImageKey]:
        """Look in the journals, then in the store; newest first."""
        rows = await self._journals.pending_of_instance(query.instance_id)
        changes = _changes(rows, registry)
        found = await self._store.images_of_instance(registry, query)
        unsure = {c.image_id for c in changes}.intersection(key.id for key in found)
        unsure |= {c.image_id for c in changes if isinstance(c, ImageRecord)}
        unsure |= _gained(changes, query.project)
        if not unsure:
            return found
        asked = RelationQuery(
            instance_id=query.instance_id, installation=query.installation, project=query.project
        )
        records = [
            record
            for record in await self._records_of(unsure, changes)
            if record.registry == registry and record.deleted_at is None and _matches(record, asked)
        ]
        records.sort(key=self._store.place, reverse=True)
        sure = [key for key in found if key.id not in unsure]
        return [*(ImageKey(record.image_id, record.created_at) for record in records), *sure]

    async def images_of_project(
        self, registry: str, project: str, *, at_most: int
    ) -> Sequence[str] | None:
        """Look in the journals, then in the store."""
        rows = await self._journals.pending_of_project(project, at_most=_PENDING_AT_MOST)
        if rows is None:
            return None
        changes = _changes(rows, registry)
        found = await self._store.images_of_project(registry, project, at_most=at_most)
        if found is None:
            return None
        ids = dict.fromkeys([*found, *(change.image_id for change in changes)])
        unsure, owners = await self._unsure(registry, ids.keys(), changes)
        own = [i for i in ids if i not in unsure or (i in owners and owners[i].project == project)]
        return None if len(own) > at_most else own

    async def relations(
        self, query: RelationQuery, *, limit: int, cursor: str | None
    ) -> RelationPage:
        """Look in the journals, then in the store; each record stands on one page.

        A page may hold fewer than `limit` before the last: those that a pending change of the
        owner has taken out of the question.
        """
        before = None if cursor is None else from_cursor(cursor)
        changes = await self._pending(query)
        found = await self._store.records(query, limit=limit + 1, before=before)
        place = self._store.place
        # What is further back than a full page of the store is for a later one.
        end = place(found[limit - 1]) if len(found) > limit else None
        page = {place(record): record for record in found[:limit]}
        for record in await self._pending_records(query, changes):
            at = place(record)
            if (before is None or at < before) and (end is None or at >= end):
                page.setdefault(at, record)
        known = [*changes, *(await self._kept(changes))]
        page = {at: after(record, known) for at, record in page.items()}
        places = sorted((at for at in page if _matches(page[at], query)), reverse=True)
        if len(places) > limit:
            end = places[limit - 1]
        records = tuple(page[at] for at in places[:limit])
        return RelationPage(records, None if end is None else as_cursor(end))

    async def _pending(self, query: RelationQuery) -> list[Change]:
        rows: list[Row] = []
        if query.image_id is not None:
            rows = await self._journals.pending_of_images([query.image_id])
        elif query.project is not None:
            found = await self._journals.pending_of_project(
                query.project, at_most=_PENDING_TOLD_AT_MOST
            )
            if found is None:
                raise StoreUnavailableError(
                    f"More than {_PENDING_TOLD_AT_MOST} entries of this host are on their "
                    "way to the store: ask again once it has taken some, or by image."
                )
            rows = found
        elif query.instance_id is not None:
            rows = await self._journals.pending_of_instance(query.instance_id)
        return _changes(rows)

    async def _pending_records(
        self, query: RelationQuery, changes: Sequence[Change]
    ) -> list[ImageRecord]:
        """Return records that the store may lack, or may have under another project."""
        records = [change for change in changes if isinstance(change, ImageRecord)]
        gained = _gained(changes, query.project)
        return [*(await self._store.records_of(gained)), *records] if gained else records

    async def _records_of(
        self, image_ids: Collection[str], changes: Sequence[Change]
    ) -> list[ImageRecord]:
        """Return the records of some images as they are once the store has taken `changes`."""
        concerned = [change for change in changes if change.image_id in image_ids]
        held = await self._store.records_of(image_ids)
        known = [*concerned, *(await self._kept(concerned))]
        return [after(record, known) for record in with_records(held, concerned)]

    async def _unsure(
        self, registry: str, image_ids: Collection[str], changes: Sequence[Change]
    ) -> tuple[Collection[str], Mapping[str, Ownership]]:
        """Return the images of which the journals say something, and who owns them.

        The store is read after the journals were, so what has been delivered meanwhile is in it:
        a change is missed in neither.
        """
        unsure = {change.image_id for change in changes}.intersection(image_ids)
        if not unsure:
            return (), {}
        owners = await self._store.owners(registry, unsure)
        return unsure, await self._with_changes(registry, owners, changes)

    async def _with_changes(
        self, registry: str, owners: Mapping[str, Ownership], changes: Sequence[Change]
    ) -> Mapping[str, Ownership]:
        return with_changes(owners, changes, kept=_of(await self._kept(changes), registry))

    async def _kept(self, changes: Sequence[Change]) -> Sequence[OwnerChange | Burial]:
        """Return what the store keeps of the images of which the journals say something.

        It is read last, so nothing that was delivered meanwhile is missed.
        """
        if not changes:
            return ()
        return await self._store.changes({change.image_id for change in changes})


def with_changes(
    owners: Mapping[str, Ownership],
    changes: Sequence[Change],
    *,
    kept: Sequence[OwnerChange | Burial] = (),
) -> Mapping[str, Ownership]:
    """Return who owns what once the store has taken `changes`, oldest first.

    `kept` are changes that the store has; what it says of `owners` is with them.
    """
    after = dict(owners)
    burials = [change for change in changes if isinstance(change, Burial)]
    for burial in burials:
        held = after.get(burial.image_id)
        if held is not None and burial.created_at in (None, held.created_at):
            del after[burial.image_id]
    burials += [change for change in kept if isinstance(change, Burial)]
    for record in changes:
        if not isinstance(record, ImageRecord) or any(b.buries(record) for b in burials):
            continue
        held = after.get(record.image_id)
        if held is None or held.created_at != record.created_at or held.is_imported:
            after[record.image_id] = Ownership(record.project, record.created_at)
    for change in _owner_changes((*changes, *kept)):
        held = after.get(change.image_id)
        if held is not None and held.created_at == change.created_at:
            after[change.image_id] = Ownership(change.project, change.created_at)
    return after


def after(record: ImageRecord, changes: Sequence[Change]) -> ImageRecord:
    """Return a record as it is once the store has taken `changes`, and with what it keeps."""
    buried_at = [c.at for c in changes if isinstance(c, Burial) and c.buries(record)]
    if record.deleted_at is not None:
        buried_at.append(record.deleted_at)
    for change in _owner_changes(changes):
        if (change.registry, change.image_id, change.created_at) == (
            record.registry,
            record.image_id,
            record.created_at,
        ):
            record = record.given_to(change.project)
    return replace(record, deleted_at=min(buried_at, default=None))


def with_records(held: Iterable[ImageRecord], changes: Iterable[Change]) -> list[ImageRecord]:
    """Return the records that the store has once it has taken those of `changes`; see `put`."""
    by_image = {(r.registry, r.image_id, r.created_at): r for r in held}
    for record in changes:
        if isinstance(record, ImageRecord):
            key = (record.registry, record.image_id, record.created_at)
            other = by_image.setdefault(key, record)
            by_image[key] = _merged(other, record)
    return list(by_image.values())


def _merged(held: ImageRecord, told: ImageRecord) -> ImageRecord:
    """Return the record that a store has which held one, and was told another of the image."""
    earliest = min(held.recorded_at, told.recorded_at)
    if held.is_imported and not told.is_imported:
        taken = replace(told, deleted_at=held.deleted_at, recorded_at=earliest)
        return taken.given_to(held.project) if held.made_by is not None else taken
    if held.is_imported != told.is_imported:
        return replace(held, recorded_at=earliest)
    if held.made_for != told.project:
        return replace(held, recorded_at=earliest) if held.is_imported else held
    capture = min(held, told, key=_rank).capture
    return replace(held, capture=capture, recorded_at=earliest)


def _rank(record: ImageRecord) -> tuple[int, str, str]:
    """Return what is less for the better of two captures."""
    if record.capture is None:
        return 2, "", ""
    instance = record.capture.instance
    return int(record.capture.grade is Grade.CLAIMED), instance.installation, instance.id


def _owner_changes(changes: Iterable[Change]) -> list[OwnerChange]:
    """Return the changes of owners so that of one image the last holds."""
    owners = (change for change in changes if isinstance(change, OwnerChange))
    return sorted(owners, key=lambda change: (change.at, change.project))


def _changes(rows: Iterable[Row], registry: str | None = None) -> list[Change]:
    return [row.change for row in rows if registry in (None, row.registry)]


def _of(kept: Iterable[OwnerChange | Burial], registry: str) -> list[OwnerChange | Burial]:
    return [change for change in kept if change.registry == registry]


def _gained(changes: Iterable[Change], project: str | None) -> set[str]:
    """Return the images that a change gives to a project (None: to any).

    Any may be given back to whom its claim counts for.
    """
    owners = (change for change in changes if isinstance(change, OwnerChange))
    return {change.image_id for change in owners if project in (None, change.project)}


def _matches(record: ImageRecord, query: RelationQuery) -> bool:
    instance = record.counted.instance if record.counted else None
    return (
        query.image_id in (None, record.image_id)
        and query.project in (None, record.project)
        and query.instance_id in (None, instance.id if instance else None)
        and query.installation in (None, instance.installation if instance else None)
    )
