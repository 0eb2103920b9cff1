"""The commands that look after the store and the journals, each as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.postgres import Postgres
from lab.processes import Process
from lab.relproxy import command
from relproxy.__main__ import main
from relproxy.cli import journal as cli_journal
from relproxy.model import Capture, CreatedImage, Grade, ImageRecord, Instance
from relproxy.store.base import EntryState, Store
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_handover import Handover
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings
from relproxy.store.sqlite import SqliteStore
from tests.entries import completed, doubtful
from tests.integration.conftest import eventually

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
CREATED = "2030-01-01T00:00:00Z"


class Place:
    """A configuration, and what it names."""

    def __init__(self, home: Path, **sections: Any) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.file = home / "relproxy.yaml"
        self.settings: dict[str, Any] = {
            "listeners": [{"name": "public", "bind": "127.0.0.1:0"}],
            "admin": {"bind": "127.0.0.1:0"},
            "journal": {"directory": str(home / "journal"), "allow_volatile": True},
            "store": {"path": str(home / "store.db")},
            "registries": [
                {"name": "glance", "tenancy": "registry", "endpoints": ["http://127.0.0.1:1"]}
            ],
            "routes": [{"name": "all", "registry": "glance"}],
            # No balancer has to notice that it ends.
            "timeouts": {"notice_s": 0},
            **sections,
        }
        self.file.write_text(yaml.safe_dump(self.settings))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return command(*arguments, "--config", str(self.file))

    def journal(self, number: int = 0) -> JournalFile:
        directory = Path(self.settings["journal"]["directory"])
        directory.mkdir(parents=True, exist_ok=True)
        return JournalFile(directory / f"worker-{number}.db")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "here")


def sentence(finished: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of a refusal, which has no traceback."""
    assert "Traceback" not in finished.stderr
    return finished.stderr.splitlines()[-1]


def in_doubt(file: JournalFile, image_id: str | None) -> str:
    """Write an entry in doubt; return its id."""
    project = "alice" if image_id else None
    row = doubtful(image_id, is_assigned=False, project=project)
    assert file.together([lambda: file.add([row])]) == [None]
    return row.id


def test_a_second_host_can_not_serve_from_the_first_ones_file(tmp_path: Path) -> None:
    first = Place(tmp_path / "first")
    second = Place(tmp_path / "second", store={"path": str(tmp_path / "first" / "store.db")})
    assert first.run("store", "claim").returncode == 0
    refused = second.run("serve")
    assert refused.returncode == os.EX_CONFIG
    assert "belongs to another host, whose journals are" in sentence(refused)
    claimed = second.run("store", "claim")
    identity = (second.home / "journal" / "identity").read_text().strip()
    assert claimed.returncode == 0
    assert identity in claimed.stdout
    assert "belongs to another host" in sentence(first.run("serve"))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on tmpfs."""
    if not os.access("/dev/shm", os.W_OK):  # noqa: S108 - where Linux has its tmpfs
        pytest.skip("no tmpfs to be had")
    made = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield made
    shutil.rmtree(made)


def test_a_start_with_the_journal_in_memory_is_refused(tmp_path: Path, memory: Path) -> None:
    place = Place(tmp_path / "here", journal={"directory": str(memory)})
    refused = place.run("serve")
    assert refused.returncode == os.EX_CONFIG
    assert f"The journal's directory {memory} is on tmpfs" in sentence(refused)


def record(image_id: str, registry: str = "old") -> ImageRecord:
    capture = Capture(Instance(EAST, "123"), Grade.CLAIMED)
    at = datetime(2030, 1, 1, tzinfo=UTC)
    return ImageRecord(registry, image_id, CREATED, "alice", capture, at)


async def test_a_registry_that_the_configuration_calls_otherwise_is_renamed(place: Place) -> None:
    store = SqliteStore(place.home / "store.db")
    await store.open()
    await store.put([record("a"), record("b")])
    await store.close()
    refused = place.run("serve")
    assert refused.returncode == os.EX_CONFIG
    assert "Records name registries that the configuration doesn't: old." in sentence(refused)
    assert place.run("registry", "rename", "old", "glance").returncode == 0
    assert sentence(place.run("registry", "rename", "old", "glance")) == (
        "'old' was renamed already: records name it 'glance'."
    )
    await store.open()
    assert set(await store.owners("glance", ["a", "b"])) == {"a", "b"}
    await store.close()


async def test_an_old_name_of_a_registry_is_refused_until_it_is_freed(tmp_path: Path) -> None:
    """What the journals still have of the one would be taken for the other's."""
    registries = [
        {"name": name, "tenancy": "registry", "endpoints": ["http://127.0.0.1:1"]}
        for name in ("glance", "attic")
    ]
    place = Place(tmp_path / "here", registries=registries)
    store = SqliteStore(place.home / "store.db")
    await store.open()
    await store.put([record("a", "glance")])
    await store.close()
    assert place.run("registry", "rename", "glance", "attic").returncode == 0
    refused = place.run("serve")
    assert refused.returncode == os.EX_CONFIG
    assert "has a registry 'glance', and that is the old name of 'attic'" in sentence(refused)
    assert place.run("registry", "free", "glance").stdout == "'glance' is free\n"
    assert sentence(place.run("registry", "free", "glance")) == (
        "'glance' is no registry's old name."
    )
    await store.open()
    assert await store.renamed() == {}
    await store.close()


