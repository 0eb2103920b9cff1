"""How changes are written to the SQLite store, within the caller's transaction.

Records first, then what is kept of owners and deletions; then the records of these images are made
to be as all that is kept of them says, whichever was told first. One process writes at a time, so
what is seen at the beginning of a transaction is so until its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiosqlite

from relproxy.model import Burial, Capture, Change, Grade, ImageRecord, OwnerChange
from relproxy.store.sqlite_sql import (
    ADD_REGISTRY,
    KEEP_BURIAL,
    KEEP_OWNER,
    KNOWN,
    PUT,
    TAKE_BURIALS,
    TAKE_OWNERS,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_Columns = tuple[str | int | None, ...]


async def write(writer: aiosqlite.Connection, changes: Sequence[Change]) -> None:
    """Write changes, and what is kept for their images."""
    asked = {"ids": json.dumps(list({change.image_id for change in changes}))}
    (known,) = await writer.execute_fetchall(KNOWN, asked)
    renamed, names, has_owners, has_burials = json.loads(known[0]), *known[1:]
    changes = _by_new_names(changes, renamed)
    if strange := {change.registry for change in changes}.difference(json.loads(names)):
        await writer.executemany(ADD_REGISTRY, [(name,) for name in strange])
    records = [_record(change) for change in changes if isinstance(change, ImageRecord)]
    owners = [_owner(change) for change in changes if isinstance(change, OwnerChange)]
    burials = [_burial(change) for change in changes if isinstance(change, Burial)]
    for statement, rows in ((PUT, records), (KEEP_OWNER, owners), (KEEP_BURIAL, burials)):
        if rows:
            await writer.executemany(statement, rows)
    takes = TAKE_OWNERS if owners or has_owners else ()
    for statement in (*takes, *(TAKE_BURIALS if burials or has_burials else ())):
        await writer.execute(statement, asked)


def microseconds(moment: datetime) -> int:
    """Return a moment as the tables have it."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(count: int) -> datetime:
    """Return the moment that the tables have as a number."""
    return _EPOCH + count * _MICROSECOND


def change_of(row: Iterable[Any]) -> OwnerChange | Burial:
    """Read a row of what is kept: registry, image id, created_at, project, at."""
    registry, image_id, created_at, project, at = row
    if project is None:
        return Burial(registry, image_id, moment(at), created_at or None)
    return OwnerChange(registry, image_id, created_at, project, moment(at))


def _by_new_names(changes: Sequence[Change], renamed: Mapping[str, str]) -> Sequence[Change]:
    if not renamed:
        return changes
    return [replace(c, registry=renamed.get(c.registry, c.registry)) for c in changes]


def _record(record: ImageRecord) -> _Columns:
    capture = record.capture
    return (
        record.registry,
        record.image_id,
        record.created_at,
        record.project,
        capture.instance.installation if capture else None,
        capture.instance.id if capture else None,
        _grade(capture),
        microseconds(record.recorded_at),
        record.is_imported,
    )


def _grade(capture: Capture | None) -> str | None:
    # Of what is imported the column `is_imported` says so: it counts as a claim does.
    if capture is None or capture.grade is not Grade.IMPORTED:
        return capture.grade.value if capture else None
    return Grade.CLAIMED.value


def _owner(change: OwnerChange) -> _Columns:
    at = microseconds(change.at)
    return change.registry, change.image_id, change.created_at, change.project, at


def _burial(change: Burial) -> _Columns:
    return change.registry, change.image_id, change.created_at or "", microseconds(change.at)
