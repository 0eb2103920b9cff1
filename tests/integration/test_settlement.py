"""Settling at close quarters: the registry's refusals, and others who settle at the same time."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.stand_in import StandIn
from relproxy.config import Limits, Timeouts
from relproxy.endpoints import Endpoints
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.messages import PLAIN, Errand, Headers, RequestBody, Response
from relproxy.metrics import Metrics
from relproxy.model import (
    Capture,
    CreatedImage,
    Grade,
    ImageRecord,
    Instance,
    Intent,
    Ownership,
)
from relproxy.settlement import Asked, Settlement, SettlementParts, front_credentials
from relproxy.store.base import Entry, EntryKind, EntryState
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_row import Row
from relproxy.store.overlay import Overlay
from relproxy.store.relay import Relay, Terms
from relproxy.store.sqlite import SqliteStore
from relproxy.upstream import Upstream, open_session
from tests.entries import CREATED_AT, doubtful
from tests.integration.conftest import eventually

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

    def forget(self, _: tuple[tuple[str, str], ...]) -> None:
        self.forgotten += 1

    async def close(self) -> None:
        """Nothing is under way."""


class Interrupted(Upstream):
    """A way to the registry on which something happens once its next answer has left it."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: RequestBody | bytes | None = None,
        *,
        errand: Errand = PLAIN,
    ) -> Response:
        response = await super().send(method, target, headers, body, errand=errand)
        happening, self.meanwhile = self.meanwhile, None
        if happening is not None:
            await happening()
        return response


