"""Copying every record from one store to another, and seeing that both have the same.

What a store is told is copied, not its tables: each record with the project that it was made for,
and its burial where there was one; then the owner changes and the burials that are kept, those too
whose record may come yet; and the old names of registries, which journals may still use. All of
that may be told again, so a copy that was cut off goes on from a place it has printed, or simply
from the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from relproxy.errors import StoreRefusedError
from relproxy.model import Burial, Change, OwnerChange
from relproxy.store.base import Kept, Store

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Digest:
    """What a store holds: how many records, and a checksum of them in whatever order."""

    records: int
    checksum: str


async def copy(
    source: Store, target: Store, *, after: str | None, progress: Callable[[int, str], None]
) -> None:
    """Tell `target` all that `source` keeps: of records, those behind the place `after`.

    `progress` is told the number of records so far, and a place to go on from. Raises
    `StoreUnavailableError`, and `BadRequestError` for a place that isn't one.
    """
    for old, new in (await source.renamed()).items():
        await target.take_for_renamed(old, new)
    copied = 0
    async for batch in source.walk(after):
        await target.put([change for kept in batch for change in _told(kept)])
        copied += len(batch)
        progress(copied, batch[-1].place)
    async for changes in source.walk_changes():
        await target.put(changes)


async def compare(source: Store, target: Store) -> Digest:
    """Return what both hold; raises `StoreRefusedError` where that isn't the same."""
    first, second = await digest(source), await digest(target)
    if first != second:
        raise StoreRefusedError(
            f"The stores differ: {first.records} records ({first.checksum}) and {second.records} "
            f"({second.checksum}). Was either written meanwhile? Copy again, from the start."
        )
    return first


async def digest(store: Store) -> Digest:
    """Return what a store holds. Times of records count to the second: PostgreSQL keeps no more."""
    records, total = 0, 0
    async for batch in store.walk(None):
        records += len(batch)
        total += sum(_checksum(_line(kept)) for kept in batch)
    total += await _checksum_of_changes(store)
    names = sorted((await store.renamed()).items())
    return Digest(records, f"{(total + _checksum(names)) % 2**128:032x}")


async def _checksum_of_changes(store: Store) -> int:
    total, last = 0, None
    async for batch in store.walk_changes():
        for change in batch:
            line = _line_of_change(change)
            # Two burials of one second are one, elsewhere.
            total += 0 if line == last else _checksum(line)
            last = line
    return total


def _checksum(line: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(line).encode()).digest()[:16])


def _line(kept: Kept) -> object:
    record, capture = kept.record, kept.record.capture
    of_instance = capture and (
        capture.instance.installation,
        capture.instance.id,
        capture.grade.value,
    )
    seconds = [int(at.timestamp()) for at in (record.recorded_at, record.deleted_at or _NEVER)]
    names = (record.registry, record.image_id, record.created_at, record.project, record.made_for)
    return (*names, record.is_imported), of_instance, seconds


def _line_of_change(change: OwnerChange | Burial) -> object:
    names = (change.registry, change.image_id, change.created_at)
    if isinstance(change, OwnerChange):
        return names, change.project, change.at.isoformat()
    return names, int(change.at.timestamp())


def _told(kept: Kept) -> Iterator[Change]:
    record = kept.record
    yield replace(record, project=record.made_for, made_by=None, deleted_at=None)
    if record.deleted_at is not None:
        yield Burial(record.registry, record.image_id, record.deleted_at, record.created_at)
