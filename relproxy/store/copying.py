"""Copying every record from one store to another, and seeing that both have the same.

What a store is told is copied, not its tables: each record, and after it the change of its owner
and its burial where there was one. All of that may be told again, so a copy that was cut off goes
on from a place it has printed, or simply from the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
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
    """Tell `target` all that `source` keeps behind the place `after`.

    `progress` is told the number of records so far, and a place to go on from. Raises
    `StoreUnavailableError`, and `BadRequestError` for a place that isn't one.
    """
    copied = 0
    async for batch in source.walk(after):
        await target.put([change for kept in batch for change in _told(kept)])
        copied += len(batch)
        progress(copied, batch[-1].place)


async def compare(source: Store, target: Store) -> Digest:
    """Return what both hold; raises `StoreRefusedError` where that isn't the same."""
    first, second = await digest(source.walk(None)), await digest(target.walk(None))
    if first != second:
        raise StoreRefusedError(
            f"The stores differ: {first.records} records ({first.checksum}) and {second.records} "
            f"({second.checksum}). Was either written meanwhile? Copy again, from the start."
        )
    return first


async def digest(batches: AsyncIterator[Sequence[Kept]]) -> Digest:
    """Return what a walk yields. Times count to the second: PostgreSQL keeps no more."""
    records, total = 0, 0
    async for batch in batches:
        records += len(batch)
        for kept in batch:
            total += int.from_bytes(hashlib.sha256(_line(kept)).digest()[:16])
    return Digest(records, f"{total % 2**128:032x}")


def _line(kept: Kept) -> bytes:
    record, capture = kept.record, kept.record.capture
    of_instance = capture and (
        capture.instance.installation,
        capture.instance.id,
        capture.grade.value,
    )
    times = (record.recorded_at, record.deleted_at or _NEVER, kept.owned_since or _NEVER)
    seconds = [int(moment.timestamp()) for moment in times]
    names = (record.registry, record.image_id, record.created_at, record.project)
    return repr((names, of_instance, seconds)).encode()


def _told(kept: Kept) -> Iterator[Change]:
    record = kept.record
    yield replace(record, deleted_at=None)
    if kept.owned_since is not None:
        yield OwnerChange(
            record.registry, record.image_id, record.created_at, record.project, kept.owned_since
        )
    if record.deleted_at is not None:
        yield Burial(record.registry, record.image_id, record.deleted_at)
