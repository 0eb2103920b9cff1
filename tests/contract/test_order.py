"""What a store holds is a function of the set of what it was told: of no order, no repetition."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.postgres import Postgres
from relproxy.errors import BadRequestError, StoreUnavailableError
from relproxy.model import (
    Burial,
    Capture,
    Change,
    Grade,
    ImageKey,
    ImageRecord,
    Instance,
    InstanceQuery,
    OwnerChange,
)
from relproxy.store.base import Store
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings, migrate
from relproxy.store.sqlite import SqliteStore

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
WEST = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"
SEEN = [Grade.VOUCHED, Grade.CLAIMED]
START = datetime(2030, 1, 1, tzinfo=UTC)
IMAGES = [str(uuid.UUID(int=1 << 64)), "no uuid"]
REGISTRIES = ["glance", "attic"]
INSTANCES = [EAST, WEST]
# Who made the image that was created then. Of two who say that they did the first one told holds.
MAKERS = {
    "2030-01-01T00:00:00Z": "alice",
    "2030-01-01T00:00:00.5Z": "bob",
    "2030-01-01T00:01:30Z": "carol",
}
OLD_MAKERS = {"2019-12-20T00:00:00Z": "alice", "then": "bob"}
# About a minute apart, which is how far clocks may differ.
SECONDS = [0, 1, 59, 60, 61, 100, 160, 161, 300]
# What was made and deleted so long before that it is forgotten.
LONG_AGO = -1_000_000
TABLES = (
    *("image_record", "owner_change", "burial", "renamed_registry"),
    *("image_record_again", "source", "project", "opaque_id"),
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def captures() -> st.SearchStrategy[Capture | None]:
    instances = st.builds(Instance, st.sampled_from([EAST, WEST]), st.sampled_from(INSTANCES))
    return st.none() | st.builds(Capture, instances, st.sampled_from(SEEN))


def changes_at(
    moments: st.SearchStrategy[datetime], makers: Mapping[str, str]
) -> st.SearchStrategy[Change]:
    registry, image = st.sampled_from(REGISTRIES), st.sampled_from(IMAGES)
    created = st.sampled_from(list(makers))

    def record(
        registry: str, image: str, created: str, capture: Capture | None, when: datetime
    ) -> ImageRecord:
        return ImageRecord(registry, image, created, makers[created], capture, when)

    records = st.builds(record, registry, image, created, captures(), moments)

    # A walk found it, and took somebody else for its owner.
    def found(
        registry: str, image: str, created: str, capture: Capture | None, when: datetime
    ) -> ImageRecord:
        marked = capture and replace(capture, grade=Grade.IMPORTED)
        return ImageRecord(registry, image, created, "zoe", marked, when, is_imported=True)

    imports = st.builds(found, registry, image, created, captures(), moments)
    # To the microsecond, and two of one moment.
    exactly = st.builds(
        lambda when, more: when + timedelta(microseconds=more), moments, st.sampled_from([0, 1])
    )
    owners = st.builds(
        OwnerChange, registry, image, created, st.sampled_from(["alice", "dora", "emil"]), exactly
    )
    burials = st.builds(Burial, registry, image, moments, st.none() | created)
    return records | records | imports | owners | burials


YOUNG = changes_at(st.sampled_from(SECONDS).map(at), MAKERS)
OLD = changes_at(st.sampled_from(SECONDS).map(lambda s: at(LONG_AGO + s)), OLD_MAKERS)


@dataclass(frozen=True)
class Held:
    """All that a store says, in an order of its own."""

    records: Sequence[tuple[ImageRecord, str]]
    kept: Sequence[Change]
    owners: Mapping[tuple[str, str], tuple[str, str]]
    of_instances: Mapping[str, Sequence[ImageKey]]


def said_of(
    records: Iterable[tuple[ImageRecord, str]], kept: Iterable[Change], registries: Sequence[str]
) -> Held:
    """Return what a store with these records has to say."""
    records = sorted(records, key=repr)
    live = sorted(
        (told for told in records if told[0].deleted_at is None),
        key=lambda told: (told[0].recorded_at, told[0].created_at),
    )
    of_instances = {
        f"{registry} {instance}": sorted(
            (
                ImageKey(r.image_id, r.created_at)
                for r, made_for in live
                if r.registry == registry and r.capture and r.capture.instance.id == instance
                # What was claimed counts only for the project that the record was made for.
                if r.capture.grade is Grade.VOUCHED or r.project == made_for
            ),
            key=repr,
        )
        for registry in registries
        for instance in INSTANCES
    }
    owners = {(r.registry, r.image_id): (r.project, r.created_at) for r, _ in live}
    return Held(records, sorted(set(kept), key=repr), owners, of_instances)


def better(first: Capture | None, second: Capture | None) -> Capture | None:
    """Return the capture that holds of two."""
    both = [capture for capture in (first, second) if capture is not None]
    ranked = sorted(
        both, key=lambda c: (c.grade is Grade.CLAIMED, c.instance.installation, c.instance.id)
    )
    return ranked[0] if ranked else None


def merged(first: ImageRecord, second: ImageRecord) -> ImageRecord:
    """Return the record that holds of two of one image."""
    earliest = min(first.recorded_at, second.recorded_at)
    if first.is_imported != second.is_imported:
        return replace(second if first.is_imported else first, recorded_at=earliest)
    return replace(first, capture=better(first.capture, second.capture), recorded_at=earliest)


# Registry, image id, created_at.
Key = tuple[str, str, str]


def key_of(change: ImageRecord | OwnerChange) -> Key:
    return change.registry, change.image_id, change.created_at


def expected(
    changes: Sequence[Change], names: Mapping[str, str], forgotten_before: datetime | None
) -> Held:
    """Say what a store holds that was told these: the whole contract of `put`, in short."""
    changes = [replace(c, registry=names.get(c.registry, c.registry)) for c in changes]
    records: dict[Key, ImageRecord] = {}
    for record in (c for c in changes if isinstance(c, ImageRecord)):
        held = records.setdefault(key_of(record), record)
        records[key_of(record)] = merged(held, record)
    owners: dict[Key, OwnerChange] = {}
    for change in (c for c in changes if isinstance(c, OwnerChange)):
        held_before = owners.get(key_of(change), change)
        owners[key_of(change)] = max(held_before, change, key=lambda c: (c.at, c.project))
    burials = [c for c in changes if isinstance(c, Burial)]
    found: dict[Key, tuple[ImageRecord, str]] = {}
    for key, record in records.items():
        dead = min((b.at for b in burials if b.buries(record)), default=None)
        project = owners[key].project if key in owners else record.project
        made_by = record.project if project != record.project else None
        held = replace(record, project=project, deleted_at=dead, made_by=made_by)
        found[key] = held, record.project
    kept = [b for b in burials if (b.registry, b.image_id, b.created_at) not in records]
    if forgotten_before is not None:
        for key, (record, _) in list(found.items()):
            if record.deleted_at is not None and record.deleted_at < forgotten_before:
                del found[key]
                owners.pop(key, None)
        kept = [burial for burial in kept if burial.at >= forgotten_before]
        owners = {k: c for k, c in owners.items() if k in found or c.at >= forgotten_before}
    return said_of(found.values(), [*owners.values(), *kept], list(names.values()))


async def held_by(store: Store, registries: Sequence[str]) -> Held:
    """Ask a store all that it can say, and see that its answers agree."""
    records = [(k.record, k.record.made_for) async for batch in store.walk(None) for k in batch]
    kept = [change async for batch in store.walk_changes() for change in batch]
    said = said_of(records, kept, registries)
    owners = {
        (registry, image_id): (owner.project, owner.created_at)
        for registry in registries
        for image_id, owner in (await store.owners(registry, IMAGES)).items()
    }
    of_instances = {
        f"{registry} {instance}": sorted(
            await store.images_of_instance(registry, InstanceQuery(instance, None, None)), key=repr
        )
        for registry in registries
        for instance in INSTANCES
    }
    return replace(said, owners=owners, of_instances=of_instances)


Made = tuple[tuple[Store, Store], Callable[[], Awaitable[None]]]


@dataclass
class Two:
    """Two connections to one store, and how to empty it."""

    stores: tuple[Store, Store]
    empty: Callable[[], Awaitable[None]]
    runner: asyncio.Runner

    def run(self, example: Awaitable[None]) -> None:
        async def on_an_empty_store() -> None:
            await self.empty()
            await example

        self.runner.run(on_an_empty_store())


async def sqlite_two(opened: AsyncExitStack, directory: Path) -> Made:
    path = directory / "store.db"
    database = opened.enter_context(closing(sqlite3.connect(path, isolation_level=None)))

    async def empty() -> None:
        for table in (*TABLES[:4], "registry"):
            database.execute(f"DELETE FROM {table}")  # noqa: S608 - constants

    return await opened_two(opened, SqliteStore(path), SqliteStore(path)), empty


async def postgres_two(opened: AsyncExitStack, server: Postgres) -> Made:
    settings = PostgresSettings(server.create_database(f"order-{uuid.uuid4()}"))
    await migrate(settings)
    administrator = await asyncpg.connect(settings.dsn)
    opened.push_async_callback(administrator.close)
    emptying = "; ".join(f"DELETE FROM {table}" for table in TABLES)  # noqa: S608 - constants

    async def empty() -> None:
        await administrator.execute(emptying)

    return await opened_two(opened, PostgresStore(settings), PostgresStore(settings)), empty


async def opened_two(opened: AsyncExitStack, one: Store, other: Store) -> tuple[Store, Store]:
    for store in (one, other):
        await store.open()
        opened.push_async_callback(store.close)
    return one, other


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    opened = AsyncExitStack()
    with asyncio.Runner() as runner:
        if request.param == "sqlite":
            making = sqlite_two(opened, tmp_path_factory.mktemp("order"))
        else:
            making = postgres_two(opened, request.getfixturevalue("postgres"))
        yield Two(*runner.run(making), runner)
        runner.run(opened.aclose())


async def put(store: Store, changes: Sequence[Change]) -> None:
    """Put as a relay does: again, where the store can't just now."""
    for _ in range(20):
        try:
            await store.put(changes)
        except StoreUnavailableError:
            continue
        return
    pytest.fail("the store takes nothing")


