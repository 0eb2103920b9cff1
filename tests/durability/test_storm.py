"""Several hundred creates at once, through two relproxies that are killed all the while."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from lab.stand_in import StandIn
from tests.durability.conftest import Start, settings
from tests.durability.storm import LATEST_S, Storm

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "verify"
SEEDS = range(100, 120) if IS_THOROUGH else range(1, 4)
ATTEMPTS = 500 if IS_THOROUGH else 200


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_storm_loses_and_doubles_nothing(
    seed: int,
    glance: StandIn,
    relproxy_of: Start,
    tmp_path: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    store = tmp_path / "store.db"
    given = settings(
        glance.url,
        # Two processes of one host: one store, one directory of journals.
        journal={
            "directory": str(tmp_path / "journal"),
            "allow_volatile": True,
            "abandon_after_s": 4 * LATEST_S,
        },
        store={"path": str(store), "confirm_wait_s": 0.2},
        timeouts={"shutdown_s": 1, "read_s": 1},
    )
    relproxies = [relproxy_of(given, name) for name in ("one", "two")]
    order = random.Random(seed)

    async def lock_the_store() -> None:
        with sqlite3.connect(store, isolation_level=None) as database:
            database.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(order.uniform(0.1, 1.0))
            database.execute("ROLLBACK")
        database.close()

    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        storm = Storm(
            glance,
            relproxies,
            session,
            seed=seed,
            attempts=ATTEMPTS,
            at_once=200,
            faults={"store locked": lock_the_store},
        )
        await storm.rage()
        records, images = await storm.calm()
    assert records >= storm.happened["answered 201"] > 0
    record_testsuite_property(
        f"storm {seed}",
        {"attempts": len(storm.ledger.attempts), "records": records, "images": images}
        | dict(storm.happened),
    )
    print(seed, len(storm.ledger.attempts), records, images, dict(storm.happened))  # noqa: T201
