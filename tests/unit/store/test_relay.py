from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from relproxy.errors import RecordRefusedError, StoreUnavailableError
from relproxy.metrics import Metrics
from relproxy.model import Burial, Change, CreatedImage, ImageKey, Intent
from relproxy.store.base import Delivery, EntryKind, Store
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_row import COLUMNS, values_of
from relproxy.store.relay import Relay, Terms
from relproxy.store.relayed_journal import RelayedJournal
from tests.entries import completed

PATIENCE_S = 30
CREATED = "2030-01-01T00:00:00Z"


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what nothing announces; fail after a while."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


@dataclass
class FakeStore:
    """Takes what it is given, but for what it is told to do."""

    identity: str | None = None
    taken: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    deleted_at: list[datetime] = field(default_factory=list)
    unfit: set[str] = field(default_factory=set)
    # How often it doesn't take a name, for a reason that passes.
    failing: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    purges: int = 0
    refuses_to_purge: bool = False
    names: dict[str, str] = field(default_factory=dict)
    is_away: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    tried: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def put(self, changes: Sequence[Change]) -> str | None:
        names = [c.image_id + ("!" if isinstance(c, Burial) else "") for c in changes]
        if changes:
            self.tried.set()
            self.asked += 1
        await self.gate.wait()
        if self.unfit & set(names):
            raise RecordRefusedError("never")
        if self.is_away or self.refused & set(names):
            raise StoreUnavailableError("no")
        for name in names:
            if self.failing[name] > 0:
                self.failing[name] -= 1
                raise StoreUnavailableError("not now")
        self.taken += names
        return self.identity

    async def purge(self, *, deleted_before: datetime, at_most: int) -> int:
        self.purges += 1
        if self.refuses_to_purge:
            raise StoreUnavailableError("no right to delete")
        due = [at for at in self.deleted_at if at < deleted_before][:at_most]
        self.deleted_at = [at for at in self.deleted_at if at not in due]
        return len(due)

    async def renamed(self) -> Mapping[str, str]:
        await self.check()
        return self.names

    async def check(self) -> None:
        if self.is_away:
            raise StoreUnavailableError("no")


@dataclass
class Setting:
    store: FakeStore
    journal: LocalJournal
    relay: Relay
    flow: RelayedJournal
    metrics: Metrics
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.relay.run())

    async def create(self, image_id: str) -> Delivery:
        entry = await self.flow.begin(Intent("glance", "alice", None, image_id))
        return await self.flow.complete(entry, CreatedImage(image_id, CREATED, None))

    async def left(self, image_id: str) -> None:
        """Write what nobody waits for."""
        entry = await self.journal.begin(Intent("glance", "alice", None, image_id))
        await self.journal.complete(entry, CreatedImage(image_id, CREATED, None))

    async def taken(self, expected: list[str]) -> None:
        await until(lambda: self.store.taken == expected)
        await self.pending([])

    async def pending(self, expected: list[str]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (  # noqa: ASYNC110 - there is no event to wait for
                [row.image_id for row in await self.journal.pending()] != expected
            ):
                await asyncio.sleep(0.01)


@pytest.fixture
async def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setting]:
    monkeypatch.setattr("relproxy.store.relay._LOOK_S", 0.05)
    monkeypatch.setattr("relproxy.store.relay._FIRST_PAUSE_S", 0.001)
    journal = LocalJournal(JournalFile(tmp_path / "worker-0.db"))
    store, metrics = FakeStore(), Metrics()
    terms = Terms(confirm_wait_s=0.2, keep_delivered_s=3600, keep_deleted_days=30)
    relay = Relay(journal, cast("Store", store), metrics, terms)
    made = Setting(store, journal, relay, RelayedJournal(journal, relay), metrics)
    yield made
    if made.task is not None:
        made.task.cancel()
        await asyncio.gather(made.task, return_exceptions=True)
    await journal.close()


async def test_a_create_is_confirmed_when_the_store_has_it(setting: Setting) -> None:
    setting.start()
    assert await setting.create("a") is Delivery.CONFIRMED
    assert setting.store.taken == ["a"]


