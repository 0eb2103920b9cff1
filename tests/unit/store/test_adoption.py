from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relproxy.metrics import Metrics
from relproxy.model import CreatedImage, Intent
from relproxy.store.adoption import Adoption
from relproxy.store.base import EntryState
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_room import JournalRoom, Slot, open_journal
from relproxy.store.relay import Relay, Terms
from relproxy.store.sqlite import SqliteStore

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
    relay = Relay(journal, SqliteStore(tmp_path / "no"), metrics, Terms(1, 1, 1))
    adoption = Adoption(room, journal, relay, metrics)
    yield Host(room, journal, file, adoption, metrics)
    adoption.close()
    await journal.close()
    slot.release()


async def test_what_a_dead_worker_left_is_taken_over_and_its_file_goes_a_round_later(
    host: Host, tmp_path: Path
) -> None:
    path = await host.dead_worker("a", "b", begun="c")
    journals = HostJournals(tmp_path / "journal")
    assert await host.adoption.look() == 3
    completed = EntryState.COMPLETED
    assert host.states() == {"a": completed, "b": completed, "c": EntryState.BEGUN}
    # Until then each of them is in two files, and read once.
    assert path.exists()
    assert len(await journals.pending_of_images(["a", "b"])) == 2
    assert await host.adoption.look() == 0
    assert not path.exists()
    assert path.with_suffix(".lock").exists()
    assert len(await journals.pending_of_images(["a", "b"])) == 2
    await journals.close()
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


@pytest.mark.parametrize(
    ("own", "state"), [("one", EntryState.DELIVERED), ("two", EntryState.COMPLETED)]
)
async def test_what_was_delivered_to_another_server_is_put_again(
    host: Host, own: str, state: EntryState
) -> None:
    path = await host.dead_worker("a")
    left = JournalFile(path)
    left.together(
        [
            lambda: left.remember_identity("one", and_put_again=False),
            lambda: left.deliver([row.id for row in left.everything()]),
        ]
    )
    left.close()
    await host.journal.remember_identity(own, and_put_again=False)
    assert await host.adoption.look() == 1
    assert host.states() == {"a": state}


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
    await host.adoption.look()

    def fail(_: Slot) -> None:
        raise OSError(30, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr("relproxy.store.adoption.remove", fail)
        with pytest.raises(OSError, match="read-only"):
            await host.adoption.look()
    assert path.exists()
    await host.adoption.look()
    assert not path.exists()
