from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relproxy.errors import JournalUnavailableError, RecordNotKeptError
from relproxy.model import (
    Burial,
    Capture,
    CreatedImage,
    Grade,
    ImageRecord,
    Instance,
    Intent,
    OwnerChange,
)
from relproxy.store.base import Entry, EntryKind, EntryState
from relproxy.store.journal import NEXT, LocalJournal, before, new_entry
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_handover import HandedPage
from relproxy.store.journal_row import SELECT_ENTRY, WrongStateError
from tests.entries import completed, doubtful

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
CAPTURE = Capture(Instance(EAST, "123"), Grade.VOUCHED)
INTENT = Intent("glance", "alice", CAPTURE, "a", is_assigned=True, image_name="snap")
IMAGE = CreatedImage("A", "2030-01-01T00:00:00Z", "alice")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "worker-0.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[LocalJournal]:
    opened = LocalJournal(JournalFile(path))
    yield opened
    await opened.close()


def states(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as database:
        found = dict(database.execute("SELECT id, state FROM entry").fetchall())
    database.close()
    return found


async def test_an_intent_is_in_the_file_before_begin_returns(
    journal: LocalJournal, path: Path
) -> None:
    entry = await journal.begin(INTENT)
    assert states(path) == {entry.id: "begun"}


async def test_a_completed_entry_tells_the_store_the_whole_record(journal: LocalJournal) -> None:
    entry = await journal.begin(INTENT)
    await journal.complete(entry, IMAGE)
    (row,) = await journal.pending()
    change = row.change
    assert isinstance(change, ImageRecord)
    assert (
        change.registry,
        change.image_id,
        change.created_at,
        change.project,
        change.capture,
    ) == (*("glance", "a", "2030-01-01T00:00:00Z", "alice", CAPTURE),)
    assert timedelta(0) <= datetime.now(UTC) - change.recorded_at < timedelta(minutes=1)


async def test_the_registrys_owner_wins_over_the_callers_project(journal: LocalJournal) -> None:
    entry = await journal.begin(INTENT)
    await journal.complete(entry, CreatedImage("a", IMAGE.created_at, "bob"))
    (row,) = await journal.pending()
    assert row.project == "bob"


async def test_an_image_that_nobody_owns_is_not_completed(
    journal: LocalJournal, path: Path
) -> None:
    entry = await journal.begin(Intent("glance", None, CAPTURE))
    with pytest.raises(RecordNotKeptError):
        await journal.complete(entry, CreatedImage("a", IMAGE.created_at, None))
    assert states(path) == {entry.id: "begun"}


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (replace(IMAGE, owner="a\0b"), "owner holds what is no character"),
        (replace(IMAGE, owner="\ud800"), "owner holds what is no character"),
        (replace(IMAGE, owner="p" * 256), "owner has 256 characters, and 255 can be kept"),
        (replace(IMAGE, id="a\0b"), "id holds what is no character"),
        (replace(IMAGE, created_at="2030" * 100), "created_at has 400 characters"),
    ],
)
async def test_what_no_store_can_keep_is_not_completed(
    journal: LocalJournal, path: Path, image: CreatedImage, why: str
) -> None:
    entry = await journal.begin(INTENT)
    with pytest.raises(RecordNotKeptError, match=why):
        await journal.complete(entry, image)
    assert states(path) == {entry.id: "begun"}
    await journal.complete(entry, replace(IMAGE, owner="é" * 255))


async def test_a_parked_entry_is_passed_over_and_settled_by_hand(
    journal: LocalJournal, path: Path
) -> None:
    for _ in range(2):
        await reach(journal, EntryState.COMPLETED)
    first, second = await journal.pending()
    await journal.park(first, "why")
    assert await journal.pending() == [second]
    assert await journal.count_parked() == 1
    file = JournalFile(path)
    (parked,) = file.for_a_person()
    assert (parked.id, parked.is_parked, parked.reason) == (first.id, True, "why")
    mended = replace(IMAGE, owner="bob")
    (result,) = file.together([lambda: file.settle(second.id, mended, at=datetime.now(UTC))])
    assert isinstance(result, WrongStateError)
    file.together([lambda: file.settle(first.id, mended, at=datetime.now(UTC))])
    assert file.for_a_person() == []
    again, _ = await journal.pending()
    # It was made when it was made.
    assert (again.id, again.project, again.at) == (first.id, "bob", first.at)
    await journal.park(again, "why")
    file.together([lambda: file.settle(first.id, None, at=datetime.now(UTC))])
    file.close()
    assert states(path)[first.id] == "abandoned"
    assert await journal.pending() == [second]


