"""relproxy is killed between every two writes of a create, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from lab.stand_in import StandIn
from relproxy.failpoints import NAMES
from tests.durability.conftest import Ledger, Start, all_records, in_doubt, settings, settled


@pytest.mark.parametrize("name", NAMES)
async def test_a_process_killed_at_a_failpoint_loses_and_doubles_nothing(
    name: str, glance: StandIn, session: aiohttp.ClientSession, relproxy_of: Start
) -> None:
    ledger = Ledger()
    relproxy = relproxy_of(settings(glance.url))
    relproxy.environment = {"RELPROXY_FAILPOINT": f"{name}:3"}
    await asyncio.to_thread(relproxy.start)
    for _ in range(5):
        await ledger.create(session, relproxy.url, "alice")
    # Killed by itself, or the failpoint is not on the way of a create.
    assert await asyncio.to_thread(relproxy.await_end) == -9
    assert sum(a.status == 201 for a in ledger.attempts) in {2, 3}

    relproxy.environment = {}
    await asyncio.to_thread(relproxy.start)
    await settled(session, relproxy)
    await ledger.create(session, relproxy.url, "alice")
    assert ledger.attempts[-1].status == 201
    records = await all_records(session, relproxy)
    ledger.check(glance, records, await in_doubt(session, relproxy))


async def test_a_refused_create_is_recorded_at_no_failpoint(
    glance: StandIn, session: aiohttp.ClientSession, relproxy_of: Start
) -> None:
    glance.faults.status = (413, b"quota")
    ledger = Ledger()
    relproxy = relproxy_of(settings(glance.url))
    await asyncio.to_thread(relproxy.start)
    assert (await ledger.create(session, relproxy.url, "alice")).status == 413
    await asyncio.to_thread(relproxy.kill)
    glance.faults.status = None
    await asyncio.to_thread(relproxy.start)
    assert await in_doubt(session, relproxy) == []
    assert await all_records(session, relproxy) == []
