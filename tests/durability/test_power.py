"""The power fails, or the disk does: what was synced is there, and nothing else was promised."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.power import STALL, Disk, Event
from lab.relproxy import Relproxy
from lab.stand_in import StandIn
from tests.durability.conftest import (
    Ledger,
    Start,
    all_records,
    in_doubt,
    metric,
    settings,
    settled,
    until_recorded,
)

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "verify"
LOSSES = 30 if IS_THOROUGH else 4
AT_ONCE = 64
CLIENT = {"X-Project-Id": "alice", "X-Roles": "member"}


def on(disk: Disk, glance: StandIn, **more: Any) -> dict[str, Any]:
    return settings(
        glance.url,
        journal={"directory": str(disk.root / "journal"), "allow_volatile": True, **more},
        store={"path": str(disk.root / "store" / "store.db")},
    )


def power_of(disk: Disk, relproxy_of: Start, glance: StandIn, **more: Any) -> Relproxy:
    relproxy = relproxy_of(on(disk, glance, **more))
    relproxy.environment = disk.environment
    return relproxy


async def lose_power_again_and_again(
    disk: Disk, relproxy: Relproxy, session: aiohttp.ClientSession, ledger: Ledger, seed: int
) -> None:
    """Create from many clients at once, and let the power fail at any moment of it.

    The first time it fails, nothing but an empty directory for the store was there before.
    """
    order = random.Random(seed)

    async def client() -> None:
        while (await ledger.create(session, relproxy.url, "alice")).status is not None:
            pass

    for _ in range(LOSSES):
        await asyncio.to_thread(relproxy.start)
        clients = [asyncio.create_task(client()) for _ in range(AT_ONCE)]
        await asyncio.sleep(order.uniform(0, 0.5))
        await asyncio.to_thread(relproxy.kill)
        await asyncio.gather(*clients)
        await asyncio.to_thread(disk.lose_power)
    await asyncio.to_thread(relproxy.start)
    await settled(session, relproxy)


async def test_power_loss_loses_and_doubles_nothing(
    tmp_path: Path,
    glance: StandIn,
    session: aiohttp.ClientSession,
    relproxy_of: Start,
    seed: int,
) -> None:
    disk, ledger = Disk(tmp_path / "power"), Ledger()
    relproxy = power_of(disk, relproxy_of, glance)
    await lose_power_again_and_again(disk, relproxy, session, ledger, seed)
    records = await all_records(session, relproxy)
    doubtful = await in_doubt(session, relproxy)
    ledger.check(glance, records, doubtful)
    answered = sum(attempt.status == 201 for attempt in ledger.attempts)
    assert answered > LOSSES
    figures = {"losses": LOSSES, "tried": len(ledger.attempts), "answered 201": answered}
    figures |= {"records": len(records), "in doubt": len(doubtful)}
    print(f"seed {seed}", figures)  # noqa: T201 - for the note, with -s


async def test_the_proof_turns_red_on_a_disk_that_does_not_sync(
    tmp_path: Path, glance: StandIn, session: aiohttp.ClientSession, relproxy_of: Start
) -> None:
    disk, ledger = Disk(tmp_path / "power", lies=True), Ledger()
    relproxy = power_of(disk, relproxy_of, glance)
    await asyncio.to_thread(relproxy.start)
    assert (await ledger.create(session, relproxy.url, "alice")).status == 201
    await asyncio.to_thread(relproxy.kill)
    await asyncio.to_thread(disk.lose_power)
    await asyncio.to_thread(relproxy.start)
    with pytest.raises(AssertionError, match="a 201 was read, and there is no record"):
        ledger.check(glance, await all_records(session, relproxy), [])
    with pytest.raises(AssertionError):
        check_order(disk.events(), made=list(glance.images))


MESSAGE = re.compile(
    rb"(?P<line>[A-Z]+ [^ ]+ HTTP/1\.1|HTTP/1\.1 \d+[^\r]*)\r\n(?P<head>.*?\r\n)\r\n",
    re.DOTALL,
)
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass
class Messages:
    """What one connection carries, taken apart."""

    unread: bytes = b""
    began: int = 0

    def add(self, data: bytes, moment: int) -> Iterator[tuple[int, str, bytes]]:
        """Return each whole message: when its first byte left, its first line, its body."""
        if not self.unread:
            self.began = moment
        self.unread += data
        while (found := MESSAGE.match(self.unread)) is not None:
            length = LENGTH.search(found["head"])
            end = found.end() + (int(length[1]) if length else 0)
            if len(self.unread) < end:
                return
            yield self.began, found["line"].decode(), self.unread[found.end() : end]
            self.unread, self.began = self.unread[end:], moment


@dataclass
class Order:
    """When what became durable, and when what left, by image id."""

    unsynced: dict[str, list[bytes]] = field(default_factory=dict)
    durable: dict[tuple[str, str], int] = field(default_factory=dict)
    left: dict[tuple[str, str], int] = field(default_factory=dict)


NEVER = sys.maxsize
ENTRY = re.compile(rb"create(begun|completed)glance([0-9a-f-]{36})")


def order_of(events: Iterator[Event]) -> Order:
    """Read the trace: the journal's rows as they are synced, creates and answers as they leave."""
    order = Order()
    connections: dict[str, Messages] = {}
    for moment, event in enumerate(events):
        if event.kind == "write" and "/journal/worker-" in event.subject:
            order.unsynced.setdefault(event.subject, []).append(event.data)
        elif event.kind == "sync":
            for data in order.unsynced.pop(event.subject, ()):
                for state, image_id in ENTRY.findall(data):
                    order.durable.setdefault((state.decode(), image_id.decode()), moment)
        elif event.kind == "send":
            messages = connections.setdefault(event.subject, Messages())
            for began, line, body in messages.add(event.data, moment):
                kind = "create" if line.startswith("POST /v2/images ") else "answer"
                found = re.search(rb'"id": ?"([0-9a-f-]{36})"', body)
                if found is not None:
                    order.left[kind, found[1].decode()] = began
    return order