async def test_a_burial_and_a_change_of_owner_are_told_as_such(journal: LocalJournal) -> None:
    owner = await journal.begin(Intent("glance", None, None, "a"), EntryKind.OWNER)
    await journal.complete(owner, CreatedImage("a", IMAGE.created_at, "bob"))
    await journal.bury(new_entry(EntryKind.BURIAL, Intent("glance", None, None, "B")))
    first, second = [row.change for row in await journal.pending()]
    assert isinstance(first, OwnerChange)
    assert (first.image_id, first.created_at, first.project) == ("a", IMAGE.created_at, "bob")
    assert isinstance(second, Burial)
    assert (second.registry, second.image_id) == ("glance", "b")


async def reach(journal: LocalJournal, state: EntryState) -> Entry:
    entry = await journal.begin(INTENT)
    match state:
        case EntryState.IN_DOUBT:
            await journal.doubt(entry, "x")
        case EntryState.ABANDONED:
            await journal.doubt(entry, "x")
            await journal.abandon(entry)
        case EntryState.COMPLETED:
            await journal.complete(entry, IMAGE)
        case EntryState.DELIVERED:
            await journal.complete(entry, IMAGE)
            await journal.deliver(await journal.pending())
        case EntryState.BEGUN:
            pass
    return entry


@pytest.mark.parametrize("state", EntryState)
async def test_an_entry_is_completed_only_where_the_table_allows_it(
    journal: LocalJournal, path: Path, state: EntryState
) -> None:
    entry = await reach(journal, state)
    if state in {EntryState.BEGUN, EntryState.IN_DOUBT}:
        await journal.complete(entry, IMAGE)
        assert states(path)[entry.id] == "completed"
    else:
        with pytest.raises(WrongStateError):
            await journal.complete(entry, IMAGE)
        assert states(path)[entry.id] == state


@pytest.mark.parametrize(
    ("state", "new"),
    list(itertools.product(EntryState, (EntryState.ABANDONED, EntryState.IN_DOUBT))),
)
async def test_an_entry_moves_only_along_the_table(
    journal: LocalJournal, path: Path, state: EntryState, new: EntryState
) -> None:
    entry = await reach(journal, state)
    if new is EntryState.ABANDONED:
        await journal.abandon(entry)
    else:
        await journal.doubt(entry, "why")
    ended = (state, new) == (EntryState.BEGUN, EntryState.ABANDONED)
    assert states(path).get(entry.id) == (None if ended else new if new in NEXT[state] else state)


def test_the_table_names_every_state_and_nothing_follows_an_abandoned_entry() -> None:
    assert set(NEXT) == set(EntryState)
    assert before(EntryState.COMPLETED) == (
        *(EntryState.BEGUN, EntryState.IN_DOUBT, EntryState.DELIVERED),
    )
    assert NEXT[EntryState.ABANDONED] == ()


async def test_what_is_refused_leaves_nothing_in_the_file(
    journal: LocalJournal, path: Path
) -> None:
    """Anybody can have as much refused as he likes."""
    for kind in (EntryKind.CREATE, EntryKind.OWNER):
        await journal.abandon(await journal.begin(INTENT, kind))
    assert states(path) == {}


async def test_what_is_refused_stays_refused_whatever_is_adopted_after_it(
    journal: LocalJournal, path: Path
) -> None:
    """A dead worker's entry is in doubt here before it ends: its other copy doesn't hold."""
    row = doubtful("a", state=EntryState.BEGUN)
    page = HandedPage([row], None, is_owed=False)
    await journal.adopt(page)
    assert await journal.doubts() == {"glance": 1}
    await journal.abandon(row.entry)
    # Its giver had died before it forgot it.
    await journal.adopt(page)
    assert await journal.doubts() == {}
    assert states(path) == {row.id: "abandoned"}


