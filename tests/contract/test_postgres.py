"""What only the PostgreSQL store promises."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from lab.postgres import Postgres
from lab.processes import free_port
from relproxy.errors import StoreRefusedError, StoreUnavailableError
from relproxy.model import (
    Burial,
    Capture,
    Change,
    Grade,
    ImageRecord,
    Instance,
    OwnerChange,
)
from relproxy.store import postgres_changes_sql, postgres_sql
from relproxy.store.base import RelationQuery
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_changes import PackedChanges
from relproxy.store.postgres_pool import PostgresSettings, migrate
from relproxy.store.schema_versions import schema_versions

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
WEST = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"


@pytest.fixture
async def settings(postgres: Postgres) -> PostgresSettings:
    made = PostgresSettings(postgres.create_database(f"own-{uuid.uuid4()}"))
    await migrate(made)
    return made


@pytest.fixture
async def store(settings: PostgresSettings) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(replace(settings, connections=1))
    await opened.open()
    yield opened
    await opened.close()


def record(image_id: str, project: str, instance: str = "123") -> ImageRecord:
    capture = Capture(Instance(EAST, instance), Grade.CLAIMED)
    at = datetime(2030, 1, 1, tzinfo=UTC)
    return ImageRecord("glance", image_id, "2030-01-01T00:00:00Z", project, capture, at)


async def test_a_cancelled_request_never_leaves_its_answer_to_the_next(
    store: PostgresStore,
) -> None:
    """Two projects on a pool of one, the first cut off at every turn of the loop."""
    await store.put([record("a", "alice"), record("b", "bob")])
    for turns in range(60):
        asked = asyncio.create_task(store.owners("glance", ["a"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.cancel()
        owners = await store.owners("glance", ["b"])
        assert {image_id: o.project for image_id, o in owners.items()} == {"b": "bob"}
        await asyncio.gather(asked, return_exceptions=True)


async def test_a_statement_that_takes_too_long_is_given_up(settings: PostgresSettings) -> None:
    store = PostgresStore(replace(settings, statement_s=0.2))
    await store.open()
    blocker = await asyncpg.connect(settings.dsn)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE image_record IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailableError):
            await store.put([record("a", "alice")])
    await store.put([record("a", "alice")])
    await blocker.close()
    await store.close()


async def test_a_server_that_is_away_is_tried_again(
    settings: PostgresSettings, postgres: Postgres
) -> None:
    database = settings.dsn.rpartition("/")[2]
    moved = Postgres(port=free_port())
    store = PostgresStore(PostgresSettings(moved.dsn(database), connect_s=1))
    with pytest.raises(StoreUnavailableError) as raised:
        await store.open()
    assert not isinstance(raised.value, StoreRefusedError)
    moved.start()
    await migrate(PostgresSettings(moved.create_database(database)))
    await store.check()
    moved.stop()
    with pytest.raises(StoreUnavailableError):
        await store.check()
    moved.start()
    await store.put([record("a", "alice")])
    await store.close()
    moved.remove()
    assert postgres.dsn() != moved.dsn()


@dataclass
class Silent:
    """A server that takes connections and says nothing."""

    port: int = 0
    taken: int = 0
    left: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self.changed.set()
        with suppress(ConnectionError):
            while await reader.read(1024):
                pass
        writer.close()
        self.left += 1
        self.changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_so():
                self.changed.clear()
                await self.changed.wait()

    def store(self, *, connect_s: float) -> PostgresStore:
        dsn = f"postgresql://relproxy@127.0.0.1:{self.port}/relproxy?sslmode=disable"
        return PostgresStore(PostgresSettings(dsn, connect_s=connect_s))


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    server = Silent()
    listening = await asyncio.start_server(server.take, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()
    await listening.wait_closed()


async def test_all_who_wait_for_a_silent_server_share_one_attempt(silent: Silent) -> None:
    """Else each would wait for the attempts of all before it, and then for its own."""
    store = silent.store(connect_s=0.5)
    with pytest.raises(StoreUnavailableError):
        await store.open()
    asked = (store.owners("glance", ["a"]) for _ in range(20))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
    assert silent.taken == 2
    await store.close()


async def test_who_asked_first_may_leave_without_the_others_losing_the_attempt(
    silent: Silent,
) -> None:
    store = silent.store(connect_s=1)
    first = asyncio.create_task(store.open())
    await silent.until(lambda: silent.taken == 1)
    second = asyncio.create_task(store.check())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(StoreUnavailableError):
        await second
    assert silent.taken == 1
    await store.close()


async def test_a_store_that_is_closed_while_it_connects_leaves_no_connection(
    silent: Silent,
) -> None:
    store = silent.store(connect_s=600)
    opening = asyncio.create_task(store.open())
    await silent.until(lambda: silent.taken == 1)
    await store.close()
    await silent.until(lambda: silent.left == 1)
    await asyncio.gather(opening, return_exceptions=True)
    with pytest.raises(StoreUnavailableError):
        await store.check()


async def test_the_one_of_several_hosts_that_takes_writes_is_used(
    settings: PostgresSettings, postgres: Postgres
) -> None:
    standby = await asyncio.to_thread(postgres.standby)
    database = settings.dsn.rpartition("/")[2]
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{standby.port},127.0.0.1:{postgres.port}"
    store = PostgresStore(PostgresSettings(f"postgresql://postgres@{hosts}/{database}"))
    await store.open()
    await store.put([record("a", "alice")])
    await store.close()
    standby.remove()


async def test_an_identity_names_the_server_and_its_timeline(store: PostgresStore) -> None:
    identity = await store.put([])
    assert identity is not None
    system, _, timeline = identity.partition("/")
    assert (system.isdigit(), timeline) == (True, "00000001")
    assert await store.put([record("a", "alice")]) == identity


async def test_a_promoted_server_that_lacks_the_names_gets_them_again(
    store: PostgresStore, settings: PostgresSettings
) -> None:
    """Else a record would be taken as written, and none be there; or be another project's."""
    first, second = record("a", "alice"), record("b", "bob", instance="not a uuid")
    await store.put([first, second])
    administrator = await asyncpg.connect(settings.dsn)
    await administrator.execute(
        "TRUNCATE image_record, image_record_again, owner_change, burial, project, source, "
        "opaque_id RESTART IDENTITY"
    )
    await store.put([second])
    await store.put([first, second])
    await administrator.close()
    owners = await store.owners("glance", ["a", "b"])
    assert {image_id: o.project for image_id, o in owners.items()} == {"a": "alice", "b": "bob"}
    found = await store.records(RelationQuery(instance_id="not a uuid"), limit=5, before=None)
    assert found == [second]


