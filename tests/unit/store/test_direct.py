from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import pytest

from relproxy.errors import RecordNotKeptError, StoreUnavailableError
from relproxy.model import (
    Capture,
    CreatedImage,
    Grade,
    ImageRecord,
    Instance,
    Intent,
)
from relproxy.store.base import Delivery, Entry, Store
from relproxy.store.direct import DirectJournal
from tests.unit.given import CREATED_AT, IMAGE_ID, UUID

CAPTURE = Capture(Instance(UUID, "i-1"), Grade.VOUCHED)
INTENT = Intent("main", "p1", CAPTURE)
CREATED = CreatedImage(IMAGE_ID, CREATED_AT, owner=None)


class KeepingStore:
    """The part of a store that a journal needs; keeps what it is given, unless it is away."""

    def __init__(self, *, is_well: bool = True) -> None:
        self.is_well = is_well
        self.records: list[ImageRecord] = []

    async def check(self) -> None:
        if not self.is_well:
            raise StoreUnavailableError("The store is away.")

    async def put(self, records: Sequence[ImageRecord]) -> None:
        await self.check()
        self.records += records


def journal_on(store: KeepingStore) -> DirectJournal:
    return DirectJournal(cast("Store", store))


async def test_a_create_is_refused_before_it_leaves_while_the_store_is_away() -> None:
    with pytest.raises(StoreUnavailableError):
        await journal_on(KeepingStore(is_well=False)).begin(INTENT)


async def test_an_intent_leaves_nothing_in_the_store() -> None:
    store = KeepingStore()
    journal = journal_on(store)

    await journal.abandon(await journal.begin(INTENT))

    assert store.records == []


async def test_a_record_is_in_the_store_when_the_create_is_complete() -> None:
    store = KeepingStore()
    journal = journal_on(store)
    before = datetime.now(UTC)

    delivery = await journal.complete(await journal.begin(INTENT), CREATED)

    assert delivery is Delivery.CONFIRMED
    (record,) = store.records
    assert before <= record.recorded_at <= datetime.now(UTC)
    assert record == ImageRecord(
        registry="main",
        image_id=IMAGE_ID,
        created_at=CREATED_AT,
        project="p1",
        capture=CAPTURE,
        recorded_at=record.recorded_at,
    )


async def recorded(intent: Intent, created: CreatedImage) -> ImageRecord:
    store = KeepingStore()
    await journal_on(store).complete(Entry(intent), created)
    return store.records[0]


async def test_the_owner_that_the_registry_names_is_the_one_that_is_recorded() -> None:
    created = CreatedImage(IMAGE_ID, CREATED_AT, owner="p2")

    assert (await recorded(INTENT, created)).project == "p2"
    assert (await recorded(Intent("main", None, CAPTURE), created)).project == "p2"


async def test_an_image_without_an_instance_is_recorded_for_its_owner() -> None:
    assert (await recorded(Intent("main", "p1", None), CREATED)).capture is None


async def test_an_image_id_is_recorded_in_lower_case() -> None:
    created = CreatedImage(IMAGE_ID.upper(), CREATED_AT, owner=None)

    assert (await recorded(INTENT, created)).image_id == IMAGE_ID


async def test_an_image_of_nobody_is_not_recorded() -> None:
    store = KeepingStore()

    with pytest.raises(RecordNotKeptError, match=IMAGE_ID):
        await journal_on(store).complete(Entry(Intent("main", None, CAPTURE)), CREATED)

    assert store.records == []


async def test_a_create_whose_record_is_lost_is_not_called_a_success(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = journal_on(KeepingStore(is_well=False))

    with pytest.raises(RecordNotKeptError, match=IMAGE_ID), caplog.at_level(logging.ERROR):
        await journal.complete(Entry(INTENT), CREATED)

    assert [record.getMessage() for record in caplog.records] == ["record not kept"]
    told = vars(caplog.records[0])["record"]
    for needed in (IMAGE_ID, CREATED_AT, "p1", UUID, "i-1", "main"):
        assert needed in told


async def test_a_create_in_doubt_is_logged_with_its_instance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        await journal_on(KeepingStore()).doubt(Entry(INTENT), "the registry answered 504")

    (record,) = caplog.records
    assert record.getMessage() == "create in doubt"
    assert vars(record)["reason"] == "the registry answered 504"
    assert "i-1" in vars(record)["intent"]
