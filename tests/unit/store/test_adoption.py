from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relproxy.metrics import Metrics
from relproxy.model import CreatedImage, Intent
from relproxy.store.adoption import Adoption
from relproxy.store.base import EntryState
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_handover import HandedPage, Handover
from relproxy.store.journal_room import JournalRoom, Slot, open_journal
from relproxy.store.journal_row import Row
from relproxy.store.relay import Relay, Terms
from relproxy.store.sqlite import SqliteStore
from tests.entries import completed, doubtful
from tests.unit.store.test_journal_schema import first_version

CREATED = "2030-01-01T00:00:00Z"


@dataclass
class Host:
    """A directory of journals, and a living worker in it that holds worker-0."""

    room: JournalRoom
    journal: LocalJournal
    file: JournalFile
    adoption: Adoption
    metrics: Metrics

    async def dead_worker(self, *image_ids: str, begun: str | None = None) -> Path:
        """Leave a journal of a worker that has died: completed entries, and one that has begun."""
        slot = self.room.claim()
        journal = LocalJournal(open_journal(slot))
        for image_id in image_ids:
            entry = await journal.begin(Intent("glance", "alice", None, image_id))
            await journal.complete(entry, CreatedImage(image_id, CREATED, None))
        if begun is not None:
            await journal.begin(Intent("glance", "alice", None, begun))
        await journal.close()
        slot.release()
        return slot.path

    def states(self) -> dict[str | None, EntryState]:
        return {row.image_id: row.state for row in self.file.everything()}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    room = JournalRoom(tmp_path / "journal", allow_volatile=True)
    slot = room.claim()
    file = open_journal(slot)
    journal, metrics = LocalJournal(file), Metrics()
    relay = Relay(journal, SqliteStore(tmp_path / "no"), metrics, Terms(1, 3600, 1))
    adoption = Adoption(room, journal, relay, metrics)
    yield Host(room, journal, file, adoption, metrics)
    adoption.close()
    await journal.close()
    slot.release()


async def test_what_a_dead_worker_left_is_taken_over_and_its_file_goes(
    host: Host, tmp_path: Path
) -> None:
    path = await host.dead_worker("a", "b", begun="c")
    journals = HostJournals(tmp_path / "journal")
    assert len(await journals.pending_of_images(["a", "b"])) == 2
    assert await host.adoption.look() == 3
    pending = EntryState.COMPLETED
    assert host.states() == {"a": pending, "b": pending, "c": EntryState.BEGUN}
    assert not path.exists()
    assert path.with_suffix(".lock").exists()
    assert len(await journals.pending_of_images(["a", "b"])) == 2
    await journals.close()
    assert await host.adoption.look() == 0
    # Nobody is at work on it any more: it is settled.
    assert await host.journal.doubts() == {"glance": 1}
    assert [row.image_id for row in await host.journal.in_doubt("glance")] == ["c"]


async def test_the_journal_of_a_living_worker_is_left_to_it(host: Host) -> None:
    living = host.room.claim()
    open_journal(living).close()
    assert await host.adoption.look() == 0
    assert living.path.exists()
    living.release()


async def test_many_entries_are_taken_over_in_their_order(host: Host) -> None:
    names = [str(number) for number in range(450)]
    slot = host.room.claim()
    left = LocalJournal(open_journal(slot))
    entries = await asyncio.gather(*(left.begin(Intent("glance", "a", None, n)) for n in names))
    await asyncio.gather(
        *(
            left.complete(entry, CreatedImage(name, CREATED, None))
            for entry, name in zip(entries, names, strict=True)
        )
    )
    await left.close()
    slot.release()
    assert await host.adoption.look() == len(names)
    assert [row.image_id for row in host.file.everything()] == names


async def delivered_by_the_dead(host: Host, *image_ids: str) -> JournalFile:
    """Leave a dead worker's entries that the server "one" has taken; return the open file."""
    left = JournalFile(await host.dead_worker(*image_ids))
    left.together(
        [
            lambda: left.remember_identity("one", and_put_again=False),
            lambda: left.deliver([row.id for row in left.everything()]),
        ]
    )
    return left