async def test_a_registry_renamed_by_another_process_gets_its_records(
    store: PostgresStore, settings: PostgresSettings
) -> None:
    await store.put([record("a", "alice")])
    another = PostgresStore(settings)
    await another.open()
    await another.rename_registry("glance", "east")
    await another.close()
    await store.put([record("b", "alice")])
    assert await store.registries() == {"east"}
    assert set(await store.owners("east", ["a", "b"])) == {"a", "b"}


CREATED = "2030-01-01T00:00:00Z"
IMAGE = str(uuid.UUID(int=7 << 64))
CHANGED = OwnerChange("glance", IMAGE, CREATED, "bob", datetime(2030, 1, 2, tzinfo=UTC))
BURIED = Burial("glance", IMAGE, datetime(2030, 1, 2, tzinfo=UTC))
# Whoever writes into one of the tables stands still before its commit while somebody has lock 42.
STAND_STILL = """
CREATE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON {table}
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stand_still();
"""


async def standing_still(administrator: asyncpg.Connection, *, waiting: int = 1) -> None:
    """Wait until so many do, or wait until they are alone."""
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
    async with asyncio.timeout(20):
        while True:
            if await administrator.fetchval(waits) >= waiting:
                return


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (CHANGED, "owner_change"),
        (BURIED, "burial"),
        (replace(BURIED, created_at=CREATED), "burial"),
    ],
    ids=["an owner", "a burial of any", "a burial of one"],
)
@pytest.mark.parametrize("is_record_first", [True, False])
async def test_a_change_meets_the_record_that_is_put_at_the_same_time(
    settings: PostgresSettings, change: Change, kept: str, *, is_record_first: bool
) -> None:
    """The first of the two isn't committed when the second one looks whether it is there."""
    one, other = PostgresStore(settings), PostgresStore(settings)
    administrator = await asyncpg.connect(settings.dsn)
    for store in (one, other):
        await store.open()
    made = record(IMAGE, "alice", EAST)
    # So that nobody waits for a name.
    await one.put([replace(told, image_id=EAST) for told in (made, change)])
    table = "image_record" if is_record_first else kept
    await administrator.execute(STAND_STILL.format(table=table))
    await administrator.execute("SELECT pg_advisory_lock(42)")
    told = [made, change] if is_record_first else [change, made]
    first = asyncio.create_task(one.put([told[0]]))
    await standing_still(administrator)
    second = asyncio.create_task(other.put([told[1]]))
    # A record need not wait for a change: that one looks for it. The other way about it is waited
    # for, and no event says that somebody goes on waiting.
    done, _ = await asyncio.wait([second], timeout=0.5 if is_record_first else 20)
    assert bool(done) is not is_record_first
    await administrator.execute("SELECT pg_advisory_unlock(42)")
    await asyncio.gather(first, second)
    owners = await one.owners("glance", [IMAGE])
    assert [owner.project for owner in owners.values()] == (["bob"] if change == CHANGED else [])
    for part in (one, other, administrator):
        await part.close()