def test_migrate_makes_the_schema_and_says_which(
    place: Place, tmp_path: Path, postgres: Postgres
) -> None:
    assert place.run("migrate").stdout == "the SQLite file is up to date\n"
    dsn = postgres.create_database("migrated-by-command")
    other = Place(tmp_path / "other", store={"driver": "postgres", "dsn": dsn})
    assert other.run("migrate").stdout == "schema version 4, it was 0\n"
    assert other.run("migrate").stdout == "schema version 4\n"


async def test_a_store_is_copied_and_checked(
    place: Place, tmp_path: Path, postgres: Postgres
) -> None:
    store = SqliteStore(place.home / "store.db")
    await store.open()
    await store.put([record(f"image-{number}") for number in range(700)])
    await store.close()
    dsn = postgres.create_database("copied-by-command")
    other = Place(tmp_path / "other", store={"driver": "postgres", "dsn": dsn})
    ends = ("store", "copy", "--from", str(place.file), "--to", str(other.file))
    assert "run `relproxy migrate` first" in sentence(command(*ends))
    other.run("migrate")
    for _ in range(2):
        assert command(*ends).stdout.startswith("both stores hold 700 records, checksum ")
    last = command(*ends, "--after", "nonsense")
    assert (last.returncode, sentence(last)) == (
        1,
        "'nonsense' is no place among the records of this store.",
    )


def test_entries_in_doubt_are_listed_and_settled_by_hand(place: Place) -> None:
    file = place.journal()
    made, nameless, gone = (in_doubt(file, image_id) for image_id in ("a", None, "c"))
    listed = place.run("journal", "list", "--json").stdout.splitlines()
    assert [json.loads(line)["entry"] for line in listed] == [made, nameless, gone]
    assert "3 in doubt" in place.run("journal", "list").stdout
    assert place.run("journal", "settle", made, "--created-at", CREATED).returncode == 0
    refused = place.run("journal", "settle", nameless, "--created-at", CREATED)
    assert (refused.returncode, sentence(refused)) == (
        1,
        "The entry names no image or no project: --image, --project.",
    )
    named = ("--image", "b", "--project", "bob")
    assert place.run("journal", "settle", nameless, "--created-at", CREATED, *named).returncode == 0
    assert place.run("journal", "settle", gone, "--abandoned").returncode == 0
    assert sentence(place.run("journal", "settle", gone, "--abandoned")) == (
        "The entry is not in doubt: it is abandoned."
    )
    assert "has an entry nonsense" in sentence(
        place.run("journal", "settle", "nonsense", "--abandoned")
    )
    changes = [row.change for row in file.in_state(EntryState.COMPLETED, at_most=9)]
    assert [(c.image_id, c.project) for c in changes if isinstance(c, ImageRecord)] == [
        ("a", "alice"),
        ("b", "bob"),
    ]
    file.close()


def test_parked_entries_are_listed_and_settled_by_hand(place: Place) -> None:
    file = place.journal()
    rows = [completed(name, project="a\0b") for name in ("mended", "dropped")]
    file.together([lambda: file.add(rows), *(lambda r=r: file.park(r.id, "why") for r in rows)])
    doubtful_one = in_doubt(file, "c")
    listed = [json.loads(li) for li in place.run("journal", "list", "--json").stdout.splitlines()]
    assert [(entry["entry"], entry["state"]) for entry in listed] == [
        (doubtful_one, "in_doubt"),
        (rows[0].id, "parked"),
        (rows[1].id, "parked"),
    ]
    assert place.run("journal", "list").stdout.endswith("\n\n1 in doubt, 2 parked\n")
    created = ("--created-at", CREATED)
    refused = place.run("journal", "settle", rows[0].id, *created)
    assert (refused.returncode, sentence(refused)) == (
        1,
        "The image's owner holds what is no character: it isn't recorded.",
    )
    mended = place.run("journal", "settle", rows[0].id, *created, "--project", "alice")
    dropped = place.run("journal", "settle", rows[1].id, "--abandoned")
    assert (mended.returncode, dropped.returncode) == (0, 0)
    (row,) = file.pending(at_most=9)
    assert (row.image_id, row.project) == ("mended", "alice")
    assert [row.id for row in file.for_a_person()] == [doubtful_one]
    file.close()


