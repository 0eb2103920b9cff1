"""The embedded store: one SQLite file, by aiosqlite, for the workers of one host.

WAL with `synchronous=FULL`: at NORMAL a committed row may be lost at power loss. One connection
writes, one reads, so that a look-up never waits for a commit; each is a thread of aiosqlite's, and
a statement runs to its end there even if the request that asked for it is cancelled.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import aiosqlite

from relproxy.errors import BadRequestError, StoreRefusedError, StoreUnavailableError
from relproxy.model import (
    Burial,
    Capture,
    Change,
    Grade,
    ImageKey,
    ImageRecord,
    Instance,
    InstanceQuery,
    OwnerChange,
    Ownership,
)
from relproxy.store.base import Kept, RelationPage, RelationQuery

_Parameters = tuple[str | int | None, ...] | dict[str, str | int]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BUSY_TIMEOUT_S = 5.0

# The project of a record never changes, and a claim never replaces what a trusted source said.
_PUT = """
INSERT INTO image_record
    (registry, image_id, created_at, project, installation, instance_id, grade, recorded_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (registry, image_id, created_at) DO UPDATE SET
    installation = excluded.installation,
    instance_id = excluded.instance_id,
    grade = excluded.grade
WHERE image_record.project = excluded.project
  AND excluded.grade IS NOT NULL
  AND (image_record.grade IS NULL
       OR (image_record.grade = 'claimed' AND excluded.grade = 'vouched'))
"""

_OWNERS = """
SELECT image_id, project, created_at FROM image_record
WHERE registry = ? AND image_id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
ORDER BY sequence
"""

_IMAGES_OF_INSTANCE = """
SELECT image_id, created_at FROM image_record
WHERE registry = :registry AND instance_id = :instance_id AND deleted_at IS NULL
  AND (:installation IS NULL OR installation = :installation)
  AND (:project IS NULL OR project = :project)
ORDER BY sequence DESC
"""

_IMAGES_OF_PROJECT = """
SELECT DISTINCT image_id FROM image_record
WHERE project = ? AND registry = ? AND deleted_at IS NULL LIMIT ?
"""

_BURY = """
UPDATE image_record SET deleted_at = :at
WHERE registry = :registry AND image_id = :image_id AND recorded_at <= :at AND deleted_at IS NULL
"""

_CHANGE_OWNER = """
UPDATE image_record SET project = :project, project_since = :at
WHERE registry = :registry AND image_id = :image_id AND created_at = :created_at
  AND project_since < :at
"""

_RELATIONS = """
SELECT sequence, registry, image_id, created_at, project, installation, instance_id, grade,
       recorded_at, deleted_at
FROM image_record
WHERE sequence < :before {narrowed}
ORDER BY sequence DESC LIMIT :limit
"""

# Only the conditions that were asked for: "OR :x IS NULL" would keep SQLite from any index.
_NARROWED = {
    "instance_id": "AND instance_id = :instance_id",
    "installation": "AND installation = :installation",
    "image_id": "AND image_id = :image_id",
    "project": "AND project = :project",
}

_NEWEST = 2**63 - 1


_WALK = """
SELECT sequence, registry, image_id, created_at, project, installation, instance_id, grade,
       recorded_at, deleted_at, project_since
FROM image_record WHERE sequence > ? ORDER BY sequence LIMIT ?
"""
_WALKED_AT_ONCE = 500

_PURGE = """
DELETE FROM image_record WHERE sequence IN
    (SELECT sequence FROM image_record WHERE deleted_at < ? LIMIT ?)
"""

_STATEMENTS: dict[type, str] = {ImageRecord: _PUT, Burial: _BURY, OwnerChange: _CHANGE_OWNER}


class SqliteStore:
    """See `relproxy.store.base.Store`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: aiosqlite.Connection | None = None
        self._writer: aiosqlite.Connection | None = None
        # A transaction belongs to its connection: two writers at once would share one.
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """Open the file, make it durable, and apply the schema versions that it lacks."""
        try:
            # First without aiosqlite: its thread outlives a connection that can't be opened, and
            # then writes a traceback of its own.
            await asyncio.to_thread(_prepare, self._path)
            self._writer = await self._connected()
            self._reader = await self._connected()
            await self._reader.execute("PRAGMA query_only = ON")
        except (sqlite3.Error, OSError) as failure:
            why = failure.strerror if isinstance(failure, OSError) else failure
            reason = f"The store {self._path} can't be opened: {why}."
            raise StoreRefusedError(reason) from failure

    async def close(self) -> None:
        """Close both connections; harmless if they never opened."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                await connection.close()
        self._reader = self._writer = None

    async def put(self, changes: Sequence[Change]) -> str | None:
        """Write changes in one transaction; a SQLite file has no server that could be replaced."""
        if not changes:
            return None
        async with self._transaction() as writer:
            await writer.executemany(
                "INSERT OR IGNORE INTO registry (name) VALUES (?)",
                [(name,) for name in {change.registry for change in changes}],
            )
            for kind, run in itertools.groupby(changes, type):
                await writer.executemany(_STATEMENTS[kind], [_columns(c) for c in run])
        return None

    async def claim(self, host: str, *, by_force: bool = False) -> None:
        """Remember the one host: over a network neither SQLite's locks nor its WAL hold."""
        async with self._transaction() as writer:
            if by_force:
                await writer.execute("DELETE FROM host")
            await writer.execute(
                "INSERT INTO host (identity) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM host)",
                (host,),
            )
            rows = list(await writer.execute_fetchall("SELECT identity FROM host"))
        if rows[0][0] != host:
            raise StoreRefusedError(
                f"The store {self._path} belongs to another host, whose journals are {rows[0][0]} "
                f"(here: {host}). If that host will never write it again, or its journals are "
                "lost, run `relproxy store claim`; several hosts share a PostgreSQL."
            )

    async def registries(self) -> frozenset[str]:
        """Read the names that were ever put."""
        async with self._connection(self._reader) as reader:
            rows = await reader.execute_fetchall("SELECT name FROM registry")
        return frozenset(row[0] for row in rows)

    async def rename_registry(self, old: str, new: str) -> None:
        """Rename in one transaction."""
        names = await self.registries()
        if old not in names:
            raise BadRequestError(f"No record names a registry '{old}'.")
        if new in names:
            raise BadRequestError(f"Records name a registry '{new}' already.")
        async with self._transaction() as writer:
            for table, column in (("registry", "name"), ("image_record", "registry")):
                await writer.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {column} = ?",  # noqa: S608 - constants
                    (new, old),
                )

    async def walk(self, after: str | None) -> AsyncIterator[Sequence[Kept]]:
        """Walk by sequence."""
        place = _sequence(after or "0")
        while True:
            async with self._connection(self._reader) as reader:
                rows = list(await reader.execute_fetchall(_WALK, (place, _WALKED_AT_ONCE)))
            if not rows:
                return
            place = rows[-1][0]
            yield [_kept(row) for row in rows]

    async def purge(self, *, deleted_before: datetime, at_most: int) -> int:
        """Forget by the index of what is deleted."""
        async with self._writing, self._connection(self._writer) as writer:
            cursor = await writer.execute(_PURGE, (_microseconds(deleted_before), at_most))
            return cursor.rowcount

    async def check(self) -> None:
        """Read one page of the schema."""
        async with self._connection(self._reader) as reader:
            await reader.execute_fetchall("SELECT 1 FROM image_record LIMIT 1")

    async def owners(self, registry: str, image_ids: Collection[str]) -> Mapping[str, Ownership]:
        """Look a whole page up in one statement."""
        async with self._connection(self._reader) as reader:
            rows = await reader.execute_fetchall(_OWNERS, (registry, json.dumps(list(image_ids))))
        return {image_id: Ownership(project, created) for image_id, project, created in rows}

    async def images_of_instance(self, registry: str, query: InstanceQuery) -> Sequence[ImageKey]:
        """Look an instance's images up by their index."""
        parameters = {
            "registry": registry,
            "instance_id": query.instance_id,
            "installation": query.installation,
            "project": query.project,
        }
        async with self._connection(self._reader) as reader:
            rows = await reader.execute_fetchall(_IMAGES_OF_INSTANCE, parameters)
        return [ImageKey(image_id, created_at) for image_id, created_at in rows]

    async def images_of_project(
        self, registry: str, project: str, *, at_most: int
    ) -> Sequence[str] | None:
        """Look a project's images up, one more than asked for to see whether there are more."""
        async with self._connection(self._reader) as reader:
            rows = await reader.execute_fetchall(
                _IMAGES_OF_PROJECT, (project, registry, at_most + 1)
            )
        ids = [row[0] for row in rows]
        return None if len(ids) > at_most else ids

    async def relations(
        self, query: RelationQuery, *, limit: int, cursor: str | None
    ) -> RelationPage:
        """Walk the records backwards by their sequence, which is the cursor."""
        asked = {n: value for n in _NARROWED if (value := getattr(query, n)) is not None}
        statement = _RELATIONS.format(narrowed=" ".join(_NARROWED[name] for name in asked))
        parameters = {"before": _sequence(cursor), "limit": limit + 1, **asked}
        async with self._connection(self._reader) as reader:
            rows = list(await reader.execute_fetchall(statement, parameters))
        following = str(rows[limit - 1][0]) if len(rows) > limit else None
        return RelationPage(tuple(_record(row) for row in rows[:limit]), following)

    async def _connected(self) -> aiosqlite.Connection:
        connection = await aiosqlite.connect(
            self._path, isolation_level=None, timeout=_BUSY_TIMEOUT_S
        )
        await connection.execute("PRAGMA synchronous = FULL")
        return connection

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Lend the connection that writes, in a transaction that ends with the context."""
        async with self._writing, self._connection(self._writer) as writer:
            try:
                await writer.execute("BEGIN IMMEDIATE")
                yield writer
                await writer.commit()
            except BaseException:
                await writer.rollback()
                raise

    @asynccontextmanager
    async def _connection(
        self, connection: aiosqlite.Connection | None
    ) -> AsyncIterator[aiosqlite.Connection]:
        if connection is None:
            raise StoreUnavailableError("The store is not open.")
        with _translated():
            yield connection


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the driver's errors into the one that the flow knows."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as failure:
        # ValueError is how aiosqlite says that a connection was closed.
        raise StoreUnavailableError("The store can't be read or written now.") from failure


def _prepare(path: Path) -> None:
    """Make the file durable and apply the schema versions that it lacks, once for all workers.

    Under a lock of its own: SQLite itself refuses the second of two that switch to WAL at once.
    """
    with Path(f"{path}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection)


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply every schema file that is newer than the database, each in one transaction."""
    present: int = connection.execute("PRAGMA user_version").fetchone()[0]
    versions = _schema_versions()
    if present > len(versions):
        raise StoreRefusedError(
            f"The store's schema is version {present}, and this relproxy knows {len(versions)}: "
            "it was written by a newer relproxy."
        )
    for number, script in enumerate(versions[present:], start=present + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;"
        )