def check_order(events: Iterator[Event], *, made: list[str]) -> None:
    """Each create left after its intent was synced, and each 201 after its completion was."""
    order = order_of(events)
    assert {image_id for kind, image_id in order.left if kind == "create"} == set(made)
    for kind, state in (("create", "begun"), ("answer", "completed")):
        for image_id in made:
            assert order.durable.get((state, image_id), NEVER) < order.left[kind, image_id]


async def test_what_leaves_has_been_synced_before(
    tmp_path: Path, glance: StandIn, session: aiohttp.ClientSession, relproxy_of: Start
) -> None:
    disk, ledger = Disk(tmp_path / "power"), Ledger()
    relproxy = power_of(disk, relproxy_of, glance)
    await asyncio.to_thread(relproxy.start)
    for at_once in (1, 1, AT_ONCE):
        creates = (ledger.create(session, relproxy.url, "alice") for _ in range(at_once))
        assert {attempt.status for attempt in await asyncio.gather(*creates)} == {201}
    await asyncio.to_thread(relproxy.stop)
    check_order(disk.events(), made=list(glance.images))


FAULTS = [
    ("sync", errno.EIO),
    ("write", errno.ENOSPC),
    ("write", errno.EROFS),
]


async def listed(session: aiohttp.ClientSession, relproxy: Relproxy) -> list[str]:
    async with session.get(f"{relproxy.url}/v2/images", headers=CLIENT) as answer:
        assert answer.status == 200
        return [image["id"] for image in (await answer.json())["images"]]


