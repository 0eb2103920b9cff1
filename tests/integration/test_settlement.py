"""Settling at close quarters: the registry's refusals, and others who settle at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.stand_in import StandIn
from relproxy.config import Limits, Timeouts
from relproxy.endpoints import Endpoints
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.metrics import Metrics
from relproxy.model import Intent
from relproxy.settlement import Asked, Settlement, SettlementParts, front_credentials
from relproxy.store.base import Entry, EntryState
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_row import Row
from relproxy.store.overlay import Overlay
from relproxy.store.relay import Relay, Terms
from relproxy.store.sqlite import SqliteStore
from relproxy.upstream import Upstream, open_session

FRONT = front_credentials(frozenset({"admin"}))


@dataclass
class Login:
    """Credentials that end when they are forgotten; each answer may be preceded by something."""

    forgotten: int = 0
    before: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def headers(self) -> tuple[tuple[str, str], ...]:
        for happening in self.before:
            await happening()
        return (("X-Auth-Token", f"token-{self.forgotten}"), *FRONT.fields)

    async def forget(self) -> None:
        self.forgotten += 1


@dataclass
class Setting:
    journal: LocalJournal
    file: JournalFile
    login: Login
    settlement: Settlement

    async def doubtful(self, image_id: str) -> Entry:
        intent = Intent("glance", "alice", None, image_id, is_assigned=True)
        entry = await self.journal.begin(intent)
        await self.journal.doubt(entry, "cut off")
        return entry

    def row(self, entry: Entry) -> Row:
        found = self.file.find(entry.id)
        assert found is not None
        return found


@pytest.fixture
async def setting(tmp_path: Path, trusting: StandIn) -> AsyncIterator[Setting]:
    directory = tmp_path / "journal"
    directory.mkdir()
    journal = LocalJournal(JournalFile(directory / "worker-0.db"))
    metrics, login = Metrics(), Login()
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    journals = HostJournals(directory)
    file = JournalFile(directory / "worker-0.db")
    async with open_session(Timeouts()) as session:
        upstream = Upstream("glance", Endpoints((trusting.url,)), session, metrics)
        parts = SettlementParts(
            journal,
            Relay(journal, store, metrics, Terms(1, 60, 1)),
            {"glance": Asked(upstream, GlanceV2(), login)},
            Overlay(journals, store),
            Limits(),
            metrics,
        )
        yield Setting(journal, file, login, Settlement(parts, abandon_after_s=60))
    await journal.close()
    await journals.close()
    await store.close()
    file.close()


async def test_credentials_that_the_registry_refuses_are_not_used_again(
    setting: Setting, trusting: StandIn
) -> None:
    entry = await setting.doubtful(trusting.add_image(name="a", owner="alice")["id"])
    trusting.faults.status = (401, b"expired")
    await setting.settlement.settle()
    assert setting.login.forgotten == 1
    row = setting.row(entry)
    assert (row.state, row.reason) == (
        EntryState.IN_DOUBT,
        "The registry answers 401 when asked for the image.",
    )
    sent = [dict(request.headers) for request in trusting.requests]
    assert [headers[b"X-Auth-Token"] for headers in sent] == [b"token-0"]


async def test_an_entry_that_a_person_settles_meanwhile_stays_settled(
    setting: Setting, trusting: StandIn
) -> None:
    first = await setting.doubtful(trusting.add_image(name="a", owner="alice")["id"])
    second = await setting.doubtful(trusting.add_image(name="b", owner="alice")["id"])

    async def settled_by_hand() -> None:
        setting.login.before.clear()
        abandoned = (EntryState.IN_DOUBT,), EntryState.ABANDONED
        setting.file.together([lambda: setting.file.move(first.id, *abandoned)])

    setting.login.before.append(settled_by_hand)
    await setting.settlement.settle()
    assert setting.row(first).state is EntryState.ABANDONED
    # And it is no reason to leave the others.
    assert setting.row(second).state is EntryState.COMPLETED


async def test_a_disk_that_fails_ends_a_round_and_not_the_settlement(
    setting: Setting, trusting: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await setting.doubtful(trusting.add_image(name="a", owner="alice")["id"])
    failed = asyncio.Event()

    def refuse(*_: object, **__: object) -> None:
        failed.set()
        raise OSError(5, "no disk")

    running = asyncio.create_task(setting.settlement.run())
    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "complete", refuse)
        await asyncio.wait_for(failed.wait(), 30)
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while setting.row(entry).state is not EntryState.COMPLETED:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert not running.done()
    running.cancel()