async def test_of_the_changes_of_one_images_owner_in_doubt_the_youngest_asks_for_all(
    journal: LocalJournal, path: Path
) -> None:
    def intent(image_id: str, registry: str = "glance") -> Intent:
        return Intent(registry, None, None, image_id)

    create = await journal.begin(intent("a"))
    begun = await journal.begin(intent("a"), EntryKind.OWNER)
    others = [intent("b"), intent("a", "another"), intent("a"), intent("a")]
    changes = [await journal.begin(other, EntryKind.OWNER) for other in others]
    for entry in (create, *changes):
        await journal.doubt(entry, "why")
    left = (create.id, changes[0].id, changes[1].id, changes[3].id)
    assert states(path) == {begun.id: "begun"} | dict.fromkeys(left, "in_doubt")


async def test_entries_under_way_are_not_in_doubt_and_those_of_a_dead_process_are(
    journal: LocalJournal, path: Path
) -> None:
    entry = await journal.begin(INTENT)
    assert await journal.doubts() == {}
    await journal.close()
    again = LocalJournal(JournalFile(path))
    assert await again.doubts() == {"glance": 1}
    assert [row.id for row in await again.in_doubt("glance")] == [entry.id]
    await again.close()


async def test_entries_in_doubt_are_counted_and_gone_through_a_registry_at_a_time(
    journal: LocalJournal,
) -> None:
    rows = [doubtful(None, registry=name) for name in ("glance", "gone", "glance", "glance")]
    await journal.adopt(HandedPage(rows, None, is_owed=False))
    await reach(journal, EntryState.COMPLETED)
    assert await journal.doubts() == {"glance": 3, "gone": 1}
    first = await journal.in_doubt("glance", at_most=2)
    assert first == [rows[0], rows[2]]
    assert await journal.in_doubt("glance", behind=rows[2].id, at_most=2) == [rows[3]]
    assert await journal.in_doubt("glance", behind=rows[3].id, at_most=2) == []
    assert await journal.in_doubt("gone") == [rows[1]]
    # One that is no entry any more is no place to go on from: it is gone through anew.
    assert await journal.in_doubt("glance", behind="forgotten", at_most=2) == first