def batches(changes: Sequence[Change], sizes: Sequence[int]) -> Iterator[Sequence[Change]]:
    """Cut changes into batches, of these sizes in turns."""
    start = 0
    for number in range(len(changes)):
        size = sizes[number % len(sizes)]
        if batch := changes[start : start + size]:
            yield batch
        start += size


# Each is some transactions, of two stores.
EXAMPLES = settings(max_examples=settings().max_examples // 2)
CHANGES = {
    "young": st.lists(YOUNG, min_size=2, max_size=14),
    "old": st.lists(OLD, max_size=6),
    "sizes": st.lists(st.integers(1, 5), min_size=1, max_size=4),
    "random": st.randoms(use_true_random=False),
}


def half(random: Random, changes: Sequence[Change]) -> list[Change]:
    return random.sample(changes, len(changes) // 2)


async def is_renamed(store: Store, old: str, new: str) -> bool:
    """Rename a registry, if there is a record of it."""
    with suppress(BadRequestError):
        await store.rename_registry(old, new)
        return True
    return False


@EXAMPLES
@given(**CHANGES, renames=st.booleans(), purges=st.booleans())
def test_any_order_in_any_batches_and_again_comes_to_the_same(
    two: Two,
    young: list[Change],
    old: list[Change],
    sizes: list[int],
    random: Random,
    *,
    renames: bool,
    purges: bool,
) -> None:
    """What is old is all told before it is forgotten; later it would be as new."""
    long_ago = at(LONG_AGO + 5000)

    async def tell(changes: list[Change]) -> None:
        random.shuffle(changes)
        for batch in batches(changes, sizes):
            await random.choice(two.stores).put(batch)

    async def example() -> None:
        names = {registry: registry for registry in REGISTRIES}
        await tell([*old, *old, *half(random, young)])
        if purges:
            await two.stores[0].purge(deleted_before=long_ago, at_most=1000)
        if renames and await is_renamed(random.choice(two.stores), "attic", "cellar"):
            names["attic"] = "cellar"
        await tell([*young, *half(random, young)])
        found = await held_by(two.stores[1], list(names.values()))
        assert found == expected([*old, *young], names, long_ago if purges else None)

    two.run(example())


@EXAMPLES
@given(**CHANGES)
def test_putting_at_the_same_time_comes_to_the_same(
    two: Two, young: list[Change], old: list[Change], sizes: list[int], random: Random
) -> None:
    async def tell(store: Store, changes: Sequence[Change]) -> None:
        for batch in batches(changes, sizes):
            await put(store, batch)

    async def example() -> None:
        told = [*old, *young, *half(random, young)]
        random.shuffle(told)
        relays = [*two.stores, *two.stores]
        await asyncio.gather(*(tell(relay, told[n::4]) for n, relay in enumerate(relays)))
        found = await held_by(two.stores[0], REGISTRIES)
        assert found == expected(told, {name: name for name in REGISTRIES}, None)

    two.run(example())
