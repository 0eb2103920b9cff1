"""One entry as a row of a journal file: its columns, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from relproxy.model import (
    Burial,
    Capture,
    Change,
    Grade,
    ImageRecord,
    Instance,
    Intent,
    OwnerChange,
)
from relproxy.store.base import Entry, EntryKind, EntryState

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
COLUMNS = (
    "id, kind, state, registry, image_id, is_assigned, image_name, created_at, project, "
    "installation, instance_id, grade, begun_at, at, ended_at, reason"
)
SELECT_ENTRY = f"SELECT {COLUMNS} FROM entry"  # noqa: S608 - a constant
# In the header of a file whose entries are being adopted (`PRAGMA application_id`).
LEAVING = 0x6C656176
# Of two copies of an entry the one of the higher rank holds; a person's word goes above parking.
_RANKS: Mapping[EntryState, int] = {
    EntryState.BEGUN: 0,
    EntryState.IN_DOUBT: 1,
    EntryState.COMPLETED: 3,
    EntryState.DELIVERED: 4,
    EntryState.ABANDONED: 4,
}
_PARKED_RANK = 2
# In the words of the indexes.
DUE = f"state = '{EntryState.COMPLETED}' AND ended_at IS NULL"
PARKED = f"state = '{EntryState.COMPLETED}' AND ended_at IS NOT NULL"
FOR_A_PERSON = f"(state = '{EntryState.IN_DOUBT}' OR ({PARKED}))"
# No other file has a copy of it: what is adopted from a dead worker is in doubt before it ends.
FORGET_BEGUN = f"DELETE FROM entry WHERE id = ? AND state = '{EntryState.BEGUN}'"  # noqa: S608
# Whose an image is now is asked once for all its changes in doubt, by the entry of the youngest.
FORGET_OLDER_QUESTIONS = (
    f"DELETE FROM entry WHERE state = '{EntryState.IN_DOUBT}' "  # noqa: S608 - constants
    f"AND kind = '{EntryKind.OWNER}' AND id <> ?1 AND (kind, registry, image_id) = "
    "(SELECT kind, registry, image_id FROM entry WHERE id = ?1)"
)
# What reading a row comes to whose bytes are not what was written.
NONSENSE = (ValueError, TypeError, OverflowError)


class WrongStateError(Exception):
    """An entry is not in a state from which this may follow, or isn't there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it is in the file.

    `project` is the caller's until the entry is completed, then the record's; `at` is when it was
    completed, `ended_at` when it was delivered, abandoned, or parked: completed, and the store
    refuses it.
    """

    id: str
    kind: EntryKind
    state: EntryState
    registry: str
    image_id: str | None
    is_assigned: bool
    image_name: str | None
    created_at: str | None
    project: str | None
    capture: Capture | None
    begun_at: datetime
    at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None

    @property
    def entry(self) -> Entry:
        """Return what the flow was given when it began."""
        intent = Intent(
            self.registry,
            self.project,
            self.capture,
            self.image_id,
            is_assigned=self.is_assigned,
            image_name=self.image_name,
        )
        return Entry(self.id, self.kind, intent, self.begun_at)

    @property
    def is_parked(self) -> bool:
        """Tell whether the store refuses it, so that a person has to settle it."""
        return self.state is EntryState.COMPLETED and self.ended_at is not None

    @property
    def rank(self) -> int:
        """How far it is: of two copies of an entry the further one holds."""
        return _PARKED_RANK if self.is_parked else _RANKS[self.state]

    @property
    def is_whole(self) -> bool:
        """Tell whether a completed entry says all that the store has to be told."""
        try:
            return self.change is not None
        except WrongStateError:
            return False

    @property
    def change(self) -> Change:
        """Return what a completed entry tells the store; raises `WrongStateError` if it doesn't."""
        if self.image_id is None:
            raise WrongStateError(f"entry {self.id} is not completed")
        if self.kind is EntryKind.BURIAL:
            moment = self.at or self.begun_at
            return Burial(self.registry, self.image_id, moment, self.created_at)
        if self.at is None or self.created_at is None or self.project is None:
            raise WrongStateError(f"entry {self.id} is not completed")
        if self.kind is EntryKind.OWNER:
            return OwnerChange(self.registry, self.image_id, self.created_at, self.project, self.at)
        return ImageRecord(
            self.registry, self.image_id, self.created_at, self.project, self.capture, self.at
        )


def row_of(row: Sequence[Any]) -> Row:
    """Read one row of `entry`, its columns as `COLUMNS` names them."""
    entry_id, kind, state, registry, image_id, is_assigned, image_name, *rest = row
    created_at, project, installation, instance_id, grade, begun_at, at, ended_at, reason = rest
    return Row(
        id=entry_id,
        kind=EntryKind(kind),
        state=EntryState(state),
        registry=registry,
        image_id=image_id,
        is_assigned=bool(is_assigned),
        image_name=image_name,
        created_at=created_at,
        project=project,
        capture=None
        if instance_id is None
        else Capture(Instance(installation, instance_id), Grade(grade)),
        begun_at=_moment(begun_at),
        at=None if at is None else _moment(at),
        ended_at=None if ended_at is None else _moment(ended_at),
        reason=reason,
    )


def rank_in(table: str) -> str:
    """Return the expression for the rank of a table's row."""
    ranks = " ".join(f"WHEN '{state}' THEN {rank}" for state, rank in _RANKS.items())
    completed = f"{table}.state = '{EntryState.COMPLETED}' AND {table}.ended_at IS NOT NULL"
    return f"CASE WHEN {completed} THEN {_PARKED_RANK} ELSE CASE {table}.state {ranks} END END"


def values_of(row: Row) -> tuple[object, ...]:
    """Return a row's values, as `COLUMNS` names them."""
    capture = row.capture
    return (
        row.id,
        row.kind,
        row.state,
        row.registry,
        row.image_id,
        row.is_assigned,
        row.image_name,
        row.created_at,
        row.project,
        capture.instance.installation if capture else None,
        capture.instance.id if capture else None,
        capture.grade if capture else None,
        microseconds(row.begun_at),
        None if row.at is None else microseconds(row.at),
        None if row.ended_at is None else microseconds(row.ended_at),
        row.reason,
    )


def microseconds(moment: datetime) -> int:
    """Return a moment as a file holds it."""
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND
