"""What no store takes, however often it is tried, is told from a store that takes nothing now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from lab.processes import free_port
from relproxy.errors import RecordRefusedError, StoreUnavailableError
from relproxy.metrics import Metrics
from relproxy.model import Burial, Change, ImageRecord, OwnerChange
from relproxy.store.base import EntryKind, Store
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_file import JournalFile
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings
from relproxy.store.relay import Relay, Terms
from tests.entries import completed

AT = datetime(2030, 1, 1, tzinfo=UTC)
RECORD = ImageRecord("glance", "a", "2030-01-01T00:00:00Z", "alice", None, AT)
# No page of an index holds it, however it is compressed.
LONG = "".join(Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))


@pytest.mark.parametrize(
    "change",
    [
        replace(RECORD, project="\ud800"),
        replace(RECORD, image_id="\ud800"),
        replace(RECORD, created_at="\ud800"),
        Burial("glance", "\ud800", AT),
        OwnerChange("glance", "a", RECORD.created_at, "\ud800", AT),
    ],
    ids=["project", "image", "created_at", "burial", "owner"],
)
async def test_a_change_that_can_not_be_encoded_is_refused_and_the_next_is_taken(
    store: Store, change: Change
) -> None:
    with pytest.raises(RecordRefusedError):
        await store.put([RECORD, change])
    assert await store.owners("glance", ["a"]) == {}
    await store.put([RECORD])
    assert (await store.owners("glance", ["a"]))["a"].project == "alice"


@pytest.mark.parametrize("project", ["a\0b", LONG], ids=["NUL", "too long"])
@pytest.mark.parametrize("reopen", ["postgres"], indirect=True)
async def test_what_postgresql_does_not_take_is_refused(store: Store, project: str) -> None:
    with pytest.raises(RecordRefusedError):
        await store.put([replace(RECORD, project=project)])
    with pytest.raises(RecordRefusedError):
        await store.owners("glance\0", ["a"])


@pytest.mark.parametrize("reopen", ["postgres"], indirect=True)
async def test_the_relay_parks_what_postgresql_does_not_take_and_delivers_the_rest(
    store: Store, tmp_path: Path
) -> None:
    file = JournalFile(tmp_path / "worker-0.db")
    rows = [
        completed("a", project="a\0b"),
        completed("b"),
        completed("c", project=LONG),
        completed("a", kind=EntryKind.BURIAL),
        completed("d"),
    ]
    file.together([lambda: file.add(rows)])
    journal = LocalJournal(file)
    relay = Relay(journal, store, Metrics(), Terms(1, 60, 1))
    await relay.flush()
    assert relay.is_well
    assert [row.image_id for row in file.for_a_person()] == ["a", "c"]
    assert file.for_a_person()[0].reason == (
        "the store refuses it: CharacterNotInRepertoireError('invalid byte sequence for encoding "
        '"UTF8": 0x00\')'
    )
    assert (await store.owners("glance", ["a", "b", "c", "d"])).keys() == {"b", "d"}
    await journal.close()


@pytest.mark.parametrize("dsn", ["postgresql://u@127.0.0.1:{port}/d", "nonsense://{port}"])
async def test_a_store_that_can_not_be_reached_refuses_no_change(dsn: str) -> None:
    away = PostgresStore(PostgresSettings(dsn.format(port=free_port()), connect_s=1))
    with pytest.raises(StoreUnavailableError):
        await away.open()
    with pytest.raises(StoreUnavailableError) as raised:
        await away.put([replace(RECORD, project="a\0b")])
    assert not isinstance(raised.value, RecordRefusedError)
    await away.close()
