from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relproxy.store.base import EntryState
from relproxy.store.journal_file import JournalFile
from tests.entries import completed

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "worker-0.db"


@pytest.fixture
def file(path: Path) -> Iterator[JournalFile]:
    opened = JournalFile(path)
    yield opened
    opened.close()


def add(file: JournalFile, *names: str, state: EntryState = EntryState.DELIVERED) -> None:
    ended_at = NOW if state is EntryState.DELIVERED else None
    rows = [completed(name, state=state, ended_at=ended_at) for name in names]
    assert file.together([lambda: file.add(rows)]) == [None]


def pay(file: JournalFile, *, at_most: int = 2) -> list[str | None] | None:
    """Pay the next page, and return the images that it named."""
    page = file.owed.page(at_most=at_most)
    if page is None:
        return None
    assert file.together([lambda: file.owed.pay(page)]) == [None]
    return [row.image_id for row in page.rows]


def test_nothing_is_owed_at_first_nor_by_an_empty_journal(file: JournalFile) -> None:
    assert not file.owed.is_any()
    file.together([file.owed.everything])
    assert not file.owed.is_any()


def test_what_was_delivered_is_owed_from_the_newest_on_and_each_page_in_its_order(
    file: JournalFile,
) -> None:
    add(file, "a", "b")
    add(file, "pending", state=EntryState.COMPLETED)
    add(file, "c", "d", "e")
    file.together([file.owed.everything])
    add(file, "later")
    assert [pay(file) for _ in range(4)] == [["d", "e"], ["b", "c"], ["a"], None]


def test_what_is_left_to_pay_survives_the_process(file: JournalFile, path: Path) -> None:
    add(file, "a", "b", "c")
    file.together([file.owed.everything])
    assert pay(file) == ["b", "c"]
    file.close()
    again = JournalFile(path)
    assert pay(again) == ["a"]
    again.close()


def test_a_page_that_is_full_to_the_last_leaves_nothing(file: JournalFile) -> None:
    add(file, "a", "b")
    file.together([file.owed.everything])
    assert pay(file) == ["a", "b"]
    assert (pay(file), pay(file)) in (([], None), (None, None))


def test_what_comes_to_be_owed_meanwhile_is_owed_too(file: JournalFile) -> None:
    add(file, "a", "b", "c")
    file.together([file.owed.everything])
    assert pay(file) == ["b", "c"]
    add(file, "settled")
    add(file, "d", "e")
    file.together([lambda: file.owed.behind(4)])
    assert [pay(file) for _ in range(3)] == [["d", "e"], ["a"], None]
    # Another server has taken the place of the one that got those.
    file.together([file.owed.everything, file.owed.everything])
    assert [pay(file, at_most=9) for _ in range(2)] == [["a", "b", "c", "settled", "d", "e"], None]