@dataclass
class Setting:
    journal: LocalJournal
    file: JournalFile
    login: Login
    parts: SettlementParts
    upstream: Interrupted
    store: SqliteStore
    relay: Relay
    settlement: Settlement

    async def doubtful(self, image_id: str) -> Entry:
        intent = Intent("glance", "alice", None, image_id, is_assigned=True)
        entry = await self.journal.begin(intent)
        await self.journal.doubt(entry, "cut off")
        return entry

    def row(self, entry: Entry | Row) -> Row:
        found = self.file.find(entry.id)
        assert found is not None
        return found

    def add(self, *rows: Row) -> None:
        assert self.file.together([lambda: self.file.add(rows)]) == [None]

    def add_beside(self, *rows: Row) -> None:
        """Write entries into another worker's journal."""
        other = JournalFile(self.file.path.with_name("worker-1.db"))
        assert other.together([lambda: other.add(rows)]) == [None]
        other.close()

    async def state(self, entry: Entry | Row) -> EntryState:
        return self.row(entry).state

    def end(self, entry: Entry | Row) -> tuple[EntryState, str | None]:
        row = self.row(entry)
        return row.state, row.reason

    def gauge(self) -> float | None:
        return self.parts.metrics.shown().get_sample_value("relproxy_journal_in_doubt")

    async def owner(self, image_id: str) -> str:
        """Return whose an image is, by record, once all is delivered."""
        await self.relay.flush()
        return (await self.store.owners("glance", (image_id,)))[image_id].project


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
        upstream = Interrupted("glance", Endpoints((trusting.url,)), session, metrics)
        relay = Relay(journal, store, metrics, Terms(1, 60, 1))
        parts = SettlementParts(
            journal,
            relay,
            {"glance": Asked(upstream, GlanceV2(), login, shows_every_image=True)},
            Overlay(journals, store),
            Limits(),
            metrics,
            journals,
        )
        settlement = Settlement(parts, abandon_after_s=60)
        yield Setting(journal, file, login, parts, upstream, store, relay, settlement)
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
    assert setting.end(entry) == (
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
    await eventually(lambda: setting.state(entry), EntryState.COMPLETED)
    assert not running.done()
    running.cancel()


async def test_an_owner_that_the_registry_has_taken_since_it_was_asked_is_the_later_one(
    setting: Setting, trusting: StandIn
) -> None:
    image = trusting.add_image(name="a", owner="bob")
    image_id, created_at = image["id"], image["created_at"]
    now = datetime.now(UTC)
    await setting.store.put(
        [ImageRecord("glance", image_id, created_at, "alice", capture=None, recorded_at=now)]
    )
    change = Intent("glance", None, None, image_id), EntryKind.OWNER
    await setting.journal.doubt(await setting.journal.begin(*change), "403")

    async def given_to_carol() -> None:
        entry = await setting.journal.begin(*change)
        await setting.journal.complete(entry, CreatedImage(image_id, created_at, "carol"))

    setting.upstream.meanwhile = given_to_carol
    await setting.settlement.settle()
    assert await setting.owner(image_id) == "carol"


async def test_a_registry_that_may_hide_images_does_not_say_which_one_has_a_name(
    setting: Setting, trusting: StandIn
) -> None:
    trusting.add_image(name="backup", owner="alice", visibility="public")
    row = doubtful(None, is_assigned=False, image_name="backup")
    setting.add(row)
    asked = replace(setting.parts.registries["glance"], shows_every_image=False)
    parts = replace(setting.parts, registries={"glance": asked})
    await Settlement(parts, abandon_after_s=60).settle()
    assert setting.end(row) == (
        EntryState.IN_DOUBT,
        "The registry shows no such image to a stranger: give relproxy credentials for it.",
    )


async def test_an_answer_about_another_image_settles_nothing(
    setting: Setting, trusting: StandIn
) -> None:
    other = trusting.add_image(name="a", owner="bob")
    trusting.faults.status = (200, json.dumps(other).encode())
    entry = await setting.doubtful("2c3a3a0e-33c4-4d29-8d7f-6f0a9b7a0d01")
    await setting.settlement.settle()
    reason = "The registry answered with another image."
    assert setting.end(entry) == (EntryState.IN_DOUBT, reason)


async def test_a_change_of_the_owner_of_what_has_no_record_ends_by_itself(
    setting: Setting, trusting: StandIn
) -> None:
    """Anybody makes them while the registry fails; without credentials it says nothing of them."""
    trusting.faults.status = (401, b"")
    known, unknown, young = ids = [str(uuid.uuid4()) for _ in range(3)]
    now = datetime.now(UTC)
    await setting.store.put([ImageRecord("glance", known, CREATED_AT, "alice", None, now)])
    old = now - timedelta(seconds=61)
    rows = {
        image_id: doubtful(
            image_id, kind=EntryKind.OWNER, begun_at=now if image_id == young else old
        )
        for image_id in ids
    }
    create = doubtful(str(uuid.uuid4()), begun_at=old)
    setting.add(*rows.values(), create)
    await setting.settlement.settle()
    assert setting.end(rows[unknown]) == (EntryState.ABANDONED, "no record names the image")
    for row in (rows[known], rows[young], create):
        assert setting.row(row).state is EntryState.IN_DOUBT


def unowned(glance: StandIn, **fields: Any) -> str:
    """Make an image as a registry without owners does; return its id."""
    image_id: str = glance.add_image(**{"name": "backup", "owner": None} | fields)["id"]
    return image_id


def chosen(image_id: str, project: str, **fields: Any) -> Row:
    """Return a create in doubt whose client chose the id."""
    return doubtful(image_id, is_assigned=False, project=project, **fields)


def named(project: str, **fields: Any) -> Row:
    """Return a create in doubt whose id is not known."""
    return doubtful(None, is_assigned=False, project=project, image_name="backup", **fields)


def made(row: Row, image_id: str, state: EntryState) -> Row:
    """Return a create whose image is known."""
    now = datetime.now(UTC)
    return replace(row, image_id=image_id, state=state, created_at=CREATED_AT, at=now)


async def test_no_image_is_settled_for_a_stranger(setting: Setting, trusting: StandIn) -> None:
    """Who has no token needs only an image's id, or its name, to claim where it comes from."""
    image_id = trusting.add_image(name="backup", owner="alice")["id"]
    claimed = Capture(Instance("6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01", "123"), Grade.CLAIMED)
    vouched = replace(claimed, grade=Grade.VOUCHED)
    nobody: dict[str, Any] = {"project": None, "capture": claimed}
    strangers = [replace(row, **nobody) for row in (chosen(image_id, "x"), named("x"))]
    setting.add(*strangers)
    await setting.settlement.settle()
    for row in strangers:
        assert setting.end(row) == (EntryState.ABANDONED, "nobody is known to have sent it")
    # A trusted source's waits for a person, but where relproxy chose the id itself.
    nobodys = replace(chosen(image_id, "x"), project=None, capture=vouched)
    setting.add(nobodys)
    await setting.settlement.settle()
    reason = "Nobody is known to have sent it: a person has to say whose it is."
    assert setting.end(nobodys) == (EntryState.IN_DOUBT, reason)
    setting.add(replace(nobodys, id="ours", is_assigned=True))
    await setting.settlement.settle()
    assert await setting.owner(image_id) == "alice"


def waiting_for(row: Row) -> tuple[EntryState, str]:
    reason = f"Another create may have made the image, and has not ended: entry {row.id}."
    return EntryState.IN_DOUBT, reason


OPEN = pytest.mark.parametrize(
    "state", [EntryState.BEGUN, EntryState.IN_DOUBT, EntryState.COMPLETED]
)


async def test_of_two_projects_in_doubt_of_one_chosen_id_neither_gets_the_image(
    setting: Setting, trusting: StandIn
) -> None:
    image_id = unowned(trusting)
    mallorys, alices = chosen(image_id, "mallory"), chosen(image_id, "alice")
    setting.add(mallorys, alices)
    await setting.settlement.settle()
    assert setting.end(mallorys) == waiting_for(alices)
    assert setting.end(alices) == waiting_for(mallorys)


@OPEN
async def test_an_image_is_not_taken_from_a_create_of_its_id_in_any_workers_journal(
    setting: Setting, trusting: StandIn, state: EntryState
) -> None:
    image_id = unowned(trusting)
    mallorys = chosen(image_id, "mallory")
    alices = made(chosen(image_id, "alice"), image_id, state)
    setting.add(mallorys)
    setting.add_beside(alices)
    await setting.settlement.settle()
    assert setting.end(mallorys) == waiting_for(alices)


@pytest.mark.parametrize("state", [EntryState.BEGUN, EntryState.IN_DOUBT])
async def test_an_image_is_not_taken_from_a_create_of_its_name_in_any_workers_journal(
    setting: Setting, trusting: StandIn, state: EntryState
) -> None:
    unowned(trusting)
    mallorys, alices = named("mallory"), named("alice", state=state)
    setting.add(mallorys)
    setting.add_beside(alices)
    await setting.settlement.settle()
    assert setting.end(mallorys) == waiting_for(alices)


@OPEN
async def test_an_image_of_the_name_is_not_taken_from_a_create_of_its_id(
    setting: Setting, trusting: StandIn, state: EntryState
) -> None:
    """Else a create without an id would get what another, with one, has made."""
    image_id = unowned(trusting)
    mallorys = named("mallory")
    alices = made(chosen(image_id, "alice"), image_id, state)
    setting.add(mallorys)
    setting.add_beside(alices)
    await setting.settlement.settle()
    # One that is completed owns the image already, before the store knows.
    is_known = state is EntryState.COMPLETED
    nothing = "0 images of this name fit: a person has to say which."
    expected = (EntryState.IN_DOUBT, nothing) if is_known else waiting_for(alices)
    assert setting.end(mallorys) == expected


async def test_a_create_that_begins_while_the_registry_is_asked_keeps_its_image(
    setting: Setting, trusting: StandIn
) -> None:
    image_id = "2c3a3a0e-33c4-4d29-8d7f-6f0a9b7a0d01"
    mallorys = chosen(image_id, "mallory")
    setting.add(mallorys)
    entries: list[Entry] = []

    async def alice_creates() -> None:
        setting.login.before.clear()
        entries.append(await setting.journal.begin(Intent("glance", "alice", None, image_id)))
        unowned(trusting, id=image_id)

    setting.login.before.append(alice_creates)
    await setting.settlement.settle()
    (entry,) = entries
    assert setting.end(mallorys) == waiting_for(setting.row(entry))
    image = CreatedImage(image_id, trusting.images[image_id]["created_at"], None)
    await setting.journal.complete(entry, image)
    assert await setting.owner(image_id) == "alice"


async def test_a_create_that_is_delivered_between_two_looks_keeps_its_image(
    setting: Setting, trusting: StandIn
) -> None:
    """The store is looked at last: else it would have been in neither."""
    image_id = unowned(trusting)
    mallorys = chosen(image_id, "mallory")
    setting.add(mallorys)
    entry = await setting.journal.begin(Intent("glance", "alice", None, image_id))
    owners = setting.parts.owners

    class Slow:
        async def owners(self, registry: str, ids: Collection[str]) -> Mapping[str, Ownership]:
            found = await owners.owners(registry, ids)
            await setting.journal.complete(entry, CreatedImage(image_id, CREATED_AT, None))
            await setting.relay.flush()
            return found

    parts = replace(setting.parts, owners=Slow())
    await Settlement(parts, abandon_after_s=60).settle()
    assert setting.end(mallorys) == waiting_for(setting.row(entry))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"state": EntryState.ABANDONED}, id="ended without an image"),
        pytest.param({"registry": "another"}, id="at another registry"),
        pytest.param({"kind": EntryKind.OWNER}, id="not a create"),
        pytest.param({"image_id": "another"}, id="of another id, though of the same name"),
        pytest.param({"image_id": None}, id="whose id the registry chooses"),
    ],
)
async def test_only_a_create_that_may_have_made_the_image_is_in_the_way(
    setting: Setting, trusting: StandIn, other: dict[str, Any]
) -> None:
    image_id = unowned(trusting)
    mine = chosen(image_id, "alice", image_name="backup")
    setting.add(mine)
    setting.add_beside(replace(mine, **{"id": "another", "project": "bob"} | other))
    await setting.settlement.settle()
    assert await setting.owner(image_id) == "alice"


