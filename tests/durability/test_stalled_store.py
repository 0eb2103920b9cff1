"""A PostgreSQL that is read and can't be written for a while, seen from two hosts."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from lab.postgres import Postgres
from lab.relproxy import Relproxy
from lab.stand_in import StandIn
from relproxy.store.postgres_pool import PostgresSettings, migrate
from tests.durability.conftest import (
    PATIENCE_S,
    Ledger,
    Start,
    all_records,
    metric,
    recorded,
    settings,
    until_recorded,
)

INSTANCE = "i-0"
# Whoever writes waits, whoever reads doesn't (PostgreSQL docs, 13.3.1).
STALL = "LOCK TABLE image_record, image_record_again IN EXCLUSIVE MODE"
CONFIRM_WAIT_S = 0.3


@pytest.fixture
async def dsn(postgres: Postgres) -> str:
    made = postgres.create_database(f"stalled-{uuid.uuid4()}")
    await migrate(PostgresSettings(made))
    return made


@pytest.fixture
async def stall(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to stall the writes of all others with."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def images_of_instance(session: aiohttp.ClientSession, relproxy: Relproxy) -> list[str]:
    query = {"instance_id": INSTANCE}
    headers = {"X-Project-Id": "alice", "X-Roles": "member"}
    async with session.get(f"{relproxy.url}/v2/images", params=query, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return [image["id"] for image in (await answer.json())["images"]]


async def create(session: aiohttp.ClientSession, relproxy: Relproxy) -> tuple[str, str | None]:
    headers = {"X-Project-Id": "alice", "X-Roles": "member", "X-Nova-Instance-ID": INSTANCE}
    async with session.post(
        f"{relproxy.url}/v2/images", json={"name": INSTANCE}, headers=headers
    ) as answer:
        assert answer.status == 201
        return (await answer.json())["id"], answer.headers.get("X-Relproxy-Record")


async def test_the_other_replica_reads_on_and_learns_of_it_once_the_store_can_write(
    glance: StandIn,
    session: aiohttp.ClientSession,
    relproxy_of: Start,
    dsn: str,
    stall: asyncpg.Connection,
) -> None:
    given: dict[str, Any] = settings(glance.url)
    store = {"driver": "postgres", "dsn": dsn, "confirm_wait_s": CONFIRM_WAIT_S}
    here, there = (relproxy_of({**given, "store": store}, name) for name in ("here", "there"))
    await asyncio.gather(*(asyncio.to_thread(r.start) for r in (here, there)))
    first, said = await create(session, here)
    assert said is None
    assert await images_of_instance(session, there) == [first]

    async with stall.transaction():
        await stall.execute(STALL)
        began = time.monotonic()
        second, said = await create(session, here)
        assert said == "pending"
        # The wait was had: the store may have taken it in time, for all that relproxy knew.
        assert time.monotonic() - began >= CONFIRM_WAIT_S
        # Whoever is on the host that made it reads it; the other host reads what the store has.
        assert await images_of_instance(session, here) == [second, first]
        assert await recorded(session, here) == {first, second}
        assert await images_of_instance(session, there) == [first]
        assert await recorded(session, there) == {first}
        third, said = await create(session, there)
        assert said == "pending"
        assert await images_of_instance(session, there) == [third, first]
        for relproxy in (here, there):
            async with session.get(f"{relproxy.admin_url}/readyz") as ready:
                assert ready.status == 200

    for relproxy in (here, there):
        await until_recorded(session, relproxy, {first, second, third})
        assert set(await images_of_instance(session, relproxy)) == {first, second, third}


async def test_a_store_that_stalls_under_load_costs_no_record(
    glance: StandIn,
    session: aiohttp.ClientSession,
    relproxy_of: Start,
    dsn: str,
    stall: asyncpg.Connection,
) -> None:
    """Stalled for longer than a statement may take, so that puts fail as well as wait."""
    store = {"driver": "postgres", "dsn": dsn, "confirm_wait_s": 0.05, "statement_s": 1}
    here, there = (
        relproxy_of({**settings(glance.url), "store": store}, name) for name in ("here", "there")
    )
    await asyncio.gather(*(asyncio.to_thread(r.start) for r in (here, there)))
    ledger = Ledger()

    async def some(relproxy: Relproxy) -> None:
        for _ in range(25):
            assert (await ledger.create(session, relproxy.url, "alice")).status == 201

    async with stall.transaction():
        await stall.execute(STALL)
        await asyncio.gather(*(some(relproxy) for relproxy in (here, there) * 4))
        async with asyncio.timeout(PATIENCE_S):
            while not await metric(session, here, "relproxy_relay_failures_total"):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.05)
    for relproxy in (here, there):
        await until_recorded(session, relproxy, set(glance.images))
        ledger.check(glance, await all_records(session, relproxy), [])