def test_the_journals_of_a_host_that_is_gone_are_adopted(place: Place, tmp_path: Path) -> None:
    gone = Place(tmp_path / "gone")
    entries = []
    for number in range(2):
        file = gone.journal(number)
        entries.append(in_doubt(file, f"image-{number}"))
        file.close()
    directory = str(gone.home / "journal")
    adopted = place.run("journal", "adopt", directory)
    assert adopted.returncode == 0
    assert adopted.stdout.startswith("2 entries adopted")
    listed = place.run("journal", "list", "--json").stdout.splitlines()
    assert {json.loads(line)["entry"] for line in listed} == set(entries)
    assert place.run("journal", "adopt", directory).stdout.startswith("0 entries adopted")
    assert "this host's own" in sentence(place.run("journal", "adopt", str(place.home / "journal")))


def test_an_entry_in_two_journals_is_settled_in_both_by_what_the_further_one_says(
    place: Place,
) -> None:
    """An adoption was cut off in between: whichever copy is adopted next, it says the same."""
    files = [place.journal(number) for number in range(2)]
    both, done = doubtful("a"), doubtful("b")
    for file in files:
        file.together([lambda file=file: file.add([both, done])])  # type: ignore[misc]
    image = CreatedImage("b", CREATED, "alice")
    at = datetime.now(UTC)
    files[1].together(
        [
            lambda: files[1].settle(done.id, image, at=at),
            lambda: files[1].deliver([done.id]),
        ]
    )
    assert place.run("journal", "settle", both.id, "--abandoned").returncode == 0
    told = place.run("journal", "settle", done.id, "--created-at", CREATED, "--project", "bob")
    assert (told.returncode, sentence(told)) == (
        1,
        "The entry is not in doubt: it is delivered.",
    )
    states = [[row.state.value for row in file.everything()] for file in files]
    assert states == [["abandoned", "in_doubt"], ["abandoned", "delivered"]]
    for file in files:
        file.close()


