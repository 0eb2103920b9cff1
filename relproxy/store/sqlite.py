"""The embedded store: one SQLite file, by aiosqlite, for the workers of one host.

WAL with `synchronous=FULL`: at NORMAL a committed row may be lost at power loss. One connection
writes, one reads, so that a look-up never waits for a commit; each is a thread of aiosqlite's, and
a statement runs to its end there even if the request that asked for it is cancelled.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiosqlite

from relproxy.errors import (
    BadRequestError,
    RecordRefusedError,
    StoreRefusedError,
    StoreUnavailableError,
)
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
from relproxy.store.base import Kept, RelationQuery, check_renaming
from relproxy.store.place import Place, not_a_place
from relproxy.store.schema_versions import schema_versions
from relproxy.store.sqlite_changes import change_of, microseconds, moment, write
from relproxy.store.sqlite_sql import (
    CHANGES,
    FORGET_OWNERS,
    FREE_NAME,
    IMAGES_OF_INSTANCE,
    IMAGES_OF_PROJECT,
    OWNERS,
    PURGE,
    RECORDS_OF,
    REMEMBER_RENAMED,
    RENAMED,
    RENAMED_IN,
    WALK,
    WALK_BURIALS,
    WALK_OWNERS,
    records,
)

_BUSY_TIMEOUT_S = 5.0

# What can't be encoded, a number out of range, a text too large, a null where none may be.
_UNFIT = (UnicodeEncodeError, OverflowError, sqlite3.DataError, sqlite3.IntegrityError)
_WALKED_AT_ONCE = 500
# The parameters of `records` that say a place, in its order.
_PLACE = ("recorded_at", "image_id_before", "created_at", "registry")
_BEFORE_ALL = ("", "", "", None, -1)


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
            await write(writer, changes)
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
        check_renaming(old, new, await self.registries(), await self.renamed())
        async with self._transaction() as writer:
            await writer.execute(FREE_NAME, (new,))
            for table, column in RENAMED_IN:
                await writer.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {column} = ?",  # noqa: S608 - constants
                    (new, old),
                )
            await writer.execute(REMEMBER_RENAMED, (old, new))

    async def renamed(self) -> Mapping[str, str]:
        """Read the old names."""
        async with self._connection(self._reader) as reader:
            return {row[0]: row[1] for row in await reader.execute_fetchall(RENAMED)}

    async def take_for_renamed(self, old: str, new: str) -> None:
        """Write one old name."""
        if old in await self.registries():
            raise BadRequestError(f"Records name a registry '{old}' already.")
        async with self._transaction() as writer:
            await writer.execute(REMEMBER_RENAMED, (old, new))

    async def free_name(self, old: str) -> None:
        """Forget one old name."""
        async with self._transaction() as writer:
            freed = await writer.execute(FREE_NAME, (old,))
        if not freed.rowcount:
            raise BadRequestError(f"'{old}' is no registry's old name.")

    async def walk(self, after: str | None) -> AsyncIterator[Sequence[Kept]]:
        """Walk by sequence."""
        place = _sequence(after or "0")
        while True:
            async with self._connection(self._reader) as reader:
                rows = list(await reader.execute_fetchall(WALK, (place, _WALKED_AT_ONCE)))
            if not rows:
                return
            place = rows[-1][-1]
            yield [_kept(row) for row in rows]

    async def walk_changes(self) -> AsyncIterator[Sequence[OwnerChange | Burial]]:
        """Walk by their keys."""
        for statement in (WALK_OWNERS, WALK_BURIALS):
            place: tuple[Any, ...] = _BEFORE_ALL
            while True:
                bound = (*place, _WALKED_AT_ONCE)
                async with self._connection(self._reader) as reader:
                    rows = list(await reader.execute_fetchall(statement, bound))
                if not rows:
                    break
                place = tuple(rows[-1])
                yield [change_of(row) for row in rows]

    async def purge(self, *, deleted_before: datetime, at_most: int) -> int:
        """Forget by the indexes of what is deleted, and of what is kept."""
        forgotten = 0
        async with self._transaction() as writer:
            for statement in PURGE:
                bound = {"before": microseconds(deleted_before), "most": at_most - forgotten}
                if statement is PURGE[0]:
                    await writer.execute(FORGET_OWNERS, bound)
                forgotten += (await writer.execute(statement, bound)).rowcount
        return forgotten

    async def changes(self, image_ids: Collection[str]) -> Sequence[OwnerChange | Burial]:
        """Look up what is kept, and the records of the dead."""
        asked = {"ids": json.dumps(list(image_ids))}
        async with self._connection(self._reader) as reader:
            return [change_of(row) for row in await reader.execute_fetchall(CHANGES, asked)]

    async def check(self) -> None:
        """Read one page of the schema."""
        async with self._connection(self._reader) as reader:
            await reader.execute_fetchall("SELECT 1 FROM image_record LIMIT 1")

    async def owners(self, registry: str, image_ids: Collection[str]) -> Mapping[str, Ownership]:
        """Look a whole page up in one statement."""
        async with self._connection(self._reader) as reader:
            rows = await reader.execute_fetchall(OWNERS, (registry, json.dumps(list(image_ids))))
        return {
            image_id: Ownership(project, created, bool(imported))
            for image_id, project, created, imported in rows
        }

    async def images_of_instance(self, registry: str, query: InstanceQuery) -> Sequence[ImageKey]:
        """Look an instance's images up by their index."""
        parameters = {
            "registry": registry,
            "instance_id": query.instance_id,
            "installation": query.installation,
            "project": query.project,
        }
        async with self._connection(self._reader) as reader:
            rows = await reader.execute_fetchall(IMAGES_OF_INSTANCE, parameters)
        return [ImageKey(image_id, created_at) for image_id, created_at in rows]

    async def images_of_project(
        self, registry: str, project: str, *, at_most: int
    ) -> Sequence[str] | None:
        """Look a project's images up, one more than asked for to see whether there are more."""
        async with self._connection(self._reader) as reader:
            rows = await reader.execute_fetchall(
                IMAGES_OF_PROJECT, (project, registry, at_most + 1)
            )
        ids = [row[0] for row in rows]
        return None if len(ids) > at_most else ids

    async def records(
        self, query: RelationQuery, *, limit: int, before: Place | None
    ) -> Sequence[ImageRecord]:
        """Walk the records backwards by when they were recorded."""
        asked = {name: value for name, value in asdict(query).items() if value is not None}
        statement = records(asked, is_first=before is None)
        behind = dict(zip(_PLACE, before, strict=True)) if before is not None else {}
        async with self._connection(self._reader) as reader:
            rows = await reader.execute_fetchall(statement, {**asked, **behind, "limit": limit})
        return [_record(row) for row in rows]

    async def records_of(self, image_ids: Collection[str]) -> Sequence[ImageRecord]:
        """Look records up by the index of their images."""
        asked = {"ids": json.dumps(list(image_ids))}
        async with self._connection(self._reader) as reader:
            return [_record(row) for row in await reader.execute_fetchall(RECORDS_OF, asked)]

    def place(self, record: ImageRecord) -> Place:
        """Tell by microseconds."""
        at = microseconds(record.recorded_at)
        return at, record.image_id, record.created_at, record.registry

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
    """Turn the driver's errors into those that the flow knows."""
    try:
        yield
    except _UNFIT as failure:
        raise RecordRefusedError("The store does not take this.") from failure
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
    versions = schema_versions("sqlite")
    if present > len(versions):
        raise StoreRefusedError(
            f"The store's schema is version {present}, and this relproxy knows {len(versions)}: "
            "it was written by a newer relproxy."
        )
    for number, script in enumerate(versions[present:], start=present + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;"
        )


def _record(row: Iterable[Any]) -> ImageRecord:
    registry, image_id, created_at, project, *captured, at, dead, made_by, imported = row
    installation, instance_id, grade = captured
    capture, is_imported = None, bool(imported)
    if instance_id is not None:
        grade = Grade.IMPORTED if is_imported else Grade(grade)
        capture = Capture(Instance(installation, instance_id), grade)
    deleted_at = None if dead is None else moment(dead)
    made_for = made_by or project
    made = ImageRecord(registry, image_id, created_at, made_for, capture, moment(at), deleted_at)
    return replace(made, is_imported=is_imported).given_to(project)


def _kept(row: sqlite3.Row) -> Kept:
    *columns, sequence = row
    return Kept(_record(columns), str(sequence))


def _sequence(place: str) -> int:
    if not (place.isascii() and place.isdigit() and len(place) < len(str(2**63))):
        raise not_a_place(place)
    return int(place)
