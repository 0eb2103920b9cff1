from __future__ import annotations

import errno
import itertools
import logging
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relproxy.errors import JournalRefusedError
from relproxy.store.base import EntryState
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_room import (
    JournalRoom,
    Slot,
    _file_system,
    files_in,
    open_journal,
    remove,
)
from relproxy.store.journal_row import Row
from tests.entries import completed, doubtful


@pytest.fixture(autouse=True)
def _released(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give up every place that a test has taken and kept."""
    taken: list[Slot] = []
    keep = Slot.__init__

    def kept(slot: Slot, *given: Any, **named: Any) -> None:
        keep(slot, *given, **named)
        taken.append(slot)

    monkeypatch.setattr(Slot, "__init__", kept)
    yield
    for slot in taken:
        slot.release()


def room(directory: Path) -> JournalRoom:
    return JournalRoom(directory, allow_volatile=True)


def row(entry_id: str, state: EntryState = EntryState.BEGUN) -> Row:
    return doubtful(entry_id, id=entry_id, state=state, image_name="a" * 200)


def test_a_directory_keeps_its_identity(tmp_path: Path) -> None:
    first, again, other = room(tmp_path / "a"), room(tmp_path / "a"), room(tmp_path / "b")
    assert first.identity == again.identity != other.identity


def test_an_identity_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("nothing")
    with pytest.raises(JournalRefusedError, match="holds no identity"):
        room(tmp_path)


def test_each_worker_gets_a_place_of_its_own_and_a_free_one_is_taken_again(tmp_path: Path) -> None:
    here = room(tmp_path)
    first, second = here.claim(), here.claim()
    assert [first.path.name, second.path.name] == ["worker-0.db", "worker-1.db"]
    first.release()
    assert here.claim().path == first.path


def test_a_place_is_free_as_soon_as_its_process_is_dead(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, os; from relproxy.store.journal_room import JournalRoom\n"
        "slot = JournalRoom(pathlib.Path(sys.argv[1]), allow_volatile=True).claim()\n"
        "print(slot.path.name, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "worker-0.db\n"
    here = room(tmp_path)
    slot = here.claim()
    assert slot.path.name == "worker-1.db"
    child.kill()
    child.communicate()
    assert here.claim().path.name == "worker-0.db"


def test_only_journals_that_nobody_holds_are_idle(tmp_path: Path) -> None:
    here = room(tmp_path)
    held, left = here.claim(), here.claim()
    for slot in (held, left):
        JournalFile(slot.path).close()
    left.release()
    (idle,) = here.idle()
    assert idle.path == left.path
    remove(idle)
    assert files_in(tmp_path) == [held.path]
    assert list(here.idle()) == []


@pytest.mark.parametrize(
    ("kind", "lost_with"), [("tmpfs", "memory"), ("overlay", "a container's own layer")]
)
def test_a_volatile_file_system_is_refused_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, lost_with: str
) -> None:
    monkeypatch.setattr("relproxy.store.journal_room._file_system", lambda _: kind)
    with pytest.raises(JournalRefusedError, match=f"lost with {lost_with}"):
        JournalRoom(tmp_path, allow_volatile=False)
    JournalRoom(tmp_path, allow_volatile=True)


def test_a_file_system_whose_locks_keep_nobody_out_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    with pytest.raises(JournalRefusedError, match="keep nobody out"):
        room(tmp_path)


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    inner = tmp_path / "in ner"
    inner.mkdir()
    escaped = str(inner).replace(" ", "\\040")
    mounts.write_text(
        "1 0 8:1 / / rw - overlay overlay rw\n"
        f"2 1 8:2 / {tmp_path} rw shared:1 - ext4 /dev/a rw\n"
        f"3 2 0:9 / {escaped} rw - tmpfs tmpfs rw\n"
    )
    assert _file_system(Path("/"), mounts) == "overlay"
    assert _file_system(tmp_path / "x", mounts) == "ext4"
    assert _file_system(inner / "deep", mounts) == "tmpfs"
    assert _file_system(inner, tmp_path / "absent") == ""


def test_a_directory_that_can_not_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalRefusedError, match="can't be used"):
        room(tmp_path / "file" / "below")


def test_a_broken_journal_is_set_aside_and_what_can_be_read_is_carried_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slot = room(tmp_path).claim()
    file = JournalFile(slot.path)
    file.together([lambda: file.add([row(f"{n:04}") for n in range(2000)])])
    file.close()
    content = bytearray(slot.path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 3 * 4096] = b"\xff" * 3 * 4096
    slot.path.write_bytes(content)

    with caplog.at_level(logging.ERROR):
        renewed = open_journal(slot)
    kept = {r.id for r in renewed.everything()}
    renewed.close()
    assert slot.was_broken
    assert 1500 < len(kept) == slot.salvaged < 2000
    (aside,) = tmp_path.glob("worker-0.db.broken-*")
    assert aside.read_bytes() == bytes(content)
    assert files_in(tmp_path) == [slot.path]
    told = [record.message for record in caplog.records]
    assert told == ["journal is broken", "journal set aside", "entries salvaged"]


def test_what_is_salvaged_as_delivered_is_put_again(tmp_path: Path) -> None:
    """To which server it went may be in the part that is lost."""
    slot = room(tmp_path).claim()
    file = JournalFile(slot.path)
    delivered = completed("a", state=EntryState.DELIVERED, ended_at=datetime.now(UTC))
    file.together([lambda: file.add([delivered])])
    file.close()
    spoil_index(slot.path, "entry_begun")
    renewed = open_journal(slot)
    assert slot.was_broken
    page = renewed.owed.page(at_most=9)
    assert page is not None
    assert [r.image_id for r in page.rows] == ["a"]
    renewed.close()


def test_a_journal_in_its_millions_is_salvaged_from_its_first_entry_on(tmp_path: Path) -> None:
    slot = room(tmp_path).claim()
    file = JournalFile(slot.path)
    file.together([lambda: file.add([row("a"), row("b")])])
    file.close()
    with closing(sqlite3.connect(slot.path)) as database:
        database.execute("UPDATE entry SET sequence = sequence + 1000000000000")
        database.commit()
    spoil_index(slot.path, "entry_in_doubt")
    renewed = open_journal(slot)
    assert slot.salvaged == 2
    renewed.close()


def test_a_last_entry_that_makes_no_sense_keeps_no_journal_from_opening(tmp_path: Path) -> None:
    slot = room(tmp_path).claim()
    file = JournalFile(slot.path)
    file.together([lambda: file.add([row(f"{n:04}") for n in range(2000)])])
    file.close()
    with closing(sqlite3.connect(slot.path)) as database:
        database.execute("UPDATE entry SET sequence = 1 << 61 WHERE id = '1999'")
        database.commit()
    content = bytearray(slot.path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 3 * 4096] = b"\xff" * 3 * 4096
    slot.path.write_bytes(content)
    renewed = open_journal(slot)
    kept = {r.id for r in renewed.everything()}
    assert 1500 < len(kept) < 2000
    assert "1999" in kept
    renewed.close()


@pytest.mark.parametrize("survived", range(12))
def test_a_crash_or_a_full_disk_while_a_broken_journal_is_replaced_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Every step that changes a file or a name fails once, and the next start goes on."""
    slot = room(tmp_path).claim()
    file = JournalFile(slot.path)
    file.together([lambda: file.add([row(f"{n:04}") for n in range(700)])])
    file.close()
    spoil_index(slot.path, "entry_in_doubt")
    broken = slot.path.read_bytes()
    steps = itertools.count()

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*asked: Any, **named: Any) -> Any:
            if next(steps) == survived:
                raise OSError(errno.ENOSPC, "no space left")
            return real(*asked, **named)

        return step

    with monkeypatch.context() as patched:
        for owner, name in (
            *((Path, name) for name in ("unlink", "rename", "replace")),
            *((os, name) for name in ("link", "fsync")),
            *((JournalFile, name) for name in ("together", "close_as_one_file")),
        ):
            patched.setattr(owner, name, failing(getattr(owner, name)))
        with suppress(JournalRefusedError):
            open_journal(slot).close()
    assert files_in(tmp_path) == [slot.path]
    renewed = open_journal(slot)
    assert len(renewed.everything()) == 700
    renewed.close()
    assert {p.read_bytes() for p in tmp_path.glob("worker-0.db.broken-*Z")} == {broken}
    assert not list(tmp_path.glob("*.salvage*"))


