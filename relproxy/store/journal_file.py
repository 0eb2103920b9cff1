"""One journal file: a SQLite database with one writer, its rows read and written as entries.

Synchronous: `journal.py` calls it in a thread of its own. WAL with `synchronous=FULL`, so that what
was committed survives power loss.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

from relproxy.model import (
    Burial,
    Capture,
    Change,
    CreatedImage,
    Grade,
    ImageRecord,
    Instance,
    Intent,
    OwnerChange,
)
from relproxy.store.base import Entry, EntryKind, EntryState

_LOG = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# `relproxy journal settle` writes beside the worker.
_BUSY_TIMEOUT_S = 5.0
_COLUMNS = (
    "id, kind, state, registry, image_id, is_assigned, image_name, created_at, project, "
    "installation, instance_id, grade, begun_at, at, ended_at, reason"
)
SELECT_ENTRY = f"SELECT {_COLUMNS} FROM entry"  # noqa: S608 - a constant
_INSERT = (
    f"INSERT OR IGNORE INTO entry ({_COLUMNS}) "  # noqa: S608 - a constant
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


# What reading a row comes to whose bytes are not what was written.
NONSENSE = (ValueError, TypeError, OverflowError)


class WrongStateError(Exception):
    """An entry is not in a state from which this may follow, or isn't there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it is in the file.

    `project` is the caller's until the entry is completed, then the record's; `at` is when it was
    completed, `ended_at` when it was delivered or abandoned.
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
    def change(self) -> Change:
        """Return what a completed entry tells the store."""
        if self.image_id is None or self.at is None:
            raise WrongStateError(f"entry {self.id} is not completed")
        if self.kind is EntryKind.BURIAL:
            return Burial(self.registry, self.image_id, self.at, self.created_at)
        if self.created_at is None or self.project is None:
            raise WrongStateError(f"entry {self.id} is not completed")
        if self.kind is EntryKind.OWNER:
            return OwnerChange(self.registry, self.image_id, self.created_at, self.project, self.at)
        return ImageRecord(
            self.registry, self.image_id, self.created_at, self.project, self.capture, self.at
        )


