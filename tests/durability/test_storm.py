"""Several hundred creates at once, through two relproxies that are killed all the while."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.postgres import Postgres
from lab.stand_in import StandIn
from relproxy.store.base import Store
from relproxy.store.journal_room import files_in
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings, migrate
from relproxy.store.sqlite import SqliteStore
from tests.durability.conftest import PATIENCE_S, Start, settings
from tests.durability.storm import LATEST_S, Fault, Storm

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "verify"
STORMS = (
    [(store, seed) for store in ("sqlite", "postgres") for seed in range(100, 110)]
    if IS_THOROUGH
    else [("sqlite", 1), ("postgres", 2), ("postgres", 3)]
)
ATTEMPTS = 500 if IS_THOROUGH else 200


@dataclass
class Kept:
    """A store, and what can happen to it."""

    settings: Mapping[str, Any]
    faults: Mapping[str, Fault]
    store: Store

    async def rows(self) -> list[dict[str, Any]]:
        """Return what is in the store itself."""
        await self.store.open()
        try:
            found = [kept.record async for some in self.store.walk(None) for kept in some]
        finally:
            await self.store.close()
        return [
            {"image_id": r.image_id, "instance_id": r.capture.instance.id}
            for r in found
            if r.capture is not None
        ]


def in_sqlite(tmp_path: Path) -> Kept:
    path = tmp_path / "store.db"
    order = random.Random(1)

    async def lock() -> None:
        with sqlite3.connect(path, isolation_level=None) as database:
            database.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(order.uniform(0.1, 1.0))
            database.execute("ROLLBACK")
        database.close()

    return Kept({"path": str(path)}, {"store locked": lock}, SqliteStore(path))


def in_postgres(server: Postgres, dsn: str) -> Kept:
    async def restart() -> None:
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)

    async def crash() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    async def cut() -> None:
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> "
        await asyncio.to_thread(server.execute, f"{statement} pg_backend_pid()")

    faults = {"store restarted": restart, "store killed": crash, "connections cut": cut}
    store = PostgresStore(PostgresSettings(dsn))
    return Kept({"driver": "postgres", "dsn": dsn}, faults, store)


@pytest.fixture
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    if request.param == "sqlite":
        yield in_sqlite(tmp_path)
        return
    server = Postgres()
    await asyncio.to_thread(server.start)
    dsn = await asyncio.to_thread(server.create_database, "relproxy")
    await migrate(PostgresSettings(dsn))
    yield in_postgres(server, dsn)
    await asyncio.to_thread(server.remove)


async def everything_is_delivered(journals: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    for path in files_in(journals):
        with closing(sqlite3.connect(path)) as journal:
            count = "SELECT count(*) FROM entry WHERE state = 'completed'"
            while left := journal.execute(count).fetchone()[0]:
                assert time.monotonic() < deadline, f"{left} entries of {path} stay undelivered"
                await asyncio.sleep(0.1)


@pytest.mark.parametrize(("kept", "seed"), STORMS, indirect=["kept"])
async def test_a_storm_loses_and_doubles_nothing(
    seed: int, kept: Kept, glance: StandIn, relproxy_of: Start, tmp_path: Path
) -> None:
    given = settings(
        glance.url,
        # Two processes of one host: one store, one directory of journals.
        journal={
            "directory": str(tmp_path / "journal"),
            "allow_volatile": True,
            # The registry is in this process: on a machine that is busy it is late with everything.
            "abandon_after_s": 10 * LATEST_S,
        },
        store={"confirm_wait_s": 0.2, "connect_s": 1, **kept.settings},
        timeouts={"shutdown_s": 1, "read_s": 1},
    )
    relproxies = [relproxy_of(given, name) for name in ("one", "two")]
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        storm = Storm(
            glance,
            relproxies,
            session,
            seed=seed,
            attempts=ATTEMPTS,
            at_once=200,
            faults=dict(kept.faults),
        )
        await storm.rage()
        records, images = await storm.calm()
        await everything_is_delivered(tmp_path / "journal")
        storm.ledger.check(glance, await kept.rows(), [])
    assert records >= storm.happened["answered 201"] > 0
    figures = {"tried": len(storm.ledger.attempts), "records": records, "images": images}
    print(seed, *kept.faults, figures | dict(storm.happened))  # noqa: T201 - for the note, with -s