def _schema_versions() -> list[str]:
    """Return the schema scripts, in the order of their numbers."""
    room = resources.files("relproxy.store") / "schema"
    files = sorted(
        (f for f in room.iterdir() if f.name.startswith("sqlite-")), key=lambda f: f.name
    )
    return [file.read_text(encoding="utf-8") for file in files]


def _columns(change: Change) -> _Parameters:
    match change:
        case ImageRecord():
            return _record_columns(change)
        case Burial(registry, image_id, at):
            return {"registry": registry, "image_id": image_id, "at": _microseconds(at)}
        case OwnerChange(registry, image_id, created_at, project, at):
            return {
                "registry": registry,
                "image_id": image_id,
                "at": _microseconds(at),
                "created_at": created_at,
                "project": project,
            }


def _record_columns(record: ImageRecord) -> tuple[str | int | None, ...]:
    capture = record.capture
    return (
        record.registry,
        record.image_id,
        record.created_at,
        record.project,
        capture.instance.installation if capture else None,
        capture.instance.id if capture else None,
        capture.grade.value if capture else None,
        _microseconds(record.recorded_at),
    )


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _record(row: Iterable[Any]) -> ImageRecord:
    _, registry, image_id, created_at, project, installation, instance_id, grade, at, dead = row
    capture = None
    if instance_id is not None:
        capture = Capture(Instance(installation, instance_id), Grade(grade))
    recorded_at = _EPOCH + at * _MICROSECOND
    deleted_at = None if dead is None else _EPOCH + dead * _MICROSECOND
    return ImageRecord(registry, image_id, created_at, project, capture, recorded_at, deleted_at)


def _kept(row: sqlite3.Row) -> Kept:
    *columns, since = row
    return Kept(_record(columns), _EPOCH + since * _MICROSECOND if since else None, str(row[0]))


def _sequence(cursor: str | None) -> int:
    if cursor is None:
        return _NEWEST
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < len(str(_NEWEST))):
        raise BadRequestError("'cursor' is not one that this relproxy gave.")
    return int(cursor)