class JournalFile:
    """One open journal file; it may be read and written by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file, create it if there is none; raises `sqlite3.Error` or `OSError`."""
        self.path = path
        self._connection = sqlite3.connect(
            path, isolation_level=None, timeout=_BUSY_TIMEOUT_S, check_same_thread=False
        )
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._migrate()
            self._check()
        except BaseException:
            self._connection.close()
            raise
        # The file's name has to survive power loss too, not only what is in it.
        sync_directory(path.parent)

    def close(self) -> None:
        """Close the file; what was committed is safe without."""
        self._connection.close()

    def together(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run `works` in one transaction, and return their results once it is durable.

        An exception in the list is the result of its work. A work that fails is not the failure of
        the others: each is then run in a transaction of its own. A disk that fails is everyone's.
        """
        try:
            return self._transaction(works)
        except Exception as failure:  # noqa: BLE001 - it is each one's own result
            if len(works) == 1 or _is_of_the_disk(failure):
                return [failure] * len(works)
        return [result for work in works for result in self.together([work])]

    def _transaction(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            results = [work() for work in works]
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors of the disk.
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        return results

    # -- inside a transaction

    def add(self, rows: Iterable[Row]) -> None:
        """Write entries; those whose id is there already stay as they are."""
        self._connection.executemany(_INSERT, map(_values, rows))

    def move(
        self, entry_id: str, old: Sequence[EntryState], new: EntryState, reason: str | None = None
    ) -> None:
        """Give an entry another state; raises `WrongStateError` if it isn't in one of `old`."""
        ended = EntryState.ABANDONED is new
        moved = self._connection.execute(
            f"UPDATE entry SET state = ?, reason = COALESCE(?, reason), ended_at = ? "  # noqa: S608
            f"WHERE id = ? AND state IN ({_marks(old)})",
            (new, reason, _microseconds(datetime.now(UTC)) if ended else None, entry_id, *old),
        )
        if moved.rowcount != 1:
            raise WrongStateError(f"entry {entry_id} is in no state to become {new}")

    def complete(
        self,
        entry_id: str,
        old: Sequence[EntryState],
        image: CreatedImage,
        *,
        project: str,
        at: datetime,
    ) -> None:
        """Make an entry a completed one; raises `WrongStateError` if it isn't in one of `old`."""
        moved = self._connection.execute(
            f"UPDATE entry SET state = 'completed', image_id = ?, created_at = ?, "  # noqa: S608
            f"project = ?, at = ? WHERE id = ? AND state IN ({_marks(old)})",
            (image.id.lower(), image.created_at, project, _microseconds(at), entry_id, *old),
        )
        if moved.rowcount != 1:
            raise WrongStateError(f"entry {entry_id} is in no state to be completed")

    def explain(self, entry_id: str, reason: str) -> None:
        """Say why an entry is in doubt."""
        self._connection.execute(
            "UPDATE entry SET reason = ? WHERE id = ? AND state = 'in_doubt'", (reason, entry_id)
        )

    def deliver(self, entry_ids: Sequence[str]) -> None:
        """Mark completed entries as delivered."""
        now = _microseconds(datetime.now(UTC))
        self._connection.executemany(
            "UPDATE entry SET state = 'delivered', ended_at = ? "
            "WHERE id = ? AND state = 'completed'",
            [(now, entry_id) for entry_id in entry_ids],
        )

    def remember_identity(self, identity: str, *, and_put_again: bool) -> int:
        """Keep the identity of the store's server; return how many entries are to be put again."""
        self._connection.execute("DELETE FROM delivered_to")
        self._connection.execute("INSERT INTO delivered_to (identity) VALUES (?)", (identity,))
        return self.put_again() if and_put_again else 0

    def put_again(self) -> int:
        """Take what was delivered for undelivered; return how many entries it is."""
        return self._connection.execute(
            "UPDATE entry SET state = 'completed', ended_at = NULL WHERE state = 'delivered'"
        ).rowcount

    def purge(self, *, ended_before: datetime, at_most: int) -> int:
        """Forget entries that ended before then."""
        return self._connection.execute(
            "DELETE FROM entry WHERE sequence IN (SELECT sequence FROM entry "
            "WHERE state IN ('delivered', 'abandoned') AND ended_at < ? LIMIT ?)",
            (_microseconds(ended_before), at_most),
        ).rowcount

    # -- reading

    def identity(self) -> str | None:
        """Return the identity of the server to which the delivered entries went."""
        row = self._connection.execute("SELECT identity FROM delivered_to").fetchone()
        return row[0] if row else None

    def in_state(self, state: EntryState, *, at_most: int) -> list[Row]:
        """Return the oldest entries of one state, in their order."""
        # Not a parameter: SQLite would not see which partial index serves.
        return self._rows(f"WHERE state = '{state.value}' ORDER BY sequence LIMIT ?", (at_most,))

    def find(self, entry_id: str) -> Row | None:
        """Return one entry."""
        return next(iter(self._rows("WHERE id = ?", (entry_id,))), None)

    def everything(self) -> list[Row]:
        """Return every entry."""
        return self._rows("ORDER BY sequence", ())

    def _rows(self, condition: str, parameters: tuple[object, ...]) -> list[Row]:
        found = self._connection.execute(f"{SELECT_ENTRY} {condition}", parameters)
        return [row_of(row) for row in found]

    def _migrate(self) -> None:
        present = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if present == 0:
            room = resources.files("relproxy.store") / "schema" / "journal-0001.sql"
            script = room.read_text(encoding="utf-8")
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = 1; COMMIT;"
            )
        elif present < 0:
            raise sqlite3.DatabaseError(f"a version that is none: {present}")
        elif present != 1:
            raise NewerJournalError(
                f"The journal {self.path} is of version {present}, and this relproxy knows 1: it "
                "was written by a newer relproxy."
            )

    def _check(self) -> None:
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(str(found))
        # A row may be whole for SQLite and make no sense.
        for state in (EntryState.BEGUN, EntryState.IN_DOUBT, EntryState.COMPLETED):
            for row in self._connection.execute(f"{SELECT_ENTRY} WHERE state = '{state.value}'"):
                row_of(row)


class NewerJournalError(Exception):
    """A journal file was written by a newer relproxy."""


def salvaged(path: Path) -> Iterator[Row]:
    """Read from a broken journal file what can be read, a row at a time."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        last = 0
        with suppress(sqlite3.Error):
            last = connection.execute("SELECT MAX(sequence) FROM entry").fetchone()[0] or 0
        if not last:
            with suppress(sqlite3.Error):
                for row in connection.execute(SELECT_ENTRY):
                    with suppress(*NONSENSE):
                        yield row_of(row)
        for sequence in range(1, last + 1):
            with suppress(sqlite3.Error, *NONSENSE):
                for row in connection.execute(f"{SELECT_ENTRY} WHERE sequence = ?", (sequence,)):
                    yield row_of(row)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def row_of(row: Sequence[Any]) -> Row:
    """Read one row of `entry`, its columns as `_COLUMNS` names them."""
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


def _values(row: Row) -> tuple[object, ...]:
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
        _microseconds(row.begun_at),
        None if row.at is None else _microseconds(row.at),
        None if row.ended_at is None else _microseconds(row.ended_at),
        row.reason,
    )


def _is_of_the_disk(failure: Exception) -> bool:
    # sqlite3 says "corrupt" and "not a database" by the base class itself.
    is_general = type(failure) is sqlite3.DatabaseError
    return is_general or isinstance(failure, sqlite3.OperationalError | OSError)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" for _ in values)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND
