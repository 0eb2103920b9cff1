"""What only the SQLite store promises."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relproxy.errors import StoreRefusedError
from relproxy.model import OwnerChange
from relproxy.store import sqlite_sql
from relproxy.store.schema_versions import schema_versions
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


async def test_a_file_of_version_3_is_brought_up_to_date_with_its_records(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    created = "2030-01-01T00:00:00Z"
    with closing(sqlite3.connect(path)) as database:
        for script in schema_versions("sqlite")[:3]:
            database.executescript(script)
        database.execute("PRAGMA user_version = 3")
        database.execute("INSERT INTO registry VALUES ('glance')")
        database.executemany(
            "INSERT INTO image_record (registry, image_id, created_at, project, recorded_at, "
            "deleted_at, project_since) VALUES ('glance', ?, ?, ?, 1000000, ?, ?)",
            [("a", created, "alice", None, 0), ("b", created, "bob", 5_000_000, 2_000_001)],
        )
        database.commit()
    store = SqliteStore(path)
    await store.open()
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1)
    records = [k.record async for batch in store.walk(None) for k in batch]
    assert [(r.image_id, r.project, r.recorded_at, r.deleted_at) for r in records] == [
        ("a", "alice", moment, None),
        ("b", "bob", moment, moment + timedelta(seconds=4)),
    ]
    changes = [change async for batch in store.walk_changes() for change in batch]
    since = moment + timedelta(seconds=1, microseconds=1)
    assert changes == [OwnerChange("glance", "b", created, "bob", since)]
    # An earlier change is nothing beside the one that the file had already.
    await store.put([OwnerChange("glance", "b", created, "carol", moment)])
    assert [k.record async for batch in store.walk(None) for k in batch] == records
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [sqlite_sql.KNOWN, *sqlite_sql.TAKE_OWNERS, *sqlite_sql.TAKE_BURIALS, sqlite_sql.CHANGES],
)
async def test_what_is_kept_is_looked_up_by_an_index(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    with closing(sqlite3.connect(path)) as database:
        plan = database.execute(f"EXPLAIN QUERY PLAN {statement}", {"ids": "[]"}).fetchall()
    read_whole = {row[-1].split()[1] for row in plan if row[-1].startswith("SCAN")}
    assert not read_whole & {"image_record", "owner_change", "burial"}, plan


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
