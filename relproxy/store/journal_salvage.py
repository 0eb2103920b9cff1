"""Replacing a broken journal file by one that holds what can still be read of it.

A disk may be full, and a process may die, at any moment of it. So the new file is whole and synced
before the broken one is touched; then it gets a name that says so, and from then on whoever opens
the journal goes on where it was left. The journal's own name is never without a file.
"""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from relproxy.store.journal_disk import is_of_the_disk, sync_directory
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_row import NONSENSE, SELECT_ENTRY, Row, row_of

_LOG = logging.getLogger(__name__)

_AT_ONCE = 500
# No entry takes less of a file, in bytes: two UUIDs are in it. Of a first or last place that makes
# no sense not every place up to it is looked at.
_SMALLEST = 64
_BESIDE = ("-wal", "-shm")


def replace_broken(path: Path) -> int:
    """Put a file with what can be read in the place of a broken one, which is renamed.

    Returns how many entries that is. Raises `sqlite3.Error` and `OSError`, and has lost nothing.
    """
    made = path.with_name(f"{path.name}.salvage")
    for suffix in ("", *_BESIDE):
        Path(f"{made}{suffix}").unlink(missing_ok=True)
    file = JournalFile(made)
    try:
        rows = salvaged(path)
        while some := list(itertools.islice(rows, _AT_ONCE)):
            _add(file, some)
        (owed,) = file.together([file.owed.everything])
        if isinstance(owed, Exception):
            raise owed
        entries = file.count()
        file.close_as_one_file()
    finally:
        file.close()
    made.rename(_whole(path))
    sync_directory(path.parent)
    finish_replacing(path)
    return entries


def finish_replacing(path: Path) -> None:
    """Go on with what a crash may have broken off; raises `OSError`."""
    whole = _whole(path)
    if not whole.exists():
        return
    aside = path.with_name(f"{path.name}.broken-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    # First what is beside it: SQLite would take it for the new file's.
    for suffix in _BESIDE:
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    sync_directory(path.parent)
    with suppress(FileNotFoundError):
        os.link(path, aside)
    whole.replace(path)
    sync_directory(path.parent)
    _LOG.error("journal set aside", extra={"path": str(path), "aside": str(aside)})


def salvaged(path: Path) -> Iterator[Row]:
    """Read from a broken journal file what can be read, a row at a time, some more than once."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
        is_whole = yield from _in_order(connection, "ASC")
        if is_whole:
            return
        yield from _in_order(connection, "DESC")
        # What is between two broken places.
        places = path.stat().st_size // _SMALLEST
        first = max(1, _sequence(connection, "MIN"))
        last = _sequence(connection, "MAX") or first + places
        for sequence in _within(first, last, places):
            with suppress(sqlite3.Error, *NONSENSE):
                for row in connection.execute(f"{SELECT_ENTRY} WHERE sequence = ?", (sequence,)):
                    yield row_of(row)


def _in_order(connection: sqlite3.Connection, order: str) -> Generator[Row, None, bool]:
    """Read as far as it goes; return whether that was all."""
    with suppress(sqlite3.Error):
        for row in connection.execute(f"{SELECT_ENTRY} ORDER BY sequence {order}"):
            with suppress(*NONSENSE):
                yield row_of(row)
        return True
    return False


def _within(first: int, last: int, places: int) -> Iterator[int]:
    """Yield what is from the first to the last, or so many places from either end."""
    if last - first <= 2 * places:
        yield from range(first, last + 1)
    else:
        yield from range(first, first + places)
        yield from range(last - places, last + 1)


def _add(file: JournalFile, rows: list[Row]) -> None:
    """Write rows; one that can't be written is none. Raises `sqlite3.Error` for the disk's."""
    for result in file.together([lambda row=row: file.add([row]) for row in rows]):  # type: ignore[misc]
        if isinstance(result, Exception):
            if is_of_the_disk(result):
                raise result
            _LOG.error("entry not carried over", extra={"path": str(file.path)}, exc_info=result)


def _whole(path: Path) -> Path:
    """Return the name of a file that is to take a broken one's place."""
    return path.with_name(f"{path.name}.salvaged")


def _sequence(connection: sqlite3.Connection, which: str) -> int:
    """Return the first or the last place in the file; 0 where that can't be read."""
    with suppress(sqlite3.Error):
        found = connection.execute(f"SELECT {which}(sequence) FROM entry").fetchone()[0]  # noqa: S608
        return found if isinstance(found, int) else 0
    return 0
