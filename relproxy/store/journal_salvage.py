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