async def test_a_create_of_another_id_is_not_in_the_way_of_one_whose_name_it_has(
    setting: Setting, trusting: StandIn
) -> None:
    image_id = unowned(trusting)
    setting.add(named("alice"))
    setting.add_beside(replace(named("bob"), image_id="another"))
    await setting.settlement.settle()
    assert await setting.owner(image_id) == "alice"


async def test_a_create_that_is_being_adopted_is_not_in_its_own_way(
    setting: Setting, trusting: StandIn
) -> None:
    """It stands in two files, and only one is this worker's."""
    image_id = unowned(trusting)
    mine = named("alice")
    setting.add(mine)
    setting.add_beside(replace(mine, state=EntryState.BEGUN))
    await setting.settlement.settle()
    assert await setting.owner(image_id) == "alice"


@pytest.mark.parametrize("registry", ["glance", "gone"])
async def test_entries_that_wait_for_a_person_starve_none_behind_them(
    setting: Setting, trusting: StandIn, registry: str
) -> None:
    """More than are read at once, at the same registry or at another, in front and behind."""
    waiting = [doubtful(None, registry=registry) for _ in range(1200)]
    good = doubtful(trusting.add_image(name="a", owner="alice")["id"])
    setting.add(*waiting[:1000], good, *waiting[1000:])
    for _ in range(3):
        await setting.settlement.settle()
    assert setting.row(good).state is EntryState.COMPLETED
    assert setting.row(waiting[-1]).reason != "cut off"
    await setting.settlement.settle()
    assert setting.gauge() == 1200