async def owed(host: Host) -> list[str | None]:
    page = await host.journal.owed()
    return [] if page is None else [row.image_id for row in page.rows]


@pytest.mark.parametrize("own", ["one", "two"])
async def test_what_was_delivered_to_another_server_is_put_again(host: Host, own: str) -> None:
    (await delivered_by_the_dead(host, "a")).close()
    await host.journal.remember_identity(own, and_put_again=False)
    assert await host.adoption.look() == 1
    assert host.states() == {"a": EntryState.DELIVERED}
    assert await owed(host) == (["a"] if own == "two" else [])


async def test_a_server_that_is_replaced_in_the_middle_of_an_adoption_gets_everything(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    (await delivered_by_the_dead(host, "a")).close()
    await host.journal.remember_identity("one", and_put_again=False)
    adopt = host.journal.adopt

    async def replace_and_adopt(page: HandedPage) -> None:
        await host.journal.remember_identity("two", and_put_again=True)
        await adopt(page)

    monkeypatch.setattr(host.journal, "adopt", replace_and_adopt)
    assert await host.adoption.look() == 1
    assert await owed(host) == ["a"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_dead_workers_debts_are_its_followers(
    host: Host, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = await delivered_by_the_dead(host, "a")
    await host.journal.remember_identity("one", and_put_again=False)
    adopt = host.journal.adopt

    async def adopt_and_ask(page: HandedPage) -> None:
        await adopt(page)
        left.together([left.put_again])

    if when == "before":
        left.together([left.put_again])
    else:
        monkeypatch.setattr(host.journal, "adopt", adopt_and_ask)
    assert await host.adoption.look() == 1
    left.close()
    assert await owed(host) == ["a"]


async def test_what_is_over_is_adopted_only_for_as_long_as_it_is_kept(host: Host) -> None:
    now = datetime.now(UTC)
    left = JournalFile(await host.dead_worker())
    rows = [
        completed(name, state=state, ended_at=now - timedelta(seconds=age))
        for name, state, age in (
            ("late", EntryState.DELIVERED, 1),
            ("given up", EntryState.ABANDONED, 1),
            ("old", EntryState.DELIVERED, 3601),
        )
    ]
    left.together([lambda: left.add([*rows, completed("pending")])])
    left.close()
    assert await host.adoption.look() == 3
    assert host.states().keys() == {"late", "given up", "pending"}


async def test_an_adoption_reads_some_at_a_time_the_open_ones_first(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relproxy.store.journal_handover._AT_ONCE", 2)
    now = datetime.now(UTC)
    left = JournalFile(await host.dead_worker())
    over = [completed(str(n), state=EntryState.DELIVERED, ended_at=now) for n in range(3)]
    parked = completed("parked", ended_at=now, reason="refused")
    left.together([lambda: left.add([*over, doubtful("b"), parked, completed("a")])])
    left.close()
    pages: list[list[str | None]] = []
    adopt = host.journal.adopt

    async def note(page: HandedPage) -> None:
        pages.append([row.image_id for row in page.rows])
        await adopt(page)

    monkeypatch.setattr(host.journal, "adopt", note)
    assert await host.adoption.look() == 6
    assert pages == [["b"], ["a"], ["parked"], ["0", "1"], ["2"]]
    assert [row.reason for row in host.file.for_a_person()] == ["cut off", "refused"]


@pytest.mark.parametrize(
    "row", [doubtful("a"), completed("a", ended_at=datetime.now(UTC))], ids=["in doubt", "parked"]
)
async def test_what_a_person_settles_in_the_middle_of_an_adoption_is_settled(
    host: Host, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = JournalFile(await host.dead_worker())
    left.together([lambda: left.add([row])])
    adopt = host.journal.adopt

    async def adopt_and_settle(page: HandedPage) -> None:
        await adopt(page)
        image = CreatedImage("a", CREATED, "bob")
        left.together([lambda: left.settle(row.id, image, at=datetime.now(UTC))])

    monkeypatch.setattr(host.journal, "adopt", adopt_and_settle)
    assert await host.adoption.look() == 2
    left.close()
    (pending,) = await host.journal.pending()
    assert (pending.id, pending.project) == (row.id, "bob")


async def test_an_adoption_that_is_broken_off_is_gone_on_with(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await host.dead_worker("a", "b", "c")
    monkeypatch.setattr("relproxy.store.journal_handover._AT_ONCE", 1)
    forget = Handover.forget

    def fail(handover: Handover, page: HandedPage) -> None:
        if page.rows[0].image_id == "b":
            raise sqlite3.OperationalError("disk I/O error")
        forget(handover, page)

    with monkeypatch.context() as patch:
        patch.setattr(Handover, "forget", fail)
        assert await host.adoption.look() == 0
    left = JournalFile(path)
    assert [row.image_id for row in left.everything()] == ["b", "c"]
    left.close()
    # The relay has it delivered meanwhile: that copy is the further one.
    await host.journal.deliver(await host.journal.pending())
    assert await host.adoption.look() == 2
    over = EntryState.DELIVERED
    assert host.states() == {"a": over, "b": over, "c": EntryState.COMPLETED}


async def test_a_journal_of_an_older_relproxy_is_adopted(host: Host, tmp_path: Path) -> None:
    rows = [completed("a"), doubtful("b")]
    first_version(tmp_path / "journal" / "worker-7.db", *rows)
    journals = HostJournals(tmp_path / "journal")
    assert [row.image_id for row in await journals.pending_of_images(["a", "b"])] == ["a"]
    assert await journals.parked() == []
    assert await host.adoption.look() == 2
    assert host.states() == {"a": EntryState.COMPLETED, "b": EntryState.IN_DOUBT}
    await journals.close()


async def test_a_journal_that_cannot_be_read_now_is_adopted_later(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = await host.dead_worker("a")
    held = host.room.claim()
    assert held.path == path
    await host.dead_worker("b")
    held.release()

    def fail(slot: Slot) -> JournalFile:
        if slot.path == path:
            raise sqlite3.OperationalError("disk I/O error")
        return open_journal(slot)

    with monkeypatch.context() as patch:
        patch.setattr("relproxy.store.adoption.open_journal", fail)
        await host.adoption.look()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "journal not adopted"
    ]
    assert set(host.states()) == {"b"}
    await host.adoption.look()
    assert set(host.states()) == {"a", "b"}


async def test_a_broken_journal_is_set_aside_and_what_can_be_read_is_adopted(host: Host) -> None:
    path = await host.dead_worker("a", "b")
    content = bytearray(path.read_bytes())
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)
    await host.adoption.look()
    assert host.metrics.journals_broken._value.get() == 1  # noqa: SLF001
    assert list(path.parent.glob(f"{path.name}.broken-*"))


async def test_the_round_goes_on_after_a_disk_that_failed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()

    async def look() -> int:
        looked.set()
        raise OSError(5, "no disk")

    monkeypatch.setattr(host.adoption, "look", look)
    monkeypatch.setattr("relproxy.store.adoption._ROUND_S", 0.0)
    running = asyncio.create_task(host.adoption.run())
    for _ in range(2):
        looked.clear()
        await asyncio.wait_for(looked.wait(), 30)
    assert not running.done()
    running.cancel()


async def test_a_file_that_cannot_be_removed_now_goes_later(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await host.dead_worker("a")

    def fail(_: Slot) -> None:
        raise OSError(30, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr("relproxy.store.adoption.remove", fail)
        await host.adoption.look()
    assert path.exists()
    await host.journal.deliver(await host.journal.pending())
    await host.adoption.look()
    assert not path.exists()
    assert host.states() == {"a": EntryState.DELIVERED}