def adopt_meanwhile(here: JournalFile, dead: JournalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a dead worker's journal adopted when a command, in this process, comes to it."""
    opened = cli_journal._opened  # noqa: SLF001 - between two of its looks

    @contextmanager
    def adopt_then_open(path: Path) -> Iterator[JournalFile]:
        if path == dead.path:
            handover = Handover(dead, ended_after=datetime.now(UTC) - timedelta(hours=1))
            while (page := handover.page()) is not None:
                here.together([lambda rows=page.rows: here.adopt(rows, None, is_owed=False)])  # type: ignore[misc]
                handover.forget(page)
        with opened(path) as file:
            yield file

    monkeypatch.setattr(cli_journal, "_opened", adopt_then_open)


def test_an_entry_that_is_being_adopted_is_looked_for_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, dead = place.journal(0), place.journal(1)
    entry = in_doubt(dead, "a")
    adopt_meanwhile(here, dead, monkeypatch)
    assert main(["journal", "settle", entry, "--abandoned", "--config", str(place.file)]) == 0
    assert [row.state for row in here.everything()] == [EntryState.ABANDONED]
    here.close()
    dead.close()


def test_what_is_being_adopted_is_put_again_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, dead = place.journal(0), place.journal(1)
    row = completed("a", state=EntryState.DELIVERED, ended_at=datetime.now(UTC))
    dead.together([lambda: dead.add([row])])
    adopt_meanwhile(here, dead, monkeypatch)
    assert main(["journal", "redeliver", "--config", str(place.file)]) == 0
    page = here.owed.page(at_most=9)
    assert page is not None
    assert [row.image_id for row in page.rows] == ["a"]
    here.close()
    dead.close()


def test_what_a_host_that_is_gone_had_delivered_is_put_again(place: Place, tmp_path: Path) -> None:
    """Nobody knows whether the server that took it is still the one."""
    gone = Place(tmp_path / "gone")
    now = datetime.now(UTC)
    rows = [completed(str(n), state=EntryState.DELIVERED, ended_at=now) for n in range(450)]
    there = gone.journal()
    there.together(
        [
            lambda: there.remember_identity("one", and_put_again=False),
            lambda: there.add(rows),
        ]
    )
    there.close()
    here = place.journal()
    here.together([lambda: here.remember_identity("one", and_put_again=False)])
    here.close()
    told = place.run("journal", "adopt", str(gone.home / "journal"))
    assert told.stdout.startswith("450 entries adopted")
    here = place.journal()
    owed = set()
    while (page := here.owed.page(at_most=100)) is not None:
        owed |= {row.id for row in page.rows}
        here.together([lambda page=page: here.owed.pay(page)])  # type: ignore[misc]
    assert owed == {row.id for row in rows}
    here.close()


def test_what_is_delivered_or_parked_is_put_again_by_hand_though_it_is_being_adopted(
    place: Place,
) -> None:
    here, dead = place.journal(0), place.journal(1)
    now = datetime.now(UTC)
    delivered = completed("a", state=EntryState.DELIVERED, ended_at=now)
    for file in (here, dead):
        rows = [delivered, completed("b", ended_at=now, reason="refused")]
        file.together([lambda file=file, rows=rows: file.add(rows)])  # type: ignore[misc]
    dead.leave()
    told = place.run("journal", "redeliver")
    assert told.stdout == "4 entries are delivered again by a running relproxy\n"
    for file in (here, dead):
        assert file.owed.is_any()
        assert [row.image_id for row in file.pending(at_most=9)] == ["b"]
        file.close()


async def lost_with_the_disk(place: Place, store: Store, image_id: str) -> None:
    """Record an image as serve does: what is delivered stays in the journal for a while."""
    row = completed(image_id)
    await store.put([row.change])
    file = place.journal()
    file.together([lambda: file.add([row]), lambda: file.deliver([row.id])])
    file.close()


async def delivered_again(place: Place, store: Store) -> None:
    """Do what docs/operations.md says after a restore; the store has all of it then."""
    told = place.run("journal", "redeliver")
    assert (told.returncode, told.stdout) == (
        0,
        "1 entries are delivered again by a running relproxy\n",
    )
    argv = [sys.executable, "-m", "relproxy", "serve", "--config", str(place.file)]
    serving = Process("relproxy", argv, place.home / "log")
    serving.start()
    try:

        async def known() -> set[str]:
            return set(await store.owners("glance", ["late", "image-0", "image-49"]))

        await eventually(known, {"late", "image-0", "image-49"})
    finally:
        serving.stop()


async def test_a_backup_of_the_sqlite_file_is_restored(place: Place, tmp_path: Path) -> None:
    """As docs/operations.md says: SQLite's own copy while it is written, and back with a claim."""
    store = SqliteStore(place.home / "store.db")
    await store.open()
    await store.put([record(f"image-{number}", "glance") for number in range(50)])
    copy = tmp_path / "backup.db"
    with closing(sqlite3.connect(place.home / "store.db")) as source:
        source.execute("VACUUM INTO ?", (str(copy),))
    await lost_with_the_disk(place, store, "late")
    await store.close()
    for name in ("store.db", "store.db-wal", "store.db-shm"):
        (place.home / name).unlink(missing_ok=True)
    shutil.copy(copy, place.home / "store.db")
    assert place.run("store", "claim").returncode == 0
    await store.open()
    assert set(await store.owners("glance", ["late", "image-49"])) == {"image-49"}
    await delivered_again(place, store)
    await store.close()


async def test_a_dump_of_postgresql_is_restored(tmp_path: Path, postgres: Postgres) -> None:
    name = f"restored-{uuid.uuid4()}"
    dsn = postgres.create_database(name)
    place = Place(tmp_path / "here", store={"driver": "postgres", "dsn": dsn})
    assert place.run("migrate").returncode == 0
    store = PostgresStore(PostgresSettings(dsn))
    await store.open()
    await store.put([record(f"image-{number}", "glance") for number in range(50)])
    dump = postgres.dump(name)
    await lost_with_the_disk(place, store, "late")
    await store.close()
    postgres.execute(f'DROP DATABASE "{name}"')
    postgres.create_database(name)
    postgres.restore(name, dump)
    await store.open()
    assert set(await store.owners("glance", ["late", "image-49"])) == {"image-49"}
    await delivered_again(place, store)
    await store.close()
