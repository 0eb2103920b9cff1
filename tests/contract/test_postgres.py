"""What only the PostgreSQL store promises."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from lab.postgres import Postgres
from lab.processes import free_port
from relproxy.errors import StoreRefusedError, StoreUnavailableError
from relproxy.model import Capture, Grade, ImageRecord, Instance
from relproxy.store import postgres_sql
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


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (postgres_sql.OWNERS, ("(SELECT array_agg(image_id) FROM sample)", "'glance'")),
        (
            postgres_sql.IMAGES_OF_INSTANCE,
            ("'glance'", "(SELECT instance_id FROM sample LIMIT 1)", "NULL::uuid", "'p7'"),
        ),
        (postgres_sql.IMAGES_OF_PROJECT, ("'glance'", "'p7'", "1601")),
    ],
    ids=["owners", "instance", "project"],
)
async def test_a_hot_query_reads_the_records_by_an_index(
    store: PostgresStore, statement: str, parameters: tuple[str, ...]
) -> None:
    records = [
        record(str(uuid.UUID(int=n << 80)), f"p{n % 100}", str(uuid.UUID(int=n // 8)))
        for n in range(20_000)
    ]
    for start in range(0, len(records), 5000):
        await store.put(records[start : start + 5000])
    for place, value in reversed(list(enumerate(parameters, start=1))):
        statement = statement.replace(f"${place}", value)
    async with store._pool.connection() as connection:  # noqa: SLF001 - the plan is what is shown
        await connection.execute("ANALYZE")
        await connection.execute(
            "CREATE TEMP TABLE sample AS SELECT image_id, instance_id FROM image_record LIMIT 100"
        )
        (plan,) = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}"))
    of_records = [n for n in nodes(plan["Plan"]) if n.get("Relation Name") == "image_record"]
    assert of_records
    assert {node["Node Type"] for node in of_records} <= {"Index Scan", "Bitmap Heap Scan"}