async def test_entries_that_come_later_are_gone_through_too_and_the_first_ones_again(
    setting: Setting, trusting: StandIn
) -> None:
    first = await setting.doubtful(trusting.add_image(name="a", owner="alice")["id"])
    trusting.faults.status = (500, b"no")
    await setting.settlement.settle()
    assert setting.row(first).state is EntryState.IN_DOUBT
    trusting.faults.status = None
    second = await setting.doubtful(trusting.add_image(name="b", owner="alice")["id"])
    await setting.settlement.settle()
    # The first one's time has not come again.
    assert setting.row(first).state is EntryState.IN_DOUBT
    assert setting.row(second).state is EntryState.COMPLETED
    running = asyncio.create_task(setting.settlement.run())
    await eventually(lambda: setting.state(first), EntryState.COMPLETED)
    running.cancel()


async def test_a_registry_that_says_nothing_holds_up_no_other(
    setting: Setting, trusting: StandIn
) -> None:
    async with StandIn() as silent, open_session(Timeouts()) as session:
        silent.faults.delay = asyncio.Event()
        upstream = Upstream("silent", Endpoints((silent.url,)), session, Metrics())
        registries = {**setting.parts.registries, "silent": Asked(upstream, GlanceV2(), FRONT)}
        setting.add(*(doubtful("a", registry="silent") for _ in range(3)))
        settlement = Settlement(replace(setting.parts, registries=registries), abandon_after_s=60)
        running = asyncio.create_task(settlement.run())
        async with asyncio.timeout(30):
            await silent.await_requests(1)
            # Come while it is being asked, and more than once.
            for name in ("a", "b"):
                entry = await setting.doubtful(trusting.add_image(name=name, owner="alice")["id"])
                await eventually(lambda: setting.state(entry), EntryState.COMPLETED)  # noqa: B023
        # One question at a time, and none is left when the settlement ends.
        assert len(silent.requests) == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [t for t in asyncio.all_tasks() if t.get_name().startswith("ask")] == []


async def test_an_answer_that_takes_too_long_is_not_waited_for(
    setting: Setting, trusting: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although a client's own request may take longer."""
    monkeypatch.setattr("relproxy.settlement._ASKED_S", 0.1)
    trusting.faults.delay = asyncio.Event()
    entry = await setting.doubtful(trusting.add_image(name="a", owner="alice")["id"])
    async with asyncio.timeout(15):
        await setting.settlement.settle()
    assert setting.end(entry) == (EntryState.IN_DOUBT, "The registry did not answer in time.")


async def test_an_entry_that_relproxy_fails_to_settle_holds_up_no_other(
    setting: Setting, trusting: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    first = await setting.doubtful(trusting.add_image(name="a", owner="alice")["id"])
    second = await setting.doubtful(trusting.add_image(name="b", owner="alice")["id"])

    async def fail() -> None:
        setting.login.before.clear()
        raise KeyError("a bug")

    setting.login.before.append(fail)
    await setting.settlement.settle()
    reason = "relproxy failed to settle it; its log says why."
    assert setting.end(first) == (EntryState.IN_DOUBT, reason)
    assert setting.row(second).state is EntryState.COMPLETED
    (logged,) = (record for record in caplog.records if record.message == "entry not settled")
    assert logged.exc_info is not None


async def test_what_nobody_foresaw_ends_the_settlement_so_that_readiness_says_so(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    setting.add(doubtful("a"))
    monkeypatch.setattr(JournalFile, "in_doubt", fail)
    async with asyncio.timeout(30):
        with pytest.raises(KeyError):
            await setting.settlement.run()