async def test_a_burial_that_comes_while_others_are_taken_is_not_taken_for_one_of_them(
    settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has marked its record is forgotten; this one has marked nothing yet."""
    one, other = PostgresStore(settings), PostgresStore(settings)
    administrator = await asyncpg.connect(settings.dsn)
    for store in (one, other):
        await store.open()
    made, burial = record(IMAGE, "alice", EAST), replace(BURIED, created_at=CREATED)
    await one.put([replace(told, image_id=EAST) for told in (made, burial)])
    await administrator.execute("SELECT pg_advisory_lock(42)")
    marks, forgets = postgres_changes_sql.TAKE_BURIALS
    waits = "SELECT pg_advisory_xact_lock_shared(42) WHERE $1::uuid[] IS NOT NULL"
    with monkeypatch.context() as patched:
        patched.setattr("relproxy.store.postgres_changes.TAKE_BURIALS", (marks, waits, forgets))
        first = asyncio.create_task(one.put([made, replace(burial, image_id=WEST)]))
        await standing_still(administrator)
    second = asyncio.create_task(other.put([burial]))
    await standing_still(administrator, waiting=2)
    await administrator.execute("SELECT pg_advisory_unlock(42)")
    await asyncio.gather(first, second)
    assert await one.owners("glance", [IMAGE]) == {}
    for part in (one, other, administrator):
        await part.close()


async def test_a_host_that_is_lost_in_the_middle_of_a_put_holds_up_nobody_for_long(
    settings: PostgresSettings,
) -> None:
    lost = PostgresStore(replace(settings, statement_s=1))
    await lost.open()
    other = PostgresStore(settings)
    await other.open()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def stop_in_the_middle() -> None:
        async with lost._pool.connection() as connection:  # noqa: SLF001 - no put stops by itself
            await connection.execute("BEGIN")
            await connection.execute(postgres_changes_sql.BEGIN_PUT)
            begun.set()
            await ended.wait()

    stopped = asyncio.create_task(stop_in_the_middle())
    await begun.wait()
    async with asyncio.timeout(8):
        await other.put([CHANGED, BURIED])
    ended.set()
    await asyncio.gather(stopped, return_exceptions=True)
    for store in (lost, other):
        await store.close()


async def test_a_put_of_new_records_asks_nothing_more_of_the_server(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names, the records: each statement more would be a round trip of every create."""
    records = [record(str(uuid.UUID(int=n << 70)), "alice", EAST) for n in range(50)]
    await store.put(records[:1])
    asked: list[str] = []
    for verb in ("execute", "fetch", "fetchrow", "fetchval"):
        real = getattr(asyncpg.Connection, verb)

        async def listened(
            self: asyncpg.Connection, query: str, *arguments: object, real: Any = real, **more: Any
        ) -> Any:
            asked.append(query)
            return await real(self, query, *arguments, **more)

        monkeypatch.setattr(asyncpg.Connection, verb, listened)
    await store.put(records[1:])
    # And what the pool says to a connection that is given back.
    verbs = [query.split()[0].strip(";") for query in asked if "UNLISTEN" not in query]
    assert verbs == ["BEGIN", "SELECT", "WITH", "COMMIT"]


async def test_a_schema_that_is_missing_or_newer_is_refused_with_a_sentence(
    settings: PostgresSettings, postgres: Postgres
) -> None:
    empty = PostgresStore(PostgresSettings(postgres.create_database(f"own-{uuid.uuid4()}")))
    with pytest.raises(StoreRefusedError, match="run `relproxy migrate` first"):
        await empty.open()
    postgres.execute("UPDATE schema_version SET version = 99", settings.dsn.rpartition("/")[2])
    newer = PostgresStore(settings)
    with pytest.raises(StoreRefusedError, match="written by a newer relproxy"):
        await newer.open()
    with pytest.raises(StoreRefusedError, match="written by a newer relproxy"):
        await migrate(settings)


async def test_migrating_at_once_applies_each_version_once(postgres: Postgres) -> None:
    fresh = PostgresSettings(postgres.create_database(f"own-{uuid.uuid4()}"))
    done = await asyncio.gather(*(migrate(fresh) for _ in range(4)))
    known = len(schema_versions("postgres"))
    assert sorted(before for before, _ in done) == [0, known, known, known]


async def test_the_view_shows_no_claim_of_an_image_that_was_given_away(
    store: PostgresStore, settings: PostgresSettings, postgres: Postgres
) -> None:
    told: list[Change] = []
    for grade in Grade:
        capture = Capture(Instance(EAST, "123"), grade)
        made = replace(
            record(grade, "mallory"), capture=capture, is_imported=grade is Grade.IMPORTED
        )
        given = OwnerChange("glance", made.image_id, made.created_at, "bob", made.recorded_at)
        told += [made, given, replace(made, image_id=f"{grade}, kept")]
    await store.put(told)
    asked = (
        "SELECT image_id, project, made_for, instance_id, installation IS NOT NULL, grade "
        "FROM image_relation"
    )
    shown = postgres.execute(asked, settings.dsn.rpartition("/")[2])
    assert sorted(shown.split("\n")[:-1]) == [
        "claimed, kept|mallory|mallory|123|t|claimed",
        "claimed|bob|mallory||f|",
        "imported, kept|mallory|mallory|123|t|imported",
        "imported|bob|mallory||f|",
        "vouched, kept|mallory|mallory|123|t|vouched",
        "vouched|bob|mallory|123|t|vouched",
    ]


async def test_a_session_never_commits_without_the_disk(
    settings: PostgresSettings, postgres: Postgres
) -> None:
    database = settings.dsn.rpartition("/")[2]
    postgres.execute(f'ALTER DATABASE "{database}" SET synchronous_commit = off')
    postgres.execute(
        "CREATE TABLE seen (v text); "
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN NULL; "
        "END'; "
        "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON image_record "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see()",
        database,
    )
    store = PostgresStore(settings)
    await store.open()
    for image_id in ("a", "b"):
        await store.put([record(image_id, "alice")])
    await store.close()
    assert postgres.execute("SELECT DISTINCT v FROM seen", database).split() == ["on"]


def rows_of_version_1() -> str:
    """Return statements that fill a schema of version 1, records that stand twice among them."""
    ids = {name: str(uuid.UUID(int=n << 64)) for n, name in enumerate("abcd", start=1)}
    source = "INSERT INTO source (registry, created_suffix) VALUES"
    record = (
        "INSERT INTO {table} (image_id, created_at, recorded_at, project_id, source_id, "
        "deleted_at, project_since{more}) VALUES"
    )
    first = record.format(table="image_record", more="")
    again = record.format(table="image_record_again", more=", made_as")
    return f"""
        INSERT INTO project (name) VALUES ('alice'), ('bob');
        {source} ('r1', 'Z'), ('r2', 'Z');
        {first} ('{ids["a"]}', 100, 101, 2, 1, NULL, 7),
                ('{ids["b"]}', 100, 101, 1, 1, NULL, NULL),
                ('{ids["c"]}', 100, 101, 1, 2, NULL, NULL);
        {again} ('{ids["a"]}', 200, 201, 1, 1, NULL, 9, 'r1 200Z'),
                ('{ids["c"]}', 100, 102, 1, 2, 150, NULL, 'old 100Z'),
                ('{ids["d"]}', 100, 103, 1, 1, NULL, NULL, 'r1 100Z'),
                ('{ids["d"]}', 100, 101, 1, 1, 160, NULL, 'old 100Z'),
                ('{ids["d"]}', 300, 301, 2, 1, NULL, NULL, 'r1 300Z');
    """  # noqa: S608 - constants


async def test_a_schema_of_version_1_is_brought_up_to_date_with_its_records(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"own-{uuid.uuid4()}"
    settings = PostgresSettings(postgres.create_database(database))
    versions = schema_versions("postgres")
    with monkeypatch.context() as patched:
        patched.setattr("relproxy.store.postgres_pool.schema_versions", lambda _: versions[:1])
        await migrate(settings)
    postgres.execute(rows_of_version_1(), database)
    assert await migrate(settings) == (1, len(versions))
    store = PostgresStore(settings)
    await store.open()

    def moment(seconds: int) -> datetime:
        return datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    def image(number: int) -> str:
        return str(uuid.UUID(int=number << 64))

    records = [k.record async for batch in store.walk(None) for k in batch]
    assert [(r.registry, r.image_id, r.project, r.recorded_at, r.deleted_at) for r in records] == [
        ("r1", image(1), "bob", moment(101), None),
        ("r1", image(2), "alice", moment(101), None),
        ("r2", image(3), "alice", moment(101), moment(150)),
        ("r1", image(4), "alice", moment(101), moment(160)),
        ("r1", image(1), "alice", moment(201), None),
        ("r1", image(4), "bob", moment(301), None),
    ]
    changes = [change async for batch in store.walk_changes() for change in batch]
    assert changes == [
        OwnerChange("r1", image(1), "2020-01-01T00:01:40Z", "bob", moment(7)),
        OwnerChange("r1", image(1), "2020-01-01T00:03:20Z", "alice", moment(9)),
    ]
    for made in records:
        await store.put([replace(made, deleted_at=None)])
    assert [k.record async for batch in store.walk(None) for k in batch] == records
    assert await store.registries() == {"r1", "r2"}
    await store.close()
    assert "r2" in postgres.execute("SELECT registry FROM image_relation", database)


def nodes(plan: dict[str, object]) -> list[dict[str, object]]:
    below = plan.get("Plans", [])
    assert isinstance(below, list)
    return [plan, *(node for child in below for node in nodes(child))]


IDS = [str(uuid.UUID(int=n << 80)) for n in range(20_000)]


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (postgres_sql.OWNERS, f"'{{{','.join(IDS[:100])}}}', 'glance'"),
        (postgres_sql.IMAGES_OF_INSTANCE, f"'glance', '{uuid.UUID(int=5)}', NULL, 'p7'"),
        (postgres_sql.IMAGES_OF_PROJECT, "'glance', 'p7', 1601"),
        *(
            (
                postgres_sql.records({asked: value})[0],
                f"2000000000, '{IDS[0]}', 0, '', 9, '{value}'",
            )
            for asked, value in (("instance", str(uuid.UUID(int=5))), ("project", "p7"))
        ),
    ],
    ids=["owners", "instance", "project", "relations of an instance", "relations of a project"],
)
@pytest.mark.parametrize("analyzed", [True, False])
async def test_a_hot_query_reads_the_records_by_an_index(
    store: PostgresStore, statement: str, parameters: str, *, analyzed: bool
) -> None:
    records = [
        record(image_id, f"p{n % 100}", str(uuid.UUID(int=n // 8)))
        for n, image_id in enumerate(IDS)
    ]
    for start in range(0, len(records), 5000):
        await store.put(records[start : start + 5000])
    async with store._pool.connection() as connection:  # noqa: SLF001 - the plan is what is shown
        if analyzed:
            await connection.execute("ANALYZE")
        await connection.execute(f"PREPARE hot AS {statement}")
        (plan,) = json.loads(
            await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE hot ({parameters})")
        )
    of_records = [n for n in nodes(plan["Plan"]) if n.get("Relation Name") == "image_record"]
    assert of_records
    assert {node["Node Type"] for node in of_records} <= {"Index Scan", "Bitmap Heap Scan"}


SOME = f"'{{{','.join(IDS[:100])}}}'"
NUMBERS = f"'{{{','.join(['1'] * 100)}}}'"
NULLS = f"'{{{','.join(['NULL'] * 100)}}}'"
KEPT = (
    (postgres_changes_sql.PUT, f"{SOME}, {NULLS}, {NUMBERS}, {NUMBERS}, {NUMBERS}, {NUMBERS}"),
    *(
        (statement, SOME)
        for statement in (
            *(postgres_changes_sql.IS_UNTAKEN, postgres_sql.CHANGES),
            *(*postgres_changes_sql.TAKE_OWNERS, *postgres_changes_sql.TAKE_BURIALS),
        )
    ),
    (postgres_changes_sql.PURGE_RECORDS.format(table="image_record"), "1000, 200"),
    (postgres_changes_sql.PURGE_BURIALS, "1000, 200"),
    (postgres_changes_sql.PURGE_OWNERS, "1000, 200"),
)


async def tables_read_whole(connection: asyncpg.Connection, statement: str) -> set[object]:
    """Return those of the tables that grow."""
    (plan,) = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}"))
    read = {n.get("Relation Name") for n in nodes(plan["Plan"]) if n["Node Type"] == "Seq Scan"}
    return read & {"image_record", "owner_change", "burial"}


async def test_what_is_kept_is_looked_up_by_an_index(store: PostgresStore) -> None:
    changes: list[Change] = []
    for n, image_id in enumerate(IDS):
        at = datetime(2030, 1, 2, tzinfo=UTC) + timedelta(seconds=n)
        changes.append(record(image_id, "alice", EAST))
        changes.append(OwnerChange("glance", image_id, CREATED, "bob", at))
        changes.append(Burial("glance", image_id, at))
    async with store._pool.connection() as connection:  # noqa: SLF001 - the plan is what is shown
        # What every put of records asks is planned when there is nothing yet, and for good.
        await connection.execute(f"PREPARE hot AS {KEPT[0][0]}")
        assert not await tables_read_whole(connection, f"EXECUTE hot ({KEPT[0][1]})")
        packed = PackedChanges(changes)
        async with connection.transaction():
            await packed.write(connection, "NULL")
        await connection.execute("ANALYZE source, project, image_record, owner_change, burial")
        for number, (statement, parameters) in enumerate(KEPT):
            await connection.execute(f"PREPARE kept_{number} AS {statement}")
            asked = f"EXECUTE kept_{number} ({parameters})"
            assert not await tables_read_whole(connection, asked), statement