async def test_creates_at_once_share_transactions(journal: LocalJournal, path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE seen (n INTEGER)")
    database.close()
    transactions = 0
    together = journal._file.together  # noqa: SLF001 - nothing else shows a transaction

    def counted(works):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        nonlocal transactions
        transactions += 1
        return together(works)

    journal._file.together = counted  # type: ignore[method-assign]  # noqa: SLF001
    await asyncio.gather(*(journal.begin(INTENT) for _ in range(200)))
    assert len(states(path)) == 200
    assert transactions <= 4


async def test_one_entry_that_can_not_be_written_fails_alone(
    journal: LocalJournal, path: Path
) -> None:
    broken = Intent("glance", "alice", None, image_name="\ud800")
    results = await asyncio.gather(
        *(journal.begin(intent) for intent in (INTENT, broken, INTENT)), return_exceptions=True
    )
    assert [isinstance(result, Entry) for result in results] == [True, False, True]
    assert len(states(path)) == 2


async def test_a_journal_that_can_not_be_written_says_so_and_goes_on_afterwards(
    journal: LocalJournal, path: Path
) -> None:
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("ALTER TABLE entry RENAME TO away")
        with pytest.raises(JournalUnavailableError):
            await journal.begin(INTENT)
        database.execute("ALTER TABLE away RENAME TO entry")
    database.close()
    await journal.begin(INTENT)
    assert len(states(path)) == 1


async def test_an_end_that_can_not_be_written_is_left_to_be_settled(
    journal: LocalJournal, path: Path
) -> None:
    entry = await journal.begin(INTENT)
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("ALTER TABLE entry RENAME TO away")
        await journal.doubt(entry, "why")
        database.execute("ALTER TABLE away RENAME TO entry")
    database.close()
    assert states(path) == {entry.id: "begun"}
    assert await journal.doubts() == {"glance": 1}
    assert [row.id for row in await journal.in_doubt("glance")] == [entry.id]


async def test_what_was_delivered_is_put_again_for_another_server_and_forgotten_in_time(
    journal: LocalJournal,
) -> None:
    await reach(journal, EntryState.DELIVERED)
    await reach(journal, EntryState.ABANDONED)
    await journal.remember_identity("one", and_put_again=False)
    assert await journal.identity() == "one"
    assert await journal.owed() is None
    await journal.remember_identity("two", and_put_again=True)
    # It isn't pending: what has become of its image since is the store's to say.
    assert await journal.pending() == []
    page = await journal.owed()
    assert page is not None
    assert [row.state for row in page.rows] == [EntryState.DELIVERED]
    assert await journal.purge(ended_before=datetime.now(UTC) + timedelta(hours=1)) == 0
    await journal.pay(page)
    assert await journal.owed() is None
    assert await journal.purge(ended_before=datetime.now(UTC) - timedelta(hours=1)) == 0
    assert await journal.purge(ended_before=datetime.now(UTC) + timedelta(hours=1)) == 2


async def test_adopting_twice_changes_nothing(journal: LocalJournal, tmp_path: Path) -> None:
    other = LocalJournal(JournalFile(tmp_path / "worker-1.db"))
    await reach(other, EntryState.COMPLETED)
    rows = await other.pending()
    await other.close()
    page = HandedPage(rows, None, is_owed=False)
    await journal.adopt(page)
    await journal.deliver(rows)
    await journal.adopt(page)
    assert await journal.pending() == []


@pytest.mark.parametrize(
    ("here", "there", "holds"),
    [
        (EntryState.BEGUN, EntryState.IN_DOUBT, EntryState.IN_DOUBT),
        (EntryState.IN_DOUBT, EntryState.BEGUN, EntryState.IN_DOUBT),
        (EntryState.IN_DOUBT, EntryState.COMPLETED, EntryState.COMPLETED),
        (EntryState.COMPLETED, EntryState.DELIVERED, EntryState.DELIVERED),
        (EntryState.DELIVERED, EntryState.COMPLETED, EntryState.DELIVERED),
        (EntryState.COMPLETED, EntryState.ABANDONED, EntryState.ABANDONED),
        (EntryState.ABANDONED, EntryState.IN_DOUBT, EntryState.ABANDONED),
    ],
)
def test_of_two_copies_of_an_entry_the_further_one_holds(
    path: Path, here: EntryState, there: EntryState, holds: EntryState
) -> None:
    first = completed("a", state=here)
    second = replace(first, state=there, project="bob", reason="there")
    file = JournalFile(path)
    file.together([lambda: file.add([first])])
    file.together([lambda: file.adopt([second], None, is_owed=False)])
    assert file.everything() == [second if holds is there else first]
    file.close()


async def test_a_closed_journal_refuses(path: Path) -> None:
    closed = LocalJournal(JournalFile(path))
    await closed.close()
    with pytest.raises(JournalUnavailableError):
        await closed.begin(INTENT)


@pytest.mark.parametrize("state", [EntryState.BEGUN, EntryState.IN_DOUBT, EntryState.COMPLETED])
async def test_open_entries_are_found_among_many_that_ended_by_an_index(
    journal: LocalJournal, path: Path, state: EntryState
) -> None:
    await reach(journal, state)
    plans: list[str] = []
    with sqlite3.connect(path) as database:
        due = "AND ended_at IS NULL" if state is EntryState.COMPLETED else ""
        for condition in (f"{due} ORDER BY sequence LIMIT 500", "AND image_id = 'a'"):
            statement = f"{SELECT_ENTRY} WHERE state = '{state.value}' {condition}"
            found = database.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            plans += [row[3] for row in found]
    database.close()
    assert len(plans) == 2
    assert all("USING INDEX entry_" in plan for plan in plans), plans


async def test_nobody_waits_for_ever_for_a_write_that_failed_in_an_unknown_way(
    journal: LocalJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "together", fail)
        async with asyncio.timeout(30):
            with pytest.raises(JournalUnavailableError):
                await journal.begin(Intent("glance", "alice", None, "a"))
    await journal.begin(Intent("glance", "alice", None, "b"))


async def test_an_intent_that_is_durable_although_its_write_failed_is_settled(
    journal: LocalJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = JournalFile.together

    def write_and_fail(file: JournalFile, works: Sequence[Callable[[], Any]]) -> list[Any]:
        together(file, works)
        return [OSError(5, "no answer from the disk")] * len(works)

    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "together", write_and_fail)
        with pytest.raises(JournalUnavailableError):
            await journal.begin(Intent("glance", "alice", None, "a"))
    assert await journal.doubts() == {"glance": 1}
    assert [row.image_id for row in await journal.in_doubt("glance")] == ["a"]
