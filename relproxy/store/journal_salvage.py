"""Reading from a broken journal file what can still be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from relproxy.store.journal_row import NONSENSE, SELECT_ENTRY, Row, row_of


def salvaged(path: Path) -> Iterator[Row]:
    """Read from a broken journal file what can be read, a row at a time."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        last, first = _sequence(connection, "MAX"), _sequence(connection, "MIN")
        if not last:
            with suppress(sqlite3.Error):
                for row in connection.execute(SELECT_ENTRY):
                    with suppress(*NONSENSE):
                        yield row_of(row)
        for sequence in range(max(1, first), last + 1):
            with suppress(sqlite3.Error, *NONSENSE):
                for row in connection.execute(f"{SELECT_ENTRY} WHERE sequence = ?", (sequence,)):
                    yield row_of(row)


def _sequence(connection: sqlite3.Connection, which: str) -> int:
    """Return the first or the last place in the file; 0 where that can't be read."""
    with suppress(sqlite3.Error):
        found = connection.execute(f"SELECT {which}(sequence) FROM entry").fetchone()[0]  # noqa: S608
        return found if isinstance(found, int) else 0
    return 0