def spoil_index(path: Path, name: str) -> None:
    """Break a file where no entry is lost by it."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,))
        page = found.fetchone()[0]
        size = database.execute("PRAGMA page_size").fetchone()[0]
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : (page - 1) * size + 64] = b"\xff" * 64
    path.write_bytes(content)


def test_however_a_journal_is_broken_there_is_one_again(tmp_path: Path, seed: int) -> None:
    order = random.Random(seed)
    intact = JournalFile(tmp_path / "intact.db")
    intact.together([lambda: intact.add([row(f"{n:04}") for n in range(200)])])
    intact.close()
    content = (tmp_path / "intact.db").read_bytes()
    slot = room(tmp_path).claim()
    for number in range(100):
        slot.was_broken, slot.salvaged = False, 0
        broken = bytearray(content)
        # What SQLite relies on is at the beginnings of the file and of its pages.
        start = order.choice((0, order.randrange(0, len(content), 4096), 0)) + order.randrange(120)
        length = order.randrange(1, 60)
        broken[start : start + length] = order.randbytes(length)
        if number % 5 == 0:
            del broken[order.randrange(len(broken)) :]
        if int.from_bytes(broken[60:64], signed=True) > 1:
            # It says that it is a newer relproxy's (https://www.sqlite.org/fileformat2.html).
            continue
        slot.path.write_bytes(broken)
        renewed = open_journal(slot)
        kept = {r.id for r in renewed.everything()}
        renewed.together([lambda file=renewed: file.add([row("after")])])  # type: ignore[misc]
        assert "after" in {r.id for r in renewed.everything()}
        renewed.close()
        assert slot.was_broken or len(kept) == 200 or not broken


def test_a_file_that_is_no_database_is_set_aside_too(tmp_path: Path) -> None:
    slot = room(tmp_path).claim()
    slot.path.write_bytes(b"not a database at all" * 100)
    renewed = open_journal(slot)
    assert renewed.everything() == []
    renewed.close()
    assert slot.was_broken


def test_a_journal_of_a_newer_relproxy_is_refused_and_left_alone(tmp_path: Path) -> None:
    slot = room(tmp_path).claim()
    file = JournalFile(slot.path)
    file._connection.execute("PRAGMA user_version = 99")  # noqa: SLF001
    file.close()
    with pytest.raises(JournalRefusedError, match="newer relproxy"):
        open_journal(slot)
    assert [path.name for path in files_in(tmp_path)] == ["worker-0.db"]
    assert not list(tmp_path.glob("*.broken-*"))