@pytest.mark.parametrize(("operation", "number"), FAULTS)
async def test_a_create_is_refused_while_its_intent_cannot_be_written(
    operation: str,
    number: int,
    tmp_path: Path,
    glance: StandIn,
    session: aiohttp.ClientSession,
    relproxy_of: Start,
) -> None:
    disk, ledger = Disk(tmp_path / "power"), Ledger()
    relproxy = power_of(disk, relproxy_of, glance)
    await asyncio.to_thread(relproxy.start)
    assert (await ledger.create(session, relproxy.url, "alice")).status == 201
    with disk.failing(operation, number, disk.root / "journal"):
        for _ in range(3):
            assert (await ledger.create(session, relproxy.url, "alice")).status == 503
        assert await listed(session, relproxy) == list(glance.images)
    assert len(glance.images) == 1
    assert (await ledger.create(session, relproxy.url, "alice")).status == 201
    refused = 'relproxy_records_total{registry="glance",result="refused"}'
    assert await metric(session, relproxy, refused) == 3
    # And what was promised before and after survives the power loss that often follows.
    await asyncio.to_thread(relproxy.kill)
    await asyncio.to_thread(disk.lose_power)
    await asyncio.to_thread(relproxy.start)
    await settled(session, relproxy)
    doubtful = await in_doubt(session, relproxy)
    ledger.check(glance, await all_records(session, relproxy), doubtful)


async def test_a_create_is_forwarded_unrecorded_where_that_is_configured(
    tmp_path: Path, glance: StandIn, session: aiohttp.ClientSession, relproxy_of: Start
) -> None:
    disk, ledger = Disk(tmp_path / "power"), Ledger()
    relproxy = power_of(disk, relproxy_of, glance, when_unwritable="forward")
    await asyncio.to_thread(relproxy.start)
    with disk.failing("write", errno.ENOSPC, disk.root / "journal"):
        assert (await ledger.create(session, relproxy.url, "alice")).status == 201
    unrecorded = 'relproxy_records_total{registry="glance",result="unrecorded"}'
    assert await metric(session, relproxy, unrecorded) == 1
    (made,) = glance.images
    assert await all_records(session, relproxy) == []
    assert await listed(session, relproxy) == [made]


@pytest.mark.parametrize(("operation", "number"), FAULTS)
async def test_no_201_is_sent_while_the_completion_cannot_be_written(
    operation: str,
    number: int,
    tmp_path: Path,
    glance: StandIn,
    session: aiohttp.ClientSession,
    relproxy_of: Start,
) -> None:
    disk, ledger = Disk(tmp_path / "power"), Ledger()
    relproxy = power_of(disk, relproxy_of, glance)
    await asyncio.to_thread(relproxy.start)
    fault = disk.failing(operation, number, disk.root / "journal")

    async def break_the_disk() -> None:
        glance.faults.after_create = None
        fault.__enter__()

    glance.faults.after_create = break_the_disk
    assert (await ledger.create(session, relproxy.url, "alice")).status == 503
    assert len(glance.images) == 1
    fault.__exit__(None, None, None)
    # The registry has the image, so it gets its record: the settlement asks for it.
    await until_recorded(session, relproxy, set(glance.images))
    ledger.check(glance, await all_records(session, relproxy), [])


async def test_a_disk_that_stands_still_holds_up_creates_and_nothing_else(
    tmp_path: Path, glance: StandIn, session: aiohttp.ClientSession, relproxy_of: Start
) -> None:
    disk, ledger = Disk(tmp_path / "power"), Ledger()
    relproxy = power_of(disk, relproxy_of, glance)
    await asyncio.to_thread(relproxy.start)
    assert (await ledger.create(session, relproxy.url, "alice")).status == 201
    with disk.failing("sync", STALL, disk.root / "journal"):
        waiting = asyncio.create_task(ledger.create(session, relproxy.url, "alice"))
        for _ in range(5):
            assert await listed(session, relproxy) == list(glance.images)
            async with session.get(f"{relproxy.admin_url}/healthz") as answer:
                assert answer.status == 200
        assert (len(glance.images), waiting.done()) == (1, False)
    assert (await waiting).status == 201
    ledger.check(glance, await all_records(session, relproxy), [])


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EIO])
async def test_a_start_on_a_disk_that_takes_nothing_is_refused_with_a_sentence(
    number: int, tmp_path: Path, glance: StandIn, relproxy_of: Start
) -> None:
    disk = Disk(tmp_path / "power")
    relproxy = power_of(disk, relproxy_of, glance)
    with disk.failing("open", number, disk.root / "journal"):
        with suppress(Exception):
            await asyncio.to_thread(relproxy.start)
        assert await asyncio.to_thread(relproxy.await_end) == 78
    said = relproxy.log.read_text()
    assert "journal" in said
    assert "Traceback" not in said
