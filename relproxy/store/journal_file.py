"""One journal file: a SQLite database with one writer, its rows read and written as entries.

Synchronous: `journal.py` calls it in a thread of its own. WAL with `synchronous=FULL`, so that what
was committed survives power loss.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from relproxy.model import CreatedImage
from relproxy.store.base import EntryState
from relproxy.store.journal_disk import is_busy, is_of_the_disk, sync_directory
from relproxy.store.journal_owed import Owed
from relproxy.store.journal_row import (
    COLUMNS,
    DUE,
    FOR_A_PERSON,
    FORGET_BEGUN,
    FORGET_OLDER_QUESTIONS,
    LEAVING,
    PARKED,
    SELECT_ENTRY,
    Row,
    WrongStateError,
    microseconds,
    rank_in,
    row_of,
    values_of,
)
from relproxy.store.journal_schema import bring_up_to_date

_LOG = logging.getLogger(__name__)

# `relproxy journal settle` writes beside the worker.
_BUSY_TIMEOUT_S = 5.0
_BUSY_PAUSE_S = 0.01
_LOST = "the journal has lost a part of what it says"
_INSERT = (
    f"INSERT OR IGNORE INTO entry ({COLUMNS}) "  # noqa: S608 - a constant
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADOPT = (
    f"{_INSERT.replace(' OR IGNORE', '')} ON CONFLICT (id) DO UPDATE SET state = excluded.state, "
    "image_id = excluded.image_id, created_at = excluded.created_at, project = excluded.project, "
    "at = excluded.at, ended_at = excluded.ended_at, reason = excluded.reason "
    f"WHERE {rank_in('excluded')} > {rank_in('entry')}"
)
_ENDED = f"state IN ('{EntryState.DELIVERED}', '{EntryState.ABANDONED}')"
_OPEN = (
    *(f"state = '{state}'" for state in (EntryState.BEGUN, EntryState.IN_DOUBT)),
    *(DUE, PARKED),
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
            self._prepare()
            self._check()
            self.owed = Owed(self._connection)
        except BaseException:
            self._connection.close()
            raise
        # The file's name has to survive power loss too, not only what is in it.
        sync_directory(path.parent)

    def _prepare(self) -> None:
        """Make the file durable and bring it up to date.

        SQLite doesn't wait where two switch to WAL at once, or where the last one closes it: it
        says that the file is locked.
        """
        deadline = time.monotonic() + _BUSY_TIMEOUT_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                bring_up_to_date(self._connection, self.path)
            except sqlite3.OperationalError as failure:
                if not is_busy(failure) or time.monotonic() > deadline:
                    raise
                time.sleep(_BUSY_PAUSE_S)
            else:
                return

    def close(self) -> None:
        """Close the file; what was committed is safe without."""
        self._connection.close()

    def close_as_one_file(self) -> None:
        """Close it without anything beside it; raises `sqlite3.Error`."""
        self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    def together(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run `works` in one transaction, and return their results once it is durable.

        An exception in the list is the result of its work. A work that fails is not the failure of
        the others: each is then run in a transaction of its own. A disk that fails is everyone's.
        """
        try:
            return self._transaction(works)
        except Exception as failure:  # noqa: BLE001 - it is each one's own result
            if len(works) == 1 or is_of_the_disk(failure):
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

    def leave(self, *, is_leaving: bool = True) -> None:
        """Say that entries go from here to another journal, or no longer do."""
        if is_leaving == self.is_leaving():
            return
        self._connection.execute(f"PRAGMA application_id = {LEAVING if is_leaving else 0}")

    def is_leaving(self) -> bool:
        """Tell whether entries go from here to another journal."""
        found: int = self._connection.execute("PRAGMA application_id").fetchone()[0]
        return found == LEAVING

    # -- inside a transaction

    def add(self, rows: Iterable[Row]) -> None:
        """Write entries; those whose id is there already stay as they are."""
        self._connection.executemany(_INSERT, map(values_of, rows))

    def adopt(self, rows: Sequence[Row], identity: str | None, *, is_owed: bool) -> None:
        """Take over another journal's entries; where one is here already, the further one holds.

        `identity` is that of the server to which went what is delivered; `is_owed` that it is to be
        put again whichever that was.
        """
        self._connection.executemany(_ADOPT, map(values_of, rows))
        delivered = [row.id for row in rows if row.state is EntryState.DELIVERED]
        if delivered and (is_owed or identity != self.identity()):
            first = self._connection.execute(
                "SELECT MIN(sequence) FROM entry WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(delivered),),
            ).fetchone()[0]
            self.owed.behind(first - 1)

    def forget(self, rows: Sequence[Row]) -> None:
        """Remove entries that another journal has taken over, but for what has changed since."""
        self._connection.executemany(
            "DELETE FROM entry WHERE id = ? AND state = ? AND ended_at IS ?",
            [
                (row.id, row.state, None if row.ended_at is None else microseconds(row.ended_at))
                for row in rows
            ],
        )

    def move(
        self, entry_id: str, old: Sequence[EntryState], new: EntryState, reason: str | None = None
    ) -> None:
        """Give an entry another state; raises `WrongStateError` if it isn't in one of `old`.

        One that is abandoned as soon as its answer came is forgotten at once: it says nothing, and
        anybody can have the registry refuse him.
        """
        ended = EntryState.ABANDONED is new
        is_forgotten = ended and EntryState.BEGUN in old
        if is_forgotten and self._connection.execute(FORGET_BEGUN, (entry_id,)).rowcount == 1:
            return
        moved = self._connection.execute(
            f"UPDATE entry SET state = ?, reason = COALESCE(?, reason), ended_at = ? "  # noqa: S608
            f"WHERE id = ? AND state IN ({_marks(old)})",
            (new, reason, microseconds(datetime.now(UTC)) if ended else None, entry_id, *old),
        )
        if moved.rowcount != 1:
            raise WrongStateError(f"entry {entry_id} is in no state to become {new}")
        if new is EntryState.IN_DOUBT:
            self._connection.execute(FORGET_OLDER_QUESTIONS, (entry_id,))

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
            (image.id.lower(), image.created_at, project, microseconds(at), entry_id, *old),
        )
        if moved.rowcount != 1:
            raise WrongStateError(f"entry {entry_id} is in no state to be completed")

    def rename_registries(self, names: Mapping[str, str]) -> None:
        """Have open entries name registries as they are called now: old name -> new."""
        for state in (EntryState.BEGUN, EntryState.IN_DOUBT, EntryState.COMPLETED):
            self._connection.executemany(
                f"UPDATE entry SET registry = ?2 "  # noqa: S608 - a constant
                f"WHERE state = '{state}' AND registry = ?1",
                list(names.items()),
            )

    def explain(self, entry_id: str, reason: str) -> None:
        """Say why an entry is in doubt."""
        self._connection.execute(
            "UPDATE entry SET reason = ? WHERE id = ? AND state = 'in_doubt'", (reason, entry_id)
        )

    def reopen(self, entry_ids: Sequence[str]) -> None:
        """Have completed entries settled once more, of which a part is lost."""
        self._connection.executemany(
            "UPDATE entry SET state = 'in_doubt', ended_at = NULL, reason = ? "
            "WHERE id = ? AND state = 'completed'",
            [(_LOST, entry_id) for entry_id in entry_ids],
        )

    def park(self, entry_id: str, reason: str) -> None:
        """Have the relay pass a completed entry over, which the store refuses."""
        self._connection.execute(
            "UPDATE entry SET ended_at = ?, reason = ? WHERE id = ? AND state = 'completed'",
            (microseconds(datetime.now(UTC)), reason, entry_id),
        )

    def settle(self, entry_id: str, image: CreatedImage | None, *, at: datetime) -> None:
        """Say by hand what became of an entry: this image, its owner named; None for nothing.

        Raises `WrongStateError` if the entry is neither in doubt nor parked.
        """
        if image is None:
            new = "state = 'abandoned', reason = 'settled by hand', ended_at = ?"
            values: tuple[object, ...] = (microseconds(at),)
        else:
            new = (
                "state = 'completed', image_id = ?, created_at = ?, project = ?, "
                "at = COALESCE(at, ?), ended_at = NULL"
            )
            values = (image.id.lower(), image.created_at, image.owner, microseconds(at))
        settled = self._connection.execute(
            f"UPDATE entry SET {new} WHERE id = ? AND {FOR_A_PERSON}",  # noqa: S608 - constants
            (*values, entry_id),
        )
        if settled.rowcount != 1:
            raise WrongStateError(f"entry {entry_id} is not to be settled")

    def deliver(self, entry_ids: Sequence[str]) -> None:
        """Mark completed entries as delivered."""
        now = microseconds(datetime.now(UTC))
        self._connection.executemany(
            "UPDATE entry SET state = 'delivered', ended_at = ? "
            "WHERE id = ? AND state = 'completed'",
            [(now, entry_id) for entry_id in entry_ids],
        )

    def remember_identity(self, identity: str, *, and_put_again: bool) -> None:
        """Keep the identity of the store's server; it may lack what another one has taken."""
        self._connection.execute("DELETE FROM delivered_to")
        self._connection.execute("INSERT INTO delivered_to (identity) VALUES (?)", (identity,))
        if and_put_again:
            self.owed.everything()

    def put_again(self) -> int:
        """Have everything put again, delivered or parked; return how many entries it is."""
        self.owed.everything()
        return self._connection.execute(
            f"UPDATE entry SET ended_at = NULL WHERE {PARKED}"  # noqa: S608 - a constant
        ).rowcount

    def reclaim(self, rows: Sequence[Row]) -> None:
        """Take delivered entries for undelivered."""
        self._connection.executemany(
            "UPDATE entry SET state = 'completed', ended_at = NULL "
            "WHERE id = ? AND state = 'delivered'",
            [(row.id,) for row in rows],
        )

    def purge(self, *, ended_before: datetime, at_most: int) -> int:
        """Forget entries that ended before then, unless something is owed."""
        if self.owed.is_any():
            return 0
        return self._connection.execute(
            "DELETE FROM entry WHERE sequence IN (SELECT sequence FROM entry "  # noqa: S608
            f"WHERE {_ENDED} AND ended_at < ? LIMIT ?)",
            (microseconds(ended_before), at_most),
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

    def in_doubt(self, registry: str, behind: str | None, *, at_most: int) -> list[Row]:
        """Return the oldest entries in doubt of one registry that come after the entry `behind`."""
        return self._rows(
            "WHERE state = 'in_doubt' AND registry = ? AND sequence > "
            "COALESCE((SELECT sequence FROM entry WHERE id = ?), 0) ORDER BY sequence LIMIT ?",
            (registry, behind, at_most),
        )

    def doubts(self) -> dict[str, int]:
        """Return how many entries of each registry are in doubt."""
        counted = "SELECT registry, COUNT(*) FROM entry WHERE state = 'in_doubt' GROUP BY registry"
        return dict(self._connection.execute(counted).fetchall())

    def pending(self, *, at_most: int, beyond: int = 0) -> list[Row]:
        """Return the oldest entries that are to be put, behind so many that are older."""
        return self._rows(f"WHERE {DUE} ORDER BY sequence LIMIT ? OFFSET ?", (at_most, beyond))

    def for_a_person(self) -> list[Row]:
        """Return the entries that are in doubt, then those that are parked."""
        return [
            *self._rows(f"WHERE state = '{EntryState.IN_DOUBT}' ORDER BY sequence", ()),
            *self._rows(f"WHERE {PARKED} ORDER BY sequence", ()),
        ]

    def count_parked(self) -> int:
        """Return how many entries are parked."""
        return self._count(PARKED)

    def count_delivered(self) -> int:
        """Return how many entries are delivered; the whole file is read."""
        return self._count("state = 'delivered'")

    def count(self) -> int:
        """Return how many entries there are; the whole file is read."""
        return self._count("TRUE")

    def some(self, *, at_most: int, ended_after: datetime) -> list[Row]:
        """Return some entries: open ones, while there are any; then those that ended after then."""
        for condition in _OPEN:
            if rows := self._rows(f"WHERE {condition} ORDER BY sequence LIMIT ?", (at_most,)):
                return rows
        return self._rows(
            f"WHERE {_ENDED} AND ended_at > ? ORDER BY ended_at LIMIT ?",
            (microseconds(ended_after), at_most),
        )

    def find(self, entry_id: str) -> Row | None:
        """Return one entry."""
        return next(iter(self._rows("WHERE id = ?", (entry_id,))), None)

    def everything(self) -> list[Row]:
        """Return every entry."""
        return self._rows("ORDER BY sequence", ())

    def _count(self, condition: str) -> int:
        counted = f"SELECT COUNT(*) FROM entry WHERE {condition}"  # noqa: S608 - constants
        found: int = self._connection.execute(counted).fetchone()[0]
        return found

    def _rows(self, condition: str, parameters: tuple[object, ...]) -> list[Row]:
        found = self._connection.execute(f"{SELECT_ENTRY} {condition}", parameters)
        return [row_of(row) for row in found]

    def _check(self) -> None:
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(str(found))
        # A row may be whole for SQLite and make no sense.
        for state in (EntryState.BEGUN, EntryState.IN_DOUBT):
            for row in self._connection.execute(f"{SELECT_ENTRY} WHERE state = '{state.value}'"):
                row_of(row)
        completed = f"{SELECT_ENTRY} WHERE state = '{EntryState.COMPLETED}'"
        rows = map(row_of, self._connection.execute(completed))
        self.reopen([row.id for row in rows if not row.is_whole])


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" for _ in values)
