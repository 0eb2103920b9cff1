"""A SQLite store that is only read: beside one that is written, and without any."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relproxy.errors import StoreUnavailableError
from relproxy.model import ImageRecord, Ownership
from relproxy.store.base import RelationQuery
from relproxy.store.sqlite import SqliteStore
from relproxy.store.sqlite_reader import SqliteReader

CREATED = "2030-01-01T00:00:00Z"
RECORD = ImageRecord("glance", "a", CREATED, "alice", None, datetime(2030, 1, 1, tzinfo=UTC))


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_it_reads_what_another_has_open_and_writes(tmp_path: Path) -> None:
    writer, reader = SqliteStore(tmp_path / "s.db"), SqliteReader(tmp_path / "s.db")
    await writer.open()
    await writer.put([RECORD])
    await reader.open()
    assert await reader.owners("glance", ["a"]) == {"a": Ownership("alice", CREATED)}
    found = await reader.records(RelationQuery(image_id="a"), limit=9, before=None)
    assert found == [RECORD]
    await writer.close()
    before = names_in(tmp_path)
    assert set(await reader.owners("glance", ["a"])) == {"a"}
    await reader.close()
    assert names_in(tmp_path) == before


async def test_it_never_writes(tmp_path: Path) -> None:
    writer, reader = SqliteStore(tmp_path / "s.db"), SqliteReader(tmp_path / "s.db")
    await writer.open()
    with pytest.raises(StoreUnavailableError):
        await reader.put([RECORD])
    assert await writer.owners("glance", ["a"]) == {}
    await writer.close()


async def test_it_makes_no_file_and_says_that_there_is_none(tmp_path: Path) -> None:
    reader = SqliteReader(tmp_path / "s.db")
    with pytest.raises(StoreUnavailableError, match="can't be read: unable to open"):
        await reader.owners("glance", ["a"])
    await reader.close()
    assert names_in(tmp_path) == []


async def test_it_migrates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 0")
        database.execute("CREATE TABLE other (x)")
    before = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="schema is version 0, and this relproxy knows"):
        await SqliteReader(path).owners("glance", ["a"])
    assert path.read_bytes() == before
