"""What only the PostgreSQL store promises."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import asyncpg
import pytest

from lab.postgres import Postgres
from lab.processes import free_port
from relproxy.errors import StoreRefusedError, StoreUnavailableError
from relproxy.model import Capture, Grade, ImageRecord, Instance
from relproxy.store import postgres_sql
from relproxy.store.base import RelationQuery
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings, migrate

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"


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
        "TRUNCATE image_record, image_record_again, project, source, opaque_id RESTART IDENTITY"
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
    """One that still writes under the old name writes what the next look at its names refuses."""
    await store.put([record("a", "alice")])
    another = PostgresStore(settings)
    await another.open()
    await another.rename_registry("glance", "east")
    await another.close()
    await store.put([record("b", "alice")])
    assert await store.registries() == {"east", "glance"}
    assert list(await store.owners("glance", ["a", "b"])) == ["b"]


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
    assert sorted(before for before, _ in done) == [0, 1, 1, 1]


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
