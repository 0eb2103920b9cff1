from __future__ import annotations

import resource
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relproxy.errors import StoreUnavailableError
from relproxy.model import CreatedImage
from relproxy.store.base import EntryKind, EntryState
from relproxy.store.host_journals import HostJournals, _opened
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_handover import Handover
from relproxy.store.journal_room import files_in
from relproxy.store.journal_row import Row
from tests.entries import completed, doubtful

NOW = datetime.now(UTC)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[JournalFile]]:
    """Return the open journals of two workers."""
    opened = [JournalFile(tmp_path / f"worker-{number}.db") for number in range(2)]
    yield opened
    for file in opened:
        file.close()


@pytest.fixture
async def journals(tmp_path: Path, files: list[JournalFile]) -> AsyncIterator[HostJournals]:
    assert len(files) == len(files_in(tmp_path))
    reading = HostJournals(tmp_path)
    yield reading
    await reading.close()


def add(file: JournalFile, *rows: Row) -> None:
    assert file.together([lambda: file.add(rows)]) == [None]


async def images(journals: HostJournals) -> list[str | None]:
    return [row.image_id for row in await journals.pending_of_images(["a", "b"])]


def one_after_the_other(
    happening: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *, order: int
) -> None:
    """Let something happen, once, between the look at one file and that at the next."""
    happened: list[None] = []

    def listed(directory: Path) -> Iterator[Path]:
        for number, path in enumerate(files_in(directory)[::order]):
            if number == 1 and not happened:
                happened.append(None)
                happening()
            yield path

    monkeypatch.setattr("relproxy.store.host_journals.files_in", listed)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("is_removed", [True, False])
@pytest.mark.parametrize("giver", [0, 1])
async def test_an_entry_on_its_way_from_one_journal_to_another_is_never_missed(
    journals: HostJournals,
    files: list[JournalFile],
    monkeypatch: pytest.MonkeyPatch,
    *,
    order: int,
    is_removed: bool,
    giver: int,
) -> None:
    giving, taking = files[giver], files[1 - giver]
    add(giving, completed("a"))
    assert await images(journals) == ["a"]

    def hand_over() -> None:
        handover = Handover(giving, ended_after=NOW)
        while (page := handover.page()) is not None:
            taking.together([lambda rows=page.rows: taking.adopt(rows, None, is_owed=False)])  # type: ignore[misc]
            handover.forget(page)
        if is_removed:
            giving.path.unlink()

    one_after_the_other(hand_over, monkeypatch, order=order)
    assert await images(journals) == ["a"]
    assert await images(journals) == ["a"]


@pytest.mark.parametrize("state", [EntryState.DELIVERED, EntryState.ABANDONED])
@pytest.mark.parametrize("ahead", [0, 1])
async def test_of_an_entry_in_two_journals_the_further_copy_holds(
    journals: HostJournals, files: list[JournalFile], state: EntryState, ahead: int
) -> None:
    """The adoption was cut off in between, and the entry delivered from where it went."""
    row = completed("a")
    ended = completed("a", id=row.id, state=state, ended_at=NOW)
    add(files[ahead], ended)
    add(files[1 - ahead], row, completed("b"))
    assert await images(journals) == ["b"]


async def test_an_entry_in_doubt_in_one_journal_and_settled_in_another_is_not_in_doubt(
    journals: HostJournals, files: list[JournalFile]
) -> None:
    row = doubtful("a")
    for file in files:
        add(file, row)
    assert [found.id for found in await journals.in_doubt()] == [row.id]
    image = CreatedImage("a", "2030-01-01T00:00:00Z", "alice")
    files[0].together([lambda: files[0].settle(row.id, image, at=NOW)])
    assert await journals.in_doubt() == []
    assert await images(journals) == ["a"]


def remove_all(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def spoil(path: Path) -> None:
    remove_all(path)
    path.write_bytes(b"not a database at all" * 100)


def lose_sense(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE entry SET begun_at = 'nonsense'")


def lose_a_part(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE entry SET project = NULL")


@pytest.mark.parametrize("harm", [spoil, lose_sense, lose_a_part])
async def test_a_journal_that_can_not_be_read_is_not_left_out(
    journals: HostJournals, files: list[JournalFile], harm: Callable[[Path], None]
) -> None:
    """A change of owner that nobody sees would show the image to whom it belonged to."""
    add(files[1], completed("a", kind=EntryKind.OWNER, project="bob"))
    files[1].close()
    harm(files[1].path)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await images(journals)
    files[1].path.unlink()
    assert await images(journals) == []


async def test_a_journal_that_is_only_being_made_says_nothing(
    journals: HostJournals, tmp_path: Path
) -> None:
    path = tmp_path / "worker-2.db"
    path.touch()
    assert await images(journals) == []
    made = JournalFile(path)
    add(made, completed("a"))
    assert await images(journals) == ["a"]
    made.close()


async def test_a_journal_that_took_the_place_of_another_is_read(
    journals: HostJournals, files: list[JournalFile]
) -> None:
    add(files[1], completed("a"))
    assert await images(journals) == ["a"]
    remove_all(files[1].path)
    renewed = JournalFile(files[1].path)
    add(renewed, completed("b"))
    assert await images(journals) == ["b"]
    renewed.close()


async def test_a_journal_that_is_replaced_while_it_is_opened_is_looked_at_again(
    journals: HostJournals, files: list[JournalFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(files[1], completed("a"))
    files[1].close()
    renewed: list[Path] = []

    def open_too_late(path: Path) -> sqlite3.Connection:
        connection = _opened(path)
        if path == files[1].path and not renewed:
            remove_all(path)
            renewed.append(path)
            with closing(JournalFile(path)) as file:
                add(file, completed("b"))
        return connection

    monkeypatch.setattr("relproxy.store.host_journals._opened", open_too_late)
    assert await images(journals) == ["b"]


async def test_of_very_much_that_is_pending_no_more_is_read_than_asked_for(
    journals: HostJournals, files: list[JournalFile]
) -> None:
    add(files[0], *(completed(str(number)) for number in range(6)))
    add(files[1], completed("x", kind=EntryKind.BURIAL, at=NOW - timedelta(days=1)))
    for at_most, count in ((5, None), (6, None), (7, 7), (8, 7)):
        rows = await journals.pending_of_project("alice", at_most=at_most)
        assert (None if rows is None else len(rows)) == count


async def test_depth_counts_what_is_open_in_every_file(
    files: list[JournalFile], journals: HostJournals
) -> None:
    parked = {"ended_at": NOW, "reason": "no"}
    begun = doubtful("e", state=EntryState.BEGUN)
    add(files[0], doubtful("a"), completed("b"), begun)
    add(
        files[1],
        doubtful("c"),
        completed("d", **parked),
        completed("f", state=EntryState.DELIVERED),
    )
    expected = {"under_way": 1, "to_deliver": 1, "in_doubt": 2, "parked": 1}
    assert await journals.depth() == expected


async def test_who_cannot_see_which_journals_there_are_says_so(
    tmp_path: Path, journals: HostJournals
) -> None:
    """A process that has no descriptor left can't: that there are none would be a guess."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert await images(journals) == []
    with (tmp_path / "other").open("wb") as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), before[1]))
        try:
            with pytest.raises(StoreUnavailableError):
                await images(journals)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
