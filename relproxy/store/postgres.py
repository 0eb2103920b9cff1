"""The store at scale: PostgreSQL, by asyncpg, for any number of relproxies (docs/decisions/0011).

Records are packed (`packing.py`), written by `postgres_changes.py` and read here, over the
connections of `postgres_pool.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import asyncpg

from relproxy.errors import BadRequestError
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
from relproxy.store.packing import (
    ANY_CREATED_AT,
    is_opaque,
    packed_created_at,
    packed_id,
    packed_moment,
    packed_time,
    unpacked_created_at,
    unpacked_moment,
    unpacked_time,
)
from relproxy.store.place import Place, as_cursor, from_cursor, not_a_cursor, not_a_place
from relproxy.store.postgres_changes import PackedChanges
from relproxy.store.postgres_changes_sql import (
    ALONE,
    FREE_NAME,
    MOVE_UP,
    PURGE_BURIALS,
    PURGE_OWNERS,
    PURGE_RECORDS,
    REMEMBER_RENAMED,
    RENAME,
)
from relproxy.store.postgres_pool import PostgresPool, PostgresSettings
from relproxy.store.postgres_sql import (
    CHANGES,
    IDENTITY,
    IMAGES_OF_INSTANCE,
    IMAGES_OF_PROJECT,
    NAMES_OF_OPAQUE,
    OWNERS,
    RECORDS_OF,
    RENAMED,
    WALK,
    WALK_CHANGES,
    records,
)

_WALKED_AT_ONCE = 500
# To sort a hundred million records takes minutes.
_WALK_S = 86_400.0
_BEFORE_ALL = (-(2**31), uuid.UUID(int=0), -(2**31), "")
_BEHIND_ALL = (2**31 - 1, uuid.UUID(int=2**128 - 1), 2**31 - 1, "")


class PostgresStore:
    """See `relproxy.store.base.Store`."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._pool = PostgresPool(settings)

    async def open(self) -> None:
        """Connect and see that the schema is the one that this relproxy knows.

        A server that is away raises `StoreUnavailableError`, and every later call tries again.
        """
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def check(self) -> None:
        """Ask for one row."""
        async with self._pool.connection() as connection:
            await connection.fetchval("SELECT 1 FROM image_record LIMIT 1")

    # -- writing

    async def claim(self, host: str, *, by_force: bool = False) -> None:
        """Do nothing: any number of hosts may write."""

    async def put(self, changes: Sequence[Change]) -> str | None:
        """Write changes in one transaction; its server's system identifier and timeline.

        In a second one what of it has met a record that was being put at the same time.
        """
        async with self._pool.connection() as connection:
            packed = PackedChanges(changes)
            async with connection.transaction(isolation="read_committed"):
                asked = IDENTITY if self._pool.names_itself else "NULL"
                identity = await packed.write(connection, asked)
            await packed.meet(connection)
        return identity

    async def rename_registry(self, old: str, new: str) -> None:
        """Rename in the few rows that hold its name, while nobody puts."""
        check_renaming(old, new, await self.registries(), await self.renamed())
        async with self._alone() as connection:
            await connection.execute(FREE_NAME, new)
            for statement in RENAME:
                await connection.execute(statement, old, new)
            await connection.execute(REMEMBER_RENAMED, old, new)

    async def take_for_renamed(self, old: str, new: str) -> None:
        """Write one old name."""
        if old in await self.registries():
            raise BadRequestError(f"Records name a registry '{old}' already.")
        async with self._alone() as connection:
            await connection.execute(REMEMBER_RENAMED, old, new)

    async def free_name(self, old: str) -> None:
        """Forget one old name."""
        async with self._alone() as connection:
            if await connection.execute(FREE_NAME, old) == "DELETE 0":
                raise BadRequestError(f"'{old}' is no registry's old name.")

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection in a transaction during which nobody puts."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(ALONE)
            yield connection

    async def purge(self, *, deleted_before: datetime, at_most: int) -> int:
        """Forget by the indexes of what is deleted, and of what is kept."""
        seconds = packed_time(deleted_before)
        async with self._pool.connection() as connection, connection.transaction():
            statement = PURGE_RECORDS.format(table="image_record")
            gone = await connection.fetch(statement, seconds, at_most)
            forgotten = len(gone)
            statement = PURGE_RECORDS.format(table="image_record_again")
            forgotten += len(await connection.fetch(statement, seconds, at_most - forgotten))
            if gone:
                await connection.execute(MOVE_UP, [row[0] for row in gone])
            for statement, before in (
                (PURGE_BURIALS, seconds),
                (PURGE_OWNERS, packed_moment(deleted_before)),
            ):
                forgotten += await connection.fetchval(statement, before, at_most - forgotten)
        return forgotten

    # -- reading

    async def registries(self) -> frozenset[str]:
        """Read the names that were ever put."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch("SELECT DISTINCT registry FROM source")
        return frozenset(row[0] for row in rows)

    async def renamed(self) -> Mapping[str, str]:
        """Read the old names."""
        async with self._pool.connection() as connection:
            return {row[0]: row[1] for row in await connection.fetch(RENAMED)}

    async def changes(self, image_ids: Collection[str]) -> Sequence[OwnerChange | Burial]:
        """Look up what is kept, and the records of the dead."""
        asked = {uuid.UUID(packed_id(image_id)[0]): image_id for image_id in image_ids}
        async with self._pool.connection() as connection:
            rows = await connection.fetch(CHANGES, list(asked))
        return [_change(row, asked) for row in rows]

    async def owners(self, registry: str, image_ids: Collection[str]) -> Mapping[str, Ownership]:
        """Look a whole page up in one round trip."""
        asked = {packed_id(image_id)[0]: image_id for image_id in image_ids}
        async with self._pool.connection() as connection:
            rows = await connection.fetch(OWNERS, list(asked), registry)
        return {
            asked[str(image_id)]: Ownership(project, unpacked_created_at(created, suffix), imported)
            for image_id, project, created, suffix, imported in rows
        }

    async def images_of_instance(self, registry: str, query: InstanceQuery) -> Sequence[ImageKey]:
        """Look an instance's images up by their index."""
        installation = query.installation and uuid.UUID(query.installation)
        instance = packed_id(query.instance_id)[0]
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                IMAGES_OF_INSTANCE, registry, instance, installation, query.project
            )
            names = await _names(connection, (row[0] for row in rows))
        return [
            ImageKey(names[image_id], unpacked_created_at(created, suffix))
            for image_id, created, suffix in rows
        ]

    async def images_of_project(
        self, registry: str, project: str, *, at_most: int
    ) -> Sequence[str] | None:
        """Look a project's images up, one more than asked for to see whether there are more."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(IMAGES_OF_PROJECT, registry, project, at_most + 1)
            if len(rows) > at_most:
                return None
            names = await _names(connection, (row[0] for row in rows))
        return list(dict.fromkeys(names[row[0]] for row in rows))

    async def records(
        self, query: RelationQuery, *, limit: int, before: Place | None
    ) -> Sequence[ImageRecord]:
        """Walk the records backwards by when they were recorded."""
        statement, parameters = records(
            {
                "instance": query.instance_id and packed_id(query.instance_id)[0],
                "image": query.image_id and packed_id(query.image_id)[0],
                "installation": query.installation and uuid.UUID(query.installation),
                "project": query.project,
            }
        )
        start = _BEHIND_ALL if before is None else _values(before)
        return await self._records(statement, *start, limit, *parameters)

    async def records_of(self, image_ids: Collection[str]) -> Sequence[ImageRecord]:
        """Look records up by their keys."""
        return await self._records(RECORDS_OF, [packed_id(image_id)[0] for image_id in image_ids])

    async def _records(self, statement: str, *parameters: object) -> Sequence[ImageRecord]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(statement, *parameters)
            names = await _names(connection, _ids(rows))
        return [_record(row, names) for row in rows]

    async def walk(self, after: str | None) -> AsyncIterator[Sequence[Kept]]:
        """Walk by when they were recorded: all are sorted, once."""
        try:
            place = _values(from_cursor(after)) if after is not None else _BEFORE_ALL
        except BadRequestError:
            raise not_a_place(str(after)) from None
        async with self._pool.connection() as connection:
            async for rows in _walked(connection, WALK, *place):
                names = await _names(connection, _ids(rows))
                yield [_kept(row, names) for row in rows]

    async def walk_changes(self) -> AsyncIterator[Sequence[OwnerChange | Burial]]:
        """Walk in the order in which the tables have them."""
        async with self._pool.connection() as connection:
            for statement in WALK_CHANGES:
                async for rows in _walked(connection, statement):
                    names = await _names(connection, (row["image_id"] for row in rows))
                    yield [_change(row, names) for row in rows]

    def place(self, record: ImageRecord) -> Place:
        """Tell by seconds and by packed ids."""
        image_id, _ = packed_id(record.image_id)
        created, _ = packed_created_at(record.created_at)
        at = packed_time(record.recorded_at)
        return at, image_id, _ordered(created), record.registry


async def _walked(
    connection: asyncpg.Connection, statement: str, *parameters: object
) -> AsyncIterator[Sequence[asyncpg.Record]]:
    """Yield what a statement finds, some hundred rows at a time, in one transaction."""
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0")
        # Whoever walks does something with what is found.
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        walked = await connection.cursor(statement, *parameters, timeout=_WALK_S)
        while rows := await walked.fetch(_WALKED_AT_ONCE, timeout=_WALK_S):
            yield rows


def _ids(rows: Iterable[asyncpg.Record]) -> Iterable[uuid.UUID | None]:
    return (value for row in rows for value in (row["image_id"], row["instance_id"]))


async def _names(
    connection: asyncpg.Connection, ids: Iterable[uuid.UUID | None]
) -> Mapping[uuid.UUID, str]:
    """Return the text of each id; those that stand for another text are looked up."""
    names = {found: str(found) for found in ids if found is not None}
    opaque = [found for found, text in names.items() if is_opaque(text)]
    if opaque:
        names |= {row[0]: row[1] for row in await connection.fetch(NAMES_OF_OPAQUE, opaque)}
    return names


def _record(row: asyncpg.Record, names: Mapping[uuid.UUID, str]) -> ImageRecord:
    capture = None
    if row["instance_id"] is not None:
        instance = Instance(str(row["installation"]), names[row["instance_id"]])
        capture = Capture(instance, Grade(row["grade"]))
    deleted = row["deleted_at"]
    made = ImageRecord(
        row["registry"],
        names[row["image_id"]],
        unpacked_created_at(row["created_at"], row["created_suffix"]),
        row["made_for"],
        capture,
        unpacked_time(row["recorded_at"]),
        None if deleted is None else unpacked_time(deleted),
    )
    made = replace(made, is_imported=row["grade"] == Grade.IMPORTED)
    return made.given_to(row["project"])


def _kept(row: asyncpg.Record, names: Mapping[uuid.UUID, str]) -> Kept:
    created, registry = _ordered(row["created_at"]), row["registry"]
    place = row["recorded_at"], str(row["image_id"]), created, registry
    return Kept(_record(row, names), as_cursor(place))


def _change(row: asyncpg.Record, names: Mapping[uuid.UUID, str]) -> OwnerChange | Burial:
    registry, image_id, created, suffix, project, microseconds = row
    at = unpacked_moment(microseconds)
    if created == ANY_CREATED_AT:
        return Burial(registry, names[image_id], at)
    created_at = unpacked_created_at(created, suffix)
    if project is None:
        return Burial(registry, names[image_id], at, created_at)
    return OwnerChange(registry, names[image_id], created_at, project, at)


def _ordered(seconds: int) -> str:
    """Return a text for an integer of four bytes; texts are ordered as the integers are."""
    return f"{seconds + 2**31:010d}"


def _values(place: Place) -> tuple[int, uuid.UUID, int, str]:
    """Return the columns that a place stands for; raises `BadRequestError`."""
    recorded, image_id, created, registry = place
    try:
        values = recorded, uuid.UUID(image_id), int(created) - 2**31, registry
    except ValueError:
        raise not_a_cursor() from None
    if not all(-(2**31) <= number < 2**31 for number in (values[0], values[2])):
        raise not_a_cursor()
    return values
