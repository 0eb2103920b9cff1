from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relproxy.store.base import EntryState
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_row import COLUMNS, Row, values_of
from relproxy.store.schema_versions import schema_versions
from tests.entries import completed, doubtful

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def first_version(path: Path, *rows: Row) -> None:
    """Leave a journal as the first relproxy wrote it."""
    marks = ", ".join("?" for _ in COLUMNS.split(", "))
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(schema_versions("journal")[0])
        for row in rows:
            database.execute(f"INSERT INTO entry ({COLUMNS}) VALUES ({marks})", values_of(row))  # noqa: S608
        database.execute("PRAGMA user_version = 1")


def test_a_journal_of_the_first_version_is_brought_up_to_date_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.db"
    rows = [
        doubtful("a", state=EntryState.BEGUN),
        doubtful("b"),
        completed("c"),
        completed("d", state=EntryState.DELIVERED, ended_at=NOW),
        doubtful("e", state=EntryState.ABANDONED, ended_at=NOW),
    ]
    first_version(path, *rows)
    file = JournalFile(path)
    assert file.everything() == rows
    assert [row.image_id for row in file.pending(at_most=9)] == ["c"]
    file.together([lambda: file.park(rows[2].id, "why")])
    assert file.pending(at_most=9) == []
    file.close()
    with closing(sqlite3.connect(path)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
    assert version == len(schema_versions("journal"))


def test_an_entry_that_lost_what_it_says_is_in_doubt_when_the_journal_is_opened(
    tmp_path: Path,
) -> None:
    path = tmp_path / "worker-0.db"
    whole, damaged = completed("a"), completed("b", created_at=None)
    first_version(path, whole, damaged)
    file = JournalFile(path)
    assert [row.id for row in file.pending(at_most=9)] == [whole.id]
    assert [row.id for row in file.in_state(EntryState.IN_DOUBT, at_most=9)] == [damaged.id]
    file.close()


@pytest.mark.parametrize("is_new", [True, False])
def test_a_journal_is_brought_up_to_date_once_whoever_opens_it(
    tmp_path: Path, *, is_new: bool
) -> None:
    path = tmp_path / "worker-0.db"
    row = replace(completed("a"), reason=None)
    if not is_new:
        first_version(path, row)
    failures: list[BaseException] = []
    started = threading.Barrier(8)

    def look() -> None:
        started.wait()
        try:
            JournalFile(path).close()
        except BaseException as failure:  # noqa: BLE001 - for the assertion
            failures.append(failure)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    file = JournalFile(path)
    assert file.everything() == ([] if is_new else [row])
    file.close()
