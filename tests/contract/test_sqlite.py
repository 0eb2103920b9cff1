"""What only the SQLite store promises."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from relproxy.errors import StoreRefusedError
from relproxy.store.sqlite import SqliteStore
from relproxy.store.sqlite_sql import records


async def test_a_schema_of_a_newer_relproxy_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    newer = SqliteStore(path)
    with pytest.raises(StoreRefusedError, match="written by a newer relproxy"):
        await newer.open()
    await newer.close()


async def test_a_second_host_is_refused_until_it_claims_the_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    for _ in range(2):
        await store.claim("east")
    with pytest.raises(StoreRefusedError, match="belongs to another host, whose journals are east"):
        await store.claim("west")
    await store.claim("west", by_force=True)
    with pytest.raises(StoreRefusedError, match="west"):
        await store.claim("east")
    await store.claim("west")
    await store.close()


async def test_records_are_synced_before_they_are_acknowledged(tmp_path: Path) -> None:
    """WAL with synchronous=FULL: at NORMAL a committed row may be lost at power loss."""
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    assert store._writer is not None  # noqa: SLF001 - nothing else shows the pragma
    for pragma, value in (("synchronous", 2), ("journal_mode", "wal")):
        rows = list(await store._writer.execute_fetchall(f"PRAGMA {pragma}"))  # noqa: SLF001
        assert rows[0][0] == value
    assert (tmp_path / "store.db-wal").exists()
    await store.close()


@pytest.mark.parametrize("asked", ["instance_id", "image_id", "project"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_pages_of_records_are_read_by_an_index(
    tmp_path: Path, asked: str, *, is_first: bool
) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    place = {"recorded_at": 1, "image_id_before": "", "created_at": "", "registry": ""}
    with closing(sqlite3.connect(path)) as database:
        statement = f"EXPLAIN QUERY PLAN {records({asked: 'x'}, is_first=is_first)}"
        plan = database.execute(statement, {asked: "x", "limit": 9, **place}).fetchall()
    assert plan[0][-1].startswith("SEARCH image_record USING INDEX"), plan
