"""Several hundred creates at once, through two relproxies that are killed all the while."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.postgres import Postgres
from lab.stand_in import StandIn
from relproxy.store.postgres_pool import PostgresSettings, migrate
from tests.durability.conftest import Start, settings
from tests.durability.storm import LATEST_S, Fault, Storm

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "verify"
SEEDS = range(100, 110) if IS_THOROUGH else range(1, 4)
ATTEMPTS = 500 if IS_THOROUGH else 200


@dataclass
class Kept:
    """A store, and what can happen to it."""

    settings: Mapping[str, Any]
    faults: Mapping[str, Fault]


def in_sqlite(tmp_path: Path) -> Kept:
    path = tmp_path / "store.db"
    order = random.Random(1)

    async def lock() -> None:
        with sqlite3.connect(path, isolation_level=None) as database:
            database.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(order.uniform(0.1, 1.0))
            database.execute("ROLLBACK")
        database.close()

    return Kept({"path": str(path)}, {"store locked": lock})


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
    return Kept({"driver": "postgres", "dsn": dsn}, faults)


@pytest.fixture(params=["sqlite", "postgres"])
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


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_storm_loses_and_doubles_nothing(
    seed: int, kept: Kept, glance: StandIn, relproxy_of: Start, tmp_path: Path
) -> None:
    given = settings(
        glance.url,
        # Two processes of one host: one store, one directory of journals.
        journal={
            "directory": str(tmp_path / "journal"),
            "allow_volatile": True,
            "abandon_after_s": 4 * LATEST_S,
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
    assert records >= storm.happened["answered 201"] > 0
    figures = {"tried": len(storm.ledger.attempts), "records": records, "images": images}
    print(seed, *kept.faults, figures | dict(storm.happened))  # noqa: T201 - for the note, with -s
