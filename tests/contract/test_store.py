"""What every store promises. A new driver is one more fixture parameter."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relproxy.errors import BadRequestError, StoreUnavailableError
from relproxy.model import (
    Burial,
    Capture,
    Change,
    Grade,
    ImageRecord,
    Instance,
    InstanceQuery,
    OwnerChange,
    Ownership,
)
from relproxy.store.base import RelationQuery, Store
from relproxy.store.place import Place
from tests.contract.conftest import Reopen

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
WEST = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"

_MADE: dict[str, datetime] = {}


@pytest.fixture(autouse=True)
def _no_image_was_made() -> None:
    _MADE.clear()


def record(image_id: str, project: str = "alice", **fields: Any) -> ImageRecord:
    """Return a record; of each further image it is a second later, which stores keep."""
    recorded_at = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=len(_MADE))
    made = ImageRecord(
        registry="glance",
        image_id=image_id,
        created_at="2030-01-01T00:00:00Z",
        project=project,
        capture=Capture(Instance(EAST, "123"), Grade.CLAIMED),
        recorded_at=_MADE.setdefault(image_id, recorded_at),
    )
    return replace(made, **fields)


def at(seconds: int) -> datetime:
    """Return a time so long after the records were made."""
    return datetime(2031, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def captured(installation: str, instance_id: str, grade: Grade = Grade.CLAIMED) -> Capture:
    return Capture(Instance(installation, instance_id), grade)


async def everything(store: Store) -> list[ImageRecord]:
    return list(await store.records(RelationQuery(), limit=1000, before=None))


async def test_what_was_put_is_read_back_whole(store: Store) -> None:
    records = [record("a"), record("b", capture=None), record("c", registry="other")]
    await store.put(records)
    assert await everything(store) == records[::-1]


async def test_what_was_put_survives_the_process(store: Store, reopen: Reopen) -> None:
    await store.put([record("a")])
    await store.close()
    again = reopen()
    await again.open()
    assert await everything(again) == [record("a")]
    await again.close()


async def test_putting_again_changes_nothing(store: Store) -> None:
    await store.put([record("a")])
    await store.put([record("a"), record("a")])
    assert await everything(store) == [record("a")]


async def test_a_live_records_project_is_never_changed(store: Store) -> None:
    await store.put([record("a", "alice")])
    vouched = captured(WEST, "9", Grade.VOUCHED)
    await store.put([record("a", "mallory", capture=vouched)])
    assert await everything(store) == [record("a", "alice")]


async def test_vouched_wins_over_claimed_in_either_order(store: Store) -> None:
    claimed, vouched = captured(EAST, "claimed"), captured(EAST, "vouched", Grade.VOUCHED)
    await store.put([record("a", capture=claimed), record("b", capture=vouched)])
    await store.put([record("a", capture=vouched), record("b", capture=claimed)])
    assert {r.capture for r in await everything(store)} == {vouched}


def imported(
    image_id: str, project: str, instance: str | None = None, **fields: Any
) -> ImageRecord:
    capture = captured(WEST, instance, Grade.IMPORTED) if instance else None
    return record(image_id, project, capture=capture, is_imported=True, **fields)


async def test_what_was_imported_is_read_back_as_that(store: Store) -> None:
    records = [imported("a", "alice"), imported("b", "alice", "9")]
    await store.put(records)
    assert await everything(store) == records[::-1]
    assert [r.grade for r in records] == [Grade.IMPORTED, Grade.IMPORTED]
    owner = Ownership("alice", records[0].created_at, is_imported=True)
    assert await store.owners("glance", ["a", "b"]) == {"a": owner, "b": owner}
    assert await store.images_of_instance("glance", InstanceQuery("9", WEST, "alice"))


@pytest.mark.parametrize("instance", [None, "9"])
@pytest.mark.parametrize("is_imported_first", [True, False])
async def test_what_was_imported_never_overwrites_what_was_captured(
    store: Store, instance: str | None, *, is_imported_first: bool
) -> None:
    """Neither its project nor its instance, be that none; that it was there earlier is believed."""
    walked = imported("a", "mallory", instance, recorded_at=at(-100))
    seen = record("a", "alice", capture=None, recorded_at=at(0))
    for told in (walked, seen) if is_imported_first else (seen, walked):
        await store.put([told])
    assert await everything(store) == [replace(seen, recorded_at=at(-100))]


async def test_a_walk_that_is_late_brings_back_nothing_that_was_deleted(store: Store) -> None:
    dead = imported("a", "alice", recorded_at=at(0))
    known = imported("b", "alice", recorded_at=at(0))
    await store.put(
        [Burial("glance", "a", at(10)), Burial("glance", "b", at(10), known.created_at)]
    )
    await store.put([dead, known])
    assert await store.owners("glance", ["a", "b"]) == {}


async def test_who_was_given_an_imported_image_keeps_it_when_its_capture_comes(
    store: Store,
) -> None:
    await store.put([imported("a", "mallory"), given_to_bob("a")])
    await store.put([record("a", "alice")])
    (held,) = await store.records_of(["a"])
    assert (held.project, held.made_for, held.is_imported) == ("bob", "alice", False)


async def test_an_imported_record_gets_an_instance_from_a_later_walk(store: Store) -> None:
    await store.put([imported("a", "alice")])
    await store.put([imported("a", "alice", "9")])
    await store.put([imported("a", "alice"), imported("a", "mallory", "1")])
    assert await everything(store) == [imported("a", "alice", "9")]


async def test_a_capture_completes_a_record_that_had_none(store: Store) -> None:
    await store.put([record("a", capture=None)])
    await store.put([record("a")])
    await store.put([record("a", capture=None)])
    assert await everything(store) == [record("a")]


async def test_an_id_created_anew_is_another_record_and_the_newest_owns(store: Store) -> None:
    anew = "2031-01-01T00:00:00Z"
    await store.put([record("a", "alice")])
    await store.put([record("a", "bob", created_at=anew)])
    assert len(await everything(store)) == 2
    assert await store.owners("glance", ["a"]) == {"a": Ownership("bob", anew)}


async def test_owners_are_those_of_the_registry_and_unknown_ids_are_absent(store: Store) -> None:
    await store.put([record("a"), record("b", "bob"), record("c", registry="other")])
    owners = await store.owners("glance", ["a", "b", "c", "d", "'); DROP TABLE image_record; --"])
    assert {image_id: o.project for image_id, o in owners.items()} == {"a": "alice", "b": "bob"}
    assert await store.owners("glance", []) == {}


async def test_a_whole_page_of_owners_is_looked_up_at_once(store: Store) -> None:
    ids = [f"{number:08}" for number in range(1000)]
    await store.put([record(image_id) for image_id in ids])
    assert set(await store.owners("glance", ids)) == set(ids)


async def test_images_of_an_instance_by_installation_and_project(store: Store) -> None:
    await store.put(
        [
            record("a"),
            record("b", "bob"),
            record("c", capture=captured(WEST, "123")),
            record("d", capture=captured(EAST, "124")),
            record("e", registry="other"),
            record("f"),
        ]
    )

    async def ask(installation: str | None, project: str | None) -> list[str]:
        query = InstanceQuery("123", installation, project)
        return [image.id for image in await store.images_of_instance("glance", query)]

    assert await ask(EAST, "alice") == ["f", "a"]
    assert await ask(None, "alice") == ["f", "c", "a"]
    assert await ask(None, None) == ["f", "c", "b", "a"]
    assert await ask(WEST, "bob") == []


async def test_images_of_a_project_or_none_when_there_are_too_many(store: Store) -> None:
    await store.put([record("a"), record("b"), record("c", "bob"), record("d", registry="other")])
    assert set(await store.images_of_project("glance", "alice", at_most=2) or ()) == {"a", "b"}
    assert await store.images_of_project("glance", "alice", at_most=1) is None
    assert await store.images_of_project("glance", "nobody", at_most=1) == []


async def test_a_buried_image_is_a_relation_still_and_nothing_else(store: Store) -> None:
    await store.put([record("a"), record("b"), record("a", registry="other")])
    now = at(30)
    await store.put([Burial("glance", "a", now), Burial("glance", "unheard-of", now)])
    assert set(await store.owners("glance", ["a", "b"])) == {"b"}
    assert set(await store.owners("other", ["a"])) == {"a"}
    query = InstanceQuery("123", None, None)
    assert [i.id for i in await store.images_of_instance("glance", query)] == ["b"]
    assert await store.images_of_project("glance", "alice", at_most=1) == ["b"]
    dead = {(r.registry, r.image_id) for r in await everything(store) if r.deleted_at is not None}
    assert dead == {("glance", "a")}


async def test_an_id_created_anew_lives_though_the_old_one_is_buried(store: Store) -> None:
    await store.put([record("a", "alice")])
    await store.put([Burial("glance", "a", at(30))])
    anew = "2031-01-01T00:00:00Z"
    await store.put([record("a", "bob", created_at=anew, recorded_at=at(100))])
    owners = await store.owners("glance", ["a"])
    assert owners["a"].project == "bob"


async def test_a_burial_spares_what_was_recorded_after_it(store: Store) -> None:
    anew = record("a", "bob", created_at="2031-01-01T00:00:00Z", recorded_at=at(100))
    await store.put([record("a"), Burial("glance", "a", at(30)), anew])
    await store.put([Burial("glance", "a", at(30))])
    assert (await store.owners("glance", ["a"]))["a"].project == "bob"


@pytest.mark.parametrize(("seconds", "is_buried"), [(-60, True), (-61, False), (-60.9, False)])
async def test_a_burial_by_a_clock_that_is_a_minute_slow_is_one(
    store: Store, seconds: float, *, is_buried: bool
) -> None:
    made = record("a", recorded_at=at(0))
    burial = Burial("glance", "a", at(0) + timedelta(seconds=seconds))
    assert burial.buries(made) is is_buried
    await store.put([made, burial])
    assert (not await store.owners("glance", ["a"])) is is_buried


async def test_a_burial_that_names_its_image_is_of_that_one_whatever_the_clocks_say(
    store: Store,
) -> None:
    first, second = "2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z"
    await store.put(
        [
            record("a", created_at=first, recorded_at=at(0)),
            record("a", created_at=second, recorded_at=at(1)),
            Burial("glance", "a", at(-9000), second),
        ]
    )
    owners = await store.owners("glance", ["a"])
    assert owners["a"].created_at == first


async def test_of_several_changes_of_an_owner_the_latest_holds_in_any_order(store: Store) -> None:
    created = "2030-01-01T00:00:00Z"
    early = OwnerChange("glance", "a", created, "bob", at(10))
    late = OwnerChange("glance", "a", created, "carol", at(20))
    await store.put([record("a"), late])
    await store.put([early, record("a"), OwnerChange("glance", "x", created, "bob", at(1))])
    (found,) = await everything(store)
    assert (found.project, found.image_id) == ("carol", "a")
    assert await store.images_of_project("glance", "carol", at_most=2) == ["a"]


async def test_of_two_changes_of_an_owner_within_a_second_the_later_holds(store: Store) -> None:
    created = "2030-01-01T00:00:00Z"
    late = OwnerChange("glance", "a", created, "bob", at(10) + timedelta(microseconds=2))
    early = OwnerChange("glance", "a", created, "carol", at(10) + timedelta(microseconds=1))
    for changes in ([late, early], [early, late]):
        await store.put([record("a"), *changes])
        assert (await store.owners("glance", ["a"]))["a"].project == "bob"


async def test_a_change_of_the_owner_is_of_one_creation_of_the_id(store: Store) -> None:
    await store.put([record("a"), OwnerChange("glance", "a", "2029-01-01T00:00:00Z", "bob", at(9))])
    assert (await store.owners("glance", ["a"]))["a"].project == "alice"


def given_to_bob(image_id: str) -> OwnerChange:
    return OwnerChange("glance", image_id, "2030-01-01T00:00:00Z", "bob", at(10))


async def test_a_record_gets_the_owner_that_was_told_before_it(store: Store) -> None:
    await store.put([given_to_bob("a")])
    assert await everything(store) == []
    await store.put([record("a"), record("b")])
    owners = await store.owners("glance", ["a", "b"])
    assert {image_id: owner.project for image_id, owner in owners.items()} == {
        "a": "bob",
        "b": "alice",
    }
    assert await store.images_of_project("glance", "bob", at_most=9) == ["a"]


async def test_a_record_is_buried_by_what_was_told_before_it(store: Store) -> None:
    await store.put([Burial("glance", "a", at(10))])
    await store.put([Burial("glance", "b", at(-9000), "2030-01-01T00:00:00Z")])
    await store.put([record("a"), record("b"), record("c")])
    assert set(await store.owners("glance", ["a", "b", "c"])) == {"c"}


@pytest.mark.parametrize("is_changed_first", [True, False])
async def test_a_capture_is_filled_in_by_whom_the_record_was_made_for_and_by_nobody_else(
    store: Store, *, is_changed_first: bool
) -> None:
    """An owner change comes between: a redelivery of the create names the first owner still."""
    made, change = record("a", "alice", capture=None), given_to_bob("a")
    for told in (change, made) if is_changed_first else (made, change):
        await store.put([told])
    await store.put([record("a", "bob", capture=captured(WEST, "bob's", Grade.VOUCHED))])
    assert [r.capture for r in await everything(store)] == [None]
    await store.put([record("a", "alice")])
    (found,) = await everything(store)
    assert (found.project, found.capture) == ("bob", record("a").capture)
    ((kept,),) = [batch async for batch in store.walk(None)]
    assert kept.record.made_for == "alice"


@pytest.mark.parametrize("grade", Grade)
@pytest.mark.parametrize("is_changed_first", [True, False])
async def test_a_claim_counts_only_for_the_project_that_made_it_and_what_is_vouched_follows(
    store: Store, grade: Grade, *, is_changed_first: bool
) -> None:
    """Else a project could give its image away, and what it claims with it."""
    is_imported = grade is Grade.IMPORTED
    capture = captured(EAST, "123", grade)
    made = record("a", "mallory", capture=capture, is_imported=is_imported)
    for told in (given_to_bob("a"), made) if is_changed_first else (made, given_to_bob("a")):
        await store.put([told])

    async def found() -> list[list[str]]:
        asked = [InstanceQuery("123", EAST, project) for project in ("mallory", "bob", None)]
        keys = [await store.images_of_instance("glance", query) for query in asked]
        related = [
            await store.records(query, limit=9, before=None)
            for query in (
                RelationQuery(instance_id="123"),
                RelationQuery(installation=EAST, project="bob"),
                RelationQuery(image_id="a", installation=EAST),
            )
        ]
        return [[found.id for found in each] for each in keys] + [
            [found.image_id for found in each] for each in related
        ]

    is_vouched = grade is Grade.VOUCHED
    one = ["a"]
    assert await found() == ([[], one, one, one, one, one] if is_vouched else [[]] * 6)
    (held,) = await store.records_of(["a", "nobody's"])
    assert (held.project, held.made_for, held.capture) == ("bob", "mallory", made.capture)
    assert (held.counted == made.capture) is is_vouched
    await store.put([replace(given_to_bob("a"), project="mallory", at=at(20))])
    assert await found() == [one, [], one, one, [], one]


async def test_what_is_kept_of_images_is_told(store: Store) -> None:
    created = "2030-01-01T00:00:00Z"
    change, burial = given_to_bob("a"), Burial("other", "b", at(10))
    late = Burial("glance", "c", at(20), created)
    await store.put([change, burial, record("c"), late, Burial("glance", "d", at(30))])
    assert sorted(await store.changes(["a", "b", "c", "nobody's"]), key=repr) == sorted(
        [change, burial, late], key=repr
    )
    assert await store.changes([]) == []


async def test_the_store_remembers_every_registry(store: Store) -> None:
    assert await store.registries() == frozenset()
    await store.put([record("a"), record("b", registry="other")])
    assert await store.registries() == {"glance", "other"}


async def test_a_registry_is_renamed_whole_or_not_at_all(store: Store) -> None:
    await store.put([record("a"), record("b", registry="other")])
    for old, new in (("nope", "x"), ("glance", "other")):
        with pytest.raises(BadRequestError):
            await store.rename_registry(old, new)
    await store.rename_registry("glance", "east")
    assert await store.registries() == {"east", "other"}
    assert set(await store.owners("east", ["a", "b"])) == {"a"}
    assert await store.owners("glance", ["a"]) == {}


async def test_a_registry_is_meant_by_each_of_its_old_names(store: Store) -> None:
    """Journals keep them: what is put again, after a failover or by hand, must not double."""
    await store.put([record("a"), given_to_bob("x")])
    await store.rename_registry("glance", "east")
    await store.put([record("a"), record("b"), record("x"), Burial("glance", "b", at(10))])
    await store.rename_registry("east", "north")
    await store.put([record("a"), record("c", registry="east")])
    assert await store.registries() == {"north"}
    assert await store.renamed() == {"glance": "north", "east": "north"}
    owners = await store.owners("north", ["a", "b", "c", "x"])
    assert {image_id: owner.project for image_id, owner in owners.items()} == {
        "a": "alice",
        "c": "alice",
        "x": "bob",
    }
    assert len(await everything(store)) == 4


async def test_an_old_name_may_be_given_back_or_freed_and_not_taken_otherwise(
    store: Store,
) -> None:
    await store.put([record("a"), record("b", registry="other")])
    await store.rename_registry("glance", "east")
    with pytest.raises(BadRequestError, match="'glance' is the old name of 'east'"):
        await store.rename_registry("other", "glance")
    with pytest.raises(BadRequestError, match="'glance' was renamed already"):
        await store.rename_registry("glance", "west")
    await store.rename_registry("east", "glance")
    assert await store.renamed() == {"east": "glance"}
    await store.free_name("east")
    await store.rename_registry("other", "east")
    with pytest.raises(BadRequestError, match="'east' is no registry's old name"):
        await store.free_name("east")


async def purged(store: Store, before: datetime, *, at_most: int = 1000) -> int:
    """Purge until nothing is left to be; return how much it was."""
    forgotten = 0
    while done := await store.purge(deleted_before=before, at_most=at_most):
        assert done <= at_most
        forgotten += done
    return forgotten


async def kept(store: Store) -> list[OwnerChange | Burial]:
    return [change async for batch in store.walk_changes() for change in batch]


async def test_what_was_deleted_long_ago_is_forgotten_in_bounded_steps(store: Store) -> None:
    await store.put([record(name) for name in "abcd"])
    await store.put([Burial("glance", name, at(10)) for name in "abc"])
    await store.put([Burial("glance", "d", at(30))])
    # Three records, and what is kept of their deletion.
    assert await purged(store, at(20), at_most=2) == 6
    assert [r.image_id for r in await everything(store)] == ["d"]
    assert await kept(store) == [Burial("glance", "d", at(30))]


async def test_what_never_met_a_record_is_forgotten_too(store: Store) -> None:
    """An image that relproxy never recorded is deleted through it: this happens all the time."""
    created = "2030-01-01T00:00:00Z"
    lost: list[Change] = []
    for number in range(20):
        lost.append(Burial("glance", f"gone-{number}", at(number)))
        lost.append(OwnerChange("glance", f"lost-{number}", created, "bob", at(number)))
    await store.put(lost)
    assert len(await kept(store)) == 40
    assert await purged(store, at(15), at_most=7) == 30
    assert {change.at for change in await kept(store)} == {at(number) for number in range(15, 20)}


async def test_what_is_kept_of_a_record_is_forgotten_with_it(store: Store) -> None:
    await store.put([record("a"), record("b"), given_to_bob("a"), given_to_bob("b")])
    await store.put([Burial("glance", "a", at(10), "2030-01-01T00:00:00Z")])
    assert await purged(store, at(20)) == 1
    assert await kept(store) == [given_to_bob("b")]
    early = replace(given_to_bob("b"), project="carol", at=at(9))
    await store.put([early])
    assert (await store.owners("glance", ["b"]))["b"].project == "bob"


async def test_a_record_put_again_is_none_twice_though_another_of_its_id_was_forgotten(
    store: Store,
) -> None:
    first, second = record("a", registry="r1"), record("a", registry="r2", capture=None)
    third = record("a", registry="r2", created_at="2031-01-01T00:00:00Z", recorded_at=at(0))
    for made in (first, second, third):
        await store.put([made])
    await store.put([Burial("r1", "a", at(10))])
    assert await purged(store, at(20)) == 2
    for made in (second, third, record("a", registry="r2")):
        await store.put([made])
    assert await everything(store) == [third, record("a", registry="r2")]


async def test_a_record_put_again_is_none_twice_after_a_renaming(store: Store) -> None:
    first, second = record("a", registry="r1"), record("a", registry="r2")
    await store.put([first])
    await store.put([second])
    await store.rename_registry("r2", "r3")
    renamed = record("a", registry="r3")
    await store.put([renamed])
    await store.put([second])
    assert await everything(store) == [renamed, first]


async def test_records_are_walked_newest_first_by_their_places(store: Store) -> None:
    made = [record(str(number)) for number in range(7)]
    await store.put(made)
    seen: list[ImageRecord] = []
    before: Place | None = None
    while page := await store.records(RelationQuery(project="alice"), limit=3, before=before):
        seen += page
        before = store.place(page[-1])
    assert seen == made[::-1]


async def test_records_of_one_moment_have_places_of_their_own(store: Store) -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    made = [
        record(image_id, registry=registry, created_at=created_at, recorded_at=moment)
        for image_id in (EAST, WEST, "no uuid", "NO UUID", "ä")
        for registry in ("east", "East", "öst", "e-ast", "ea st")
        for created_at in ("2030-01-01T00:00:00Z", "2019-12-31T23:59:59Z", "then")
    ]
    await store.put(made)
    in_order = list(await store.records(RelationQuery(), limit=1000, before=None))
    assert len(in_order) == len(made)
    assert in_order == sorted(made, key=store.place, reverse=True)
    for place, following in zip(map(store.place, in_order), in_order[1:], strict=False):
        assert await store.records(RelationQuery(), limit=1, before=place) == [following]


async def test_a_batch_is_written_whole_or_not_at_all(store: Store) -> None:
    broken = record("b", created_at=None)
    with pytest.raises(StoreUnavailableError):
        await store.put([record("a"), broken])
    assert await everything(store) == []
    await store.put([record("a")])
    assert await everything(store) == [record("a")]


async def test_writers_at_once_do_not_share_a_transaction(store: Store) -> None:
    puts = [store.put([record(str(n)), record(f"{n}b")]) for n in range(50)]
    broken = [store.put([record(f"x{n}"), record("y", registry=None)]) for n in range(10)]
    results = await asyncio.gather(*puts, *broken, return_exceptions=True)
    assert sum(isinstance(result, StoreUnavailableError) for result in results) == 10
    assert len(await everything(store)) == 100


async def test_a_cancelled_put_leaves_the_store_usable(store: Store) -> None:
    for number in range(20):
        put = asyncio.create_task(store.put([record(str(number))]))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        put.cancel()
        await asyncio.gather(put, return_exceptions=True)
    await store.put([record("after")])
    assert (await everything(store))[0] == record("after")


async def test_a_store_that_is_not_open_says_so(reopen: Reopen) -> None:
    closed = reopen()
    for attempt in (closed.check(), closed.put([record("a")]), closed.owners("glance", ["a"])):
        with pytest.raises(StoreUnavailableError):
            await attempt
    await closed.close()
