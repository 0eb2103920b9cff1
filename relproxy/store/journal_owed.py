"""What a journal owes to the store once more: entries that a server took which may be no more.

A standby was promoted, or a backup restored: what was delivered is put again. From the newest to
the oldest, because the newest are what a standby lacks, a page at a time, and what is left to do is
in the file: a crash in between goes on from there. The entries stay DELIVERED all the while, so
that nobody who reads the journals takes an old change of an owner for a pending one.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from relproxy.store.base import EntryState
from relproxy.store.journal_row import COLUMNS, Row, row_of

_PAGE = (
    f"SELECT sequence, {COLUMNS} FROM entry "  # noqa: S608 - constants
    f"WHERE sequence > ? AND sequence < ? AND state = '{EntryState.DELIVERED}' "
    "ORDER BY sequence DESC LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class OwedPage:
    """Entries that are owed, oldest first; once they are put, what is `until` there is left."""

    rows: list[Row]
    until: int
    owed: int


class Owed:
    """The debts of one open journal file; what changes them is called inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def everything(self) -> None:
        """Owe everything that is delivered now."""
        self._connection.execute("DELETE FROM owed")
        self.behind(0)

    def behind(self, sequence: int) -> None:
        """Owe what is delivered now and was written after this place."""
        self._connection.execute(
            "INSERT INTO owed (behind, until) SELECT ?, last + 1 "
            "FROM (SELECT MAX(sequence) AS last FROM entry) WHERE last > ?",
            (sequence, sequence),
        )

    def is_any(self) -> bool:
        """Tell whether something is owed."""
        return self._connection.execute("SELECT 1 FROM owed LIMIT 1").fetchone() is not None

    def page(self, *, at_most: int) -> OwedPage | None:
        """Return the newest entries that are owed; None where nothing is."""
        found = self._connection.execute(
            "SELECT rowid, behind, until FROM owed ORDER BY until DESC LIMIT 1"
        ).fetchone()
        if found is None:
            return None
        owed, behind, until = found
        rows = self._connection.execute(_PAGE, (behind, until, at_most)).fetchall()
        left = rows[-1][0] if len(rows) == at_most else behind + 1
        return OwedPage([row_of(row[1:]) for row in reversed(rows)], left, owed)

    def pay(self, page: OwedPage) -> None:
        """Owe what is left behind a page."""
        self._connection.execute(
            "UPDATE owed SET until = ? WHERE rowid = ?", (page.until, page.owed)
        )
        self._connection.execute("DELETE FROM owed WHERE until <= behind + 1")
