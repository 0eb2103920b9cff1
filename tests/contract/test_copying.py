"""A copy of a store is that store, whichever way and however often it was cut off."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.postgres import Postgres
from relproxy.errors import BadRequestError, StoreRefusedError
from relproxy.model import (
    Burial,
    Capture,
    Change,
    Grade,
    ImageRecord,
    Instance,
    OwnerChange,
)
from relproxy.store.base import Kept, Store
from relproxy.store.copying import compare, copy, digest
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings, migrate
from relproxy.store.sqlite import SqliteStore

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
START = datetime(2030, 1, 1, tzinfo=UTC)


def history() -> list[Change]:
    """Return what may have happened: odd names, ids made anew, owners changed, deletions."""
    order = random.Random(7)
    changes: list[Change] = []
    for number in range(1500):
        at = START + timedelta(seconds=number * 10, microseconds=number)
        image_id = f"odd id {number}" if number % 7 == 0 else str(uuid.UUID(int=number << 64))
        registry = order.choice(("east", "west"))
        created_at = f"{at:%Y-%m-%dT%H:%M:%SZ}" if number % 11 else f"then {number}"
        instance = Instance(EAST, order.choice(("123", str(uuid.UUID(int=number % 9)))))
        capture = Capture(instance, order.choice(list(Grade))) if number % 5 else None
        changes.append(ImageRecord(registry, image_id, created_at, f"p{number % 3}", capture, at))
        if number % 13 == 0:
            changes.append(OwnerChange(registry, image_id, created_at, "heir", at))
        if number % 17 == 0:
            of = created_at if number % 2 else None
            changes.append(Burial(registry, image_id, at + timedelta(seconds=1), of))
            anew = at + timedelta(seconds=95)
            created_at = f"{anew:%Y-%m-%dT%H:%M:%SZ}"
            changes.append(ImageRecord(registry, image_id, created_at, "next", None, anew))
        if number % 19 == 0:
            gone = str(uuid.UUID(int=number << 65))
            changes.append(OwnerChange("west", gone, created_at, "heir", at))
            changes.extend(Burial("west", gone, at, of) for of in (None, created_at))
            changes.append(Burial("west", gone, at + timedelta(microseconds=1)))
    return changes


@pytest.fixture
async def stores(tmp_path: Path, postgres: Postgres) -> AsyncIterator[tuple[Store, Store, Store]]:
    """SQLite, PostgreSQL, and another SQLite; the first has a history."""
    settings = PostgresSettings(postgres.create_database(f"copy-{uuid.uuid4()}"))
    await migrate(settings)
    made = (
        SqliteStore(tmp_path / "one.db"),
        PostgresStore(settings),
        SqliteStore(tmp_path / "two.db"),
    )
    async with AsyncExitStack() as opened:
        for store in made:
            await store.open()
            opened.push_async_callback(store.close)
        await made[0].put(history())
        await made[0].rename_registry("west", "far west")
        yield made


def silent(*_: object) -> None:
    """Hear of the progress and do nothing."""


async def everything(store: Store) -> Sequence[Kept]:
    return [kept async for batch in store.walk(None) for kept in batch]


async def test_there_and_back_is_the_same(stores: tuple[Store, Store, Store]) -> None:
    for source, target in itertools.pairwise(stores):
        await copy(source, target, after=None, progress=silent)
        found = await compare(source, target)
        assert found.records == 1500 + 1500 // 17 + 1
    first, second = [
        sorted(await everything(store), key=lambda kept: kept.record.recorded_at)
        for store in (stores[0], stores[2])
    ]
    for before, after in zip(first, second, strict=True):
        assert after.record.image_id == before.record.image_id
        assert after.record.project == before.record.project
        assert after.record.made_for == before.record.made_for
        assert after.record.created_at == before.record.created_at
        assert after.record.capture == before.record.capture
        assert (after.record.deleted_at is None) == (before.record.deleted_at is None)
    ids = [kept.record.image_id for kept in first]
    for registry in ("east", "far west"):
        owners = [await store.owners(registry, ids) for store in stores]
        assert owners[0] == owners[1] == owners[2]


async def test_a_copy_that_was_cut_off_goes_on(stores: tuple[Store, Store, Store]) -> None:
    for source, target in itertools.pairwise(stores):
        places: list[str] = []

        def once(*said: object, places: list[str] = places) -> None:
            places.append(str(said[1]))
            if len(places) == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await copy(source, target, after=None, progress=once)
        assert 0 < (await digest(target)).records < 1500
        await copy(source, target, after=places[0], progress=once)
        await compare(source, target)


async def test_copying_again_changes_nothing(stores: tuple[Store, Store, Store]) -> None:
    first, second, _ = stores
    for _ in range(2):
        await copy(first, second, after=None, progress=silent)
        await compare(first, second)


async def test_a_difference_is_found(stores: tuple[Store, Store, Store]) -> None:
    """A record too many, one that was deleted, one whose owner is another."""
    first, second, _ = stores
    await copy(first, second, after=None, progress=silent)
    late = START + timedelta(days=300)
    image_id = str(uuid.UUID(int=1 << 64))
    (found,) = [k.record for k in await everything(first) if k.record.image_id == image_id]
    for change in (
        OwnerChange(found.registry, image_id, found.created_at, "thief", late),
        Burial(found.registry, image_id, late),
        ImageRecord("east", str(uuid.uuid4()), "2030-01-01T00:00:00Z", "p", None, late),
    ):
        await second.put([change])
        with pytest.raises(StoreRefusedError, match="The stores differ"):
            await compare(first, second)
        await first.put([change])
        await compare(first, second)


async def test_a_place_that_is_none_is_refused(stores: tuple[Store, Store, Store]) -> None:
    for source, target in itertools.pairwise(stores):
        with pytest.raises(BadRequestError):
            await copy(source, target, after="somewhere", progress=silent)
