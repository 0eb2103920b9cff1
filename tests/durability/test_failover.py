"""The primary is killed under load and its standby promoted; nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
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
    in_doubt,
    metric,
    settings,
)

DATABASE = "relproxy"
BEFORE, AFTER = 120, 60


@pytest.fixture
async def primary() -> AsyncIterator[Postgres]:
    server = Postgres()
    await asyncio.to_thread(server.start)
    await migrate(PostgresSettings(await asyncio.to_thread(server.create_database, DATABASE)))
    yield server
    await asyncio.to_thread(server.remove)


@pytest.fixture(params=["synchronous", "asynchronous"])
async def standby(request: pytest.FixtureRequest, primary: Postgres) -> AsyncIterator[Postgres]:
    is_synchronous = request.param == "synchronous"
    server = await asyncio.to_thread(primary.standby, synchronous=is_synchronous)
    yield server
    await asyncio.to_thread(server.remove)


async def load(
    ledger: Ledger, session: aiohttp.ClientSession, relproxy: Relproxy, attempts: int
) -> None:
    async def client() -> None:
        nonlocal attempts
        while attempts > 0:
            attempts -= 1
            await ledger.create(session, relproxy.url, "alice")

    await asyncio.gather(*(client() for _ in range(16)))


async def test_a_promoted_standby_gets_what_it_lacks(
    primary: Postgres,
    standby: Postgres,
    request: pytest.FixtureRequest,
    glance: StandIn,
    session: aiohttp.ClientSession,
    relproxy_of: Start,
    tmp_path: Path,
) -> None:
    is_synchronous = "[synchronous]" in request.node.name
    dsn = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/{DATABASE}"
    store = {"driver": "postgres", "dsn": dsn, "connect_s": 1}
    journal = {"directory": str(tmp_path / "journal"), "allow_volatile": True}
    relproxy = relproxy_of(settings(glance.url, store=store, journal=journal))
    await asyncio.to_thread(relproxy.start)
    ledger = Ledger()
    await load(ledger, session, relproxy, BEFORE)
    if not is_synchronous:
        # From here on the primary acknowledges what the standby will never have heard of.
        await asyncio.to_thread(standby.follow_no_more)
        await load(ledger, session, relproxy, BEFORE)
    under_way = asyncio.create_task(load(ledger, session, relproxy, AFTER))
    await glance.await_requests(len(glance.requests) + 5)
    await asyncio.to_thread(primary.kill)
    if not is_synchronous:
        # Before it takes writes: relproxy puts again at once what it lacks.
        count = "SELECT count(*) FROM any_image_record"
        found = int(await asyncio.to_thread(standby.execute, count, DATABASE))
        lacking = sum(a.status == 201 for a in ledger.attempts) - found
        assert lacking >= BEFORE // 2, "the standby was to lack commits"
    await asyncio.to_thread(standby.promote)
    await under_way
    await load(ledger, session, relproxy, AFTER)
    assert {attempt.status for attempt in ledger.attempts} == {201}

    deadline = time.monotonic() + PATIENCE_S
    expected = {attempt.image_id for attempt in ledger.attempts}
    while expected - await recorded(standby):
        assert time.monotonic() < deadline, "records are missing"
        await asyncio.sleep(0.1)
    while await metric(session, relproxy, "relproxy_relay_lag_seconds "):
        assert time.monotonic() < deadline, "the lag stays"
        await asyncio.sleep(0.1)
    least = 0 if is_synchronous else 2 * BEFORE
    while await metric(session, relproxy, "relproxy_relay_put_again_total") < least:
        assert time.monotonic() < deadline, "not everything is put again"
        await asyncio.sleep(0.1)
    records = await all_records(session, relproxy)
    ledger.check(glance, records, await in_doubt(session, relproxy))
    print(request.node.name, len(ledger.attempts), len(records))  # noqa: T201 - for the note


async def recorded(server: Postgres) -> set[str | None]:
    found = await asyncio.to_thread(server.execute, "SELECT image_id FROM image_relation", DATABASE)
    return set(found.split())