async def test_records_of_images_deleted_long_ago_are_forgotten(setting: Setting) -> None:
    now = datetime.now(UTC)
    old = [now - timedelta(days=30, seconds=1 + number) for number in range(450)]
    recent = now - timedelta(days=29, hours=23)
    setting.store.deleted_at = [*old, recent]
    assert [await setting.relay.purge() for _ in range(4)] == [200, 200, 50, 0]
    assert setting.store.deleted_at == [recent]
    assert setting.metrics.records_purged._value.get() == 450  # noqa: SLF001


async def test_the_relay_purges_by_itself(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relproxy.store.relay._PURGE_S", 0.1)
    monkeypatch.setattr("relproxy.store.relay._PURGED_AT_ONCE", 1)
    setting.store.deleted_at = [datetime.now(UTC) - timedelta(days=31, seconds=n) for n in range(9)]
    setting.start()
    # What arrives in the middle of it isn't held up until its end.
    assert await setting.create("a") is Delivery.CONFIRMED
    await until(lambda: not setting.store.deleted_at)


async def test_a_purge_that_fails_holds_up_nothing_and_is_told_once(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("relproxy.store.relay._PURGE_S", 0.05)
    setting.store.refuses_to_purge = True
    setting.start()
    await until(lambda: setting.store.purges > 1)
    # Not at once: it has had its time.
    assert setting.store.purges < 100
    assert setting.relay.is_well
    assert await setting.create("a") is Delivery.CONFIRMED
    assert [r.getMessage() for r in caplog.records] == ["nothing purged"]
    assert setting.metrics.collectors.get_sample_value("relproxy_relay_failures_total") == 0
    setting.store.refuses_to_purge = False
    setting.store.deleted_at = [datetime.now(UTC) - timedelta(days=31)]
    await until(lambda: not setting.store.deleted_at)


async def test_a_slow_store_costs_the_configured_wait_and_no_more(setting: Setting) -> None:
    setting.start()
    setting.store.gate.clear()
    async with asyncio.timeout(20):
        assert await setting.create("a") is Delivery.PENDING
    setting.store.gate.set()
    await setting.taken(["a"])


async def test_a_store_that_is_known_to_be_away_costs_no_wait(setting: Setting) -> None:
    setting.relay._confirm_wait_s = 3600  # noqa: SLF001 - it would hang if it waited
    setting.store.is_away = True
    setting.start()
    await until(lambda: not setting.relay.is_well)
    async with asyncio.timeout(20):
        assert await setting.create("a") is Delivery.PENDING
    setting.store.is_away = False
    await setting.taken(["a"])


async def test_what_a_dead_relay_left_is_delivered_in_order_by_the_next(setting: Setting) -> None:
    for name in ("a", "b", "c"):
        await setting.left(name)
    await setting.flow.bury("glance", ImageKey("a", None))
    setting.start()
    await setting.taken(["a", "b", "c", "a!"])


async def test_entries_that_share_a_batch_are_confirmed_together(setting: Setting) -> None:
    setting.start()
    results = await asyncio.gather(*(setting.create(str(n)) for n in range(100)))
    assert set(results) == {Delivery.CONFIRMED}
    assert sorted(setting.store.taken, key=int) == [str(n) for n in range(100)]


async def test_another_server_gets_everything_again(setting: Setting) -> None:
    setting.store.identity = "one"
    setting.start()
    await setting.create("a")
    await setting.create("b")
    await setting.taken(["a", "b"])
    setting.store.identity = "two"
    await setting.taken(["a", "b", "a", "b"])
    again = setting.metrics.collectors.get_sample_value
    await until(lambda: again("relproxy_relay_put_again_total") == 2)
    await setting.create("c")
    await setting.taken(["a", "b", "a", "b", "c"])


async def test_a_new_create_does_not_wait_until_everything_was_put_again(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relproxy.store.journal._BATCH", 3)
    setting.store.identity = "one"
    names = [f"{number:02}" for number in range(30)]
    await completed_ones(setting, names)
    await setting.relay.flush()
    setting.store.taken.clear()
    setting.store.identity = "two"
    new = asyncio.create_task(setting.create("new"))
    setting.start()
    assert await new is Delivery.CONFIRMED
    await until(lambda: len(setting.store.taken) >= 31)
    taken = [name for name in dict.fromkeys(setting.store.taken) if name != "new"]
    # The newest first: those are what a standby lacks.
    assert taken[:6] == ["27", "28", "29", "24", "25", "26"]
    assert sorted(taken) == names
    assert setting.store.taken.index("new") < 12
    assert await setting.journal.pending() == []


@pytest.mark.parametrize("never", [True, False])
async def test_what_another_server_refuses_is_put_as_if_for_the_first_time(
    setting: Setting, *, never: bool
) -> None:
    setting.store.identity = "one"
    for name in ("a", "b", "c"):
        await setting.left(name)
    await setting.relay.flush()
    setting.store.taken.clear()
    setting.store.identity = "two"
    (setting.store.unfit if never else setting.store.refused).add("b")
    setting.start()
    await until(lambda: setting.store.taken == ["a", "c"])
    if never:
        await setting.pending([])
        assert await setting.journal.count_parked() == 1
    else:
        await setting.pending(["b"])


async def test_no_create_is_confirmed_by_a_server_that_may_lack_the_last_ones(
    setting: Setting,
) -> None:
    setting.store.identity = "one"
    setting.start()
    await setting.create("a")
    await setting.taken(["a"])
    setting.store.identity = "two"
    assert await setting.create("b") is Delivery.CONFIRMED
    assert setting.store.taken.count("a") == 2


async def test_an_entry_that_the_store_refuses_holds_up_no_other(setting: Setting) -> None:
    setting.store.refused = {"bad"}
    for name in ("a", "bad", "b"):
        await setting.left(name)
    setting.start()
    await until(lambda: sorted(set(setting.store.taken)) == ["a", "b"])
    await setting.pending(["bad"])
    setting.store.refused = set()
    await setting.pending([])


async def test_nothing_of_an_image_passes_an_entry_of_it_that_the_store_did_not_take(
    setting: Setting,
) -> None:
    await setting.left("a")
    await setting.left("b")
    await setting.flow.bury("glance", ImageKey("a", None))
    # Four times with others, then by itself.
    setting.store.failing["a"] = 5
    setting.start()
    await setting.taken(["b", "a", "a!"])


async def test_entries_that_the_store_does_not_take_hold_up_no_other_however_many_they_are(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relproxy.store.journal._BATCH", 5)
    stuck = [f"stuck-{number}" for number in range(12)]
    setting.store.refused = set(stuck)
    await completed_ones(setting, [*stuck, "good"])
    setting.start()
    await until(lambda: setting.store.taken == ["good"])
    setting.store.refused = set()
    await setting.pending([])
    assert setting.store.taken == ["good", *stuck]


async def completed_ones(setting: Setting, names: Iterable[str]) -> None:
    """Write creates into the journal, of which no client waits for the store."""
    for name in names:
        entry = await setting.journal.begin(Intent("glance", "alice", None, name))
        await setting.journal.complete(entry, CreatedImage(name, CREATED, None))


async def put_apart(setting: Setting) -> int:
    """Have many entries put apart to a store that takes none; return how often it was asked."""
    names = [str(number) for number in range(100)]
    setting.store.refused = set(names)
    await completed_ones(setting, names)
    setting.relay._failures = 3  # noqa: SLF001 - it puts apart then
    with pytest.raises(StoreUnavailableError):
        await setting.relay._deliver(looks=False)  # noqa: SLF001
    return setting.store.asked


async def test_what_the_store_never_takes_is_parked_and_delays_nothing(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.relay._confirm_wait_s = PATIENCE_S  # noqa: SLF001 - not even a little
    setting.store.unfit = {f"bad-{number}" for number in range(20)}
    names = [f"{kind}-{number}" for number in range(20) for kind in ("good", "bad")]
    await completed_ones(setting, names)
    setting.start()
    assert await setting.create("last") is Delivery.CONFIRMED
    assert setting.relay.is_well
    assert setting.store.taken == [*(f"good-{number}" for number in range(20)), "last"]
    await setting.pending([])
    assert await setting.journal.count_parked() == 20
    assert {r.getMessage() for r in caplog.records} == {"entry parked"}
    shown = setting.metrics.collectors.get_sample_value
    await until(lambda: shown("relproxy_journal_parked") == 20)


async def test_entries_that_keep_coming_are_put_as_ever_once_the_bad_ones_are_parked(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.store.unfit = {"bad"}
    await setting.left("bad")
    await setting.left("good")
    put = setting.store.put

    async def put_and_come(changes: Sequence[Change]) -> str | None:
        name = f"another-{setting.store.asked}"
        identity = await put(changes)
        entry = await setting.journal.begin(Intent("glance", "alice", None, name))
        await setting.journal.complete(entry, CreatedImage(name, CREATED, None))
        return identity

    monkeypatch.setattr(setting.store, "put", put_and_come)
    async with asyncio.timeout(PATIENCE_S):
        await setting.relay._deliver(looks=False)  # noqa: SLF001
    assert setting.store.taken == ["good"]
    assert len(await setting.journal.pending()) == 1


async def test_an_entry_that_lost_what_it_says_ends_nothing_and_is_in_doubt_again(
    setting: Setting, tmp_path: Path
) -> None:
    damaged = [
        completed("a", created_at=None),
        completed("b", at=None),
        completed("c", project=None),
        completed("d", kind=EntryKind.OWNER, project=None),
        completed("e", kind=EntryKind.BURIAL, created_at=None, project=None, at=None),
    ]
    with sqlite3.connect(tmp_path / "worker-0.db") as database:
        marks = ", ".join("?" for _ in COLUMNS.split(", "))
        statement = f"INSERT INTO entry ({COLUMNS}) VALUES ({marks})"  # noqa: S608
        database.executemany(statement, map(values_of, damaged))
    database.close()
    setting.start()
    assert await setting.create("good") is Delivery.CONFIRMED
    # When it was begun is when it was.
    await setting.taken(["e!", "good"])
    found = await setting.journal.in_doubt("glance")
    assert [row.image_id for row in found] == ["a", "b", "c", "d"]
    assert {row.reason for row in found} == {"the journal has lost a part of what it says"}


async def test_an_entry_that_makes_no_sense_ends_nothing(setting: Setting, tmp_path: Path) -> None:
    await setting.left("a")
    with sqlite3.connect(tmp_path / "worker-0.db", isolation_level=None) as database:
        database.execute("UPDATE entry SET begun_at = 'nonsense'")
        setting.start()
        await until(lambda: not setting.relay.is_well)
        assert setting.task is not None
        assert not setting.task.done()
        database.execute("UPDATE entry SET begun_at = 0")
    database.close()
    await setting.taken(["a"])


async def test_what_is_open_under_a_registrys_old_name_is_settled_under_its_new_one(
    setting: Setting,
) -> None:
    """It was renamed while its hosts were down, and more of it comes from another journal."""
    setting.store.names = {"old": "glance"}
    setting.store.is_away = True

    async def doubt(image_id: str) -> None:
        entry = await setting.journal.begin(Intent("old", "alice", None, image_id))
        await setting.journal.doubt(entry, "cut off")

    async def in_doubt() -> list[str | None]:
        return [row.image_id for row in await setting.journal.in_doubt("glance")]

    async def settled_are(expected: list[str]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await in_doubt() != expected:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)

    await doubt("a")
    setting.start()
    await until(lambda: not setting.relay.is_well)
    assert await in_doubt() == []
    setting.store.is_away = False
    await settled_are(["a"])
    await doubt("b")
    setting.relay.take_over()
    await settled_are(["a", "b"])
    assert await setting.journal.in_doubt("old") == []


async def test_a_store_that_goes_away_while_entries_are_put_apart_is_not_asked_for_each(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        if setting.store.asked:
            raise StoreUnavailableError("away")

    monkeypatch.setattr(setting.store, "check", check)
    assert await put_apart(setting) == 1


async def test_a_store_that_can_be_read_and_takes_nothing_is_not_asked_for_each(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relproxy.store.relay._APART_S", 0.0)
    assert await put_apart(setting) == 1


async def test_the_lag_is_the_age_of_the_oldest_entry_and_then_none(setting: Setting) -> None:
    def lag() -> float:
        return setting.metrics.collectors.get_sample_value("relproxy_relay_lag_seconds") or 0.0

    setting.store.is_away = True
    setting.start()
    await setting.create("a")
    await until(lambda: lag() >= 0.05)
    setting.store.is_away = False
    await setting.taken(["a"])
    await until(lambda: lag() == 0)


async def test_flushing_delivers_what_is_left_and_gives_up_on_a_store_that_is_away(
    setting: Setting,
) -> None:
    await setting.left("a")
    setting.store.is_away = True
    await setting.relay.flush()
    assert setting.store.taken == []
    setting.store.is_away = False
    await setting.relay.flush()
    assert setting.store.taken == ["a"]
