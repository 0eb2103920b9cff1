"""`relproxy reconcile`: where a registry and its records differ, and what settles it."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.postgres import Postgres
from lab.stand_in import Faults, StandIn
from lab.stand_in_glance_registry import StandInGlanceRegistry
from lab.stand_in_query import RefusedError
from lab.stand_in_v1 import StandInV1
from relproxy.failpoints import ON_A_WALK
from relproxy.model import Burial, Capture, Grade, ImageRecord, Instance
from relproxy.store.postgres_pool import PostgresSettings, migrate
from tests.integration.conftest import EAST, Client, eventually
from tests.integration.walks import CREATED, FAST, Site, recorded

LATER = "2031-01-01T00:00:00Z"
Images = dict[str, dict[str, Any]]


@pytest.fixture
def site(tmp_path: Path, trusting: StandIn) -> Site:
    """Before a registry that knows owners."""
    return Site(tmp_path / "site", trusting, "registry")


@pytest.fixture
def alone(tmp_path: Path, noauth: StandIn) -> Site:
    """Before a registry that has none."""
    return Site(tmp_path / "alone", noauth, "relproxy")


def image(site: Site, name: str, **fields: Any) -> dict[str, Any]:
    whole = {"name": name, "owner": "alice", "created_at": CREATED, **fields}
    return site.glance.add_image(**whole)


async def differing(site: Site) -> Images:
    """Make one image of each kind, and their records; return name -> image."""
    kinds: dict[str, dict[str, Any]] = {
        "agrees": {},
        "hidden": {"os_hidden": True},
        "gone": {},
        "given": {"owner": "bob"},
        "anew": {},
        "dead": {},
        "bypassed": {"instance_uuid": "i-7"},
        "plain": {},
    }
    made = {name: image(site, name, **fields) for name, fields in kinds.items()}
    records = {n: recorded(i, "alice") for n, i in made.items() if n not in ("bypassed", "plain")}
    dead = records["dead"]
    burial = Burial("glance", dead.image_id, dead.recorded_at, dead.created_at)
    await site.put(*records.values(), burial)
    del site.glance.images[made["gone"]["id"]]
    site.glance.images[made["anew"]["id"]]["created_at"] = LATER
    return made


def found(made: Images, **names: str) -> set[tuple[str, str]]:
    return {(outcome.replace("_", " "), made[name]["id"]) for outcome, name in names.items()}


async def test_differences_are_told_and_nothing_is_changed(site: Site) -> None:
    made = await differing(site)
    before = await site.records()
    ran = await site.run("reconcile", "--json", "--page", "3")
    assert ran.status == 3, ran.err
    told = {(d["finding"], d["image_id"]) for d in ran.documents}
    expected = found(made, bypassed="bypassed", owner_changed="given", deleted_by_record="dead")
    assert told == expected | {("gone", made["gone"]["id"]), ("gone", made["anew"]["id"])}
    # `anew` is two: the image that had the id, and the one that has it.
    assert ran.counts == {
        "agrees": 2,
        "gone": 2,
        "owner changed": 1,
        "deleted by record": 1,
        "bypassed": 1,
        "needs no record": 2,
    }
    assert await site.records() == before


async def test_applying_settles_them_and_then_there_are_none_left(site: Site) -> None:
    made = await differing(site)
    ran = await site.run("reconcile", "--json", "--apply")
    # Of what is deleted by record, and there all the same, only a person can tell.
    assert ran.status == 3
    records = await site.records()
    buried = {i for i, r in records.items() if r.deleted_at is not None}
    assert buried == {made[name]["id"] for name in ("gone", "anew", "dead")}
    assert records[made["given"]["id"]].project == "bob"
    bypassed = records[made["bypassed"]["id"]]
    assert bypassed.is_imported
    assert bypassed.capture == Capture(Instance(EAST, "i-7"), Grade.IMPORTED)
    assert made["plain"]["id"] not in records
    again = await site.run("reconcile", "--json")
    assert again.counts == {"agrees": 4, "deleted by record": 1, "needs no record": 2}
    del site.glance.images[made["dead"]["id"]]
    assert (await site.run("reconcile")).status == 0


async def test_a_list_that_lags_buries_nothing(site: Site) -> None:
    images = [image(site, f"{n}") for n in range(5)]
    await site.put(*(recorded(i, "alice") for i in images))
    # It lists nothing, and answers by id.
    site.glance.page_filter = lambda _: False
    ran = await site.run("reconcile", "--json", "--apply")
    assert (ran.status, ran.counts) == (0, {"agrees": 5}), ran.err


async def test_a_registry_that_lacks_most_buries_nothing_unless_a_person_says_so(
    site: Site,
) -> None:
    """Another registry behind the same address, or one that was restored from too old a backup."""
    images = [image(site, f"{n}") for n in range(30)]
    await site.put(*(recorded(i, "alice") for i in images))
    for gone in images[:21]:
        del site.glance.images[gone["id"]]
    refused = await site.run("reconcile", "--apply")
    assert refused.status == 1
    assert "lacks 21 of the 30 images" in refused.err
    assert not [r for r in (await site.records()).values() if r.deleted_at]
    ran = await site.run("reconcile", "--apply", "--bury-most", "--json")
    assert (ran.status, ran.counts) == (0, {"agrees": 9, "buried": 21}), ran.err
    assert len([r for r in (await site.records()).values() if r.deleted_at]) == 21


async def test_what_was_just_recorded_is_not_taken_for_gone(site: Site) -> None:
    young = image(site, "young")
    await site.put(recorded(young, "alice", recorded_at=datetime.now(UTC)))
    del site.glance.images[young["id"]]
    ran = await site.run("reconcile", "--json", "--apply")
    assert (ran.status, ran.counts) == (0, {"young": 1}), ran.err


async def test_an_error_by_id_is_no_sign_that_an_image_is_gone(site: Site) -> None:
    gone = image(site, "x")
    await site.put(recorded(gone, "alice"))
    site.glance.page_filter = lambda _: False

    async def then_forbid() -> None:
        site.glance.images[gone["id"]].update(visibility="private", owner="bob")
        if len(site.glance.requests) >= 2:
            site.glance.faults.status = (403, b"")

    site.glance.faults.before_list = then_forbid
    ran = await site.run("reconcile", "--apply")
    assert ran.status == 1
    assert "answers 403" in ran.err
    assert not [r for r in (await site.records()).values() if r.deleted_at]


async def test_records_of_another_registry_are_left_alone(site: Site) -> None:
    site.settings = {
        "registries": [
            *({"name": n, "tenancy": "registry", "upstream_identity": "headers",
               "endpoints": [site.glance.url]} for n in ("glance", "attic")),
        ],
    }  # fmt: skip
    at = datetime(2024, 5, 1, tzinfo=UTC)
    await site.put(
        ImageRecord("attic", "11111111-2222-4333-8444-555555555555", CREATED, "a", None, at)
    )
    ran = await site.run("reconcile", "--json", "--apply")
    assert (ran.status, ran.counts) == (0, {}), ran.err


async def test_where_the_registry_has_no_owners_its_own_are_not_believed(alone: Site) -> None:
    """What can't be given an owner is told, and not recorded."""
    known = image(alone, "known", owner="mallory", visibility="private")
    unknown = image(alone, "unknown", owner="mallory", visibility="private", instance_uuid="1")
    image(alone, "public", visibility="public")
    await alone.put(recorded(known, "alice"))
    ran = await alone.run("reconcile", "--json", "--apply")
    assert (ran.status, ran.counts) == (3, {"agrees": 1, "no owner": 1, "public, no owner": 1})
    assert ran.found("no owner") == {unknown["id"]}
    assert {r.project for r in (await alone.records()).values()} == {"alice"}


async def test_entries_in_doubt_are_told_and_left_to_their_settlement(
    site: Site, second_wall: Client
) -> None:
    site.store, site.journal = second_wall.store, second_wall.journal

    async def fail() -> None:
        # And the settlement can't ask until relproxy has stopped.
        site.glance.faults.status = (503, b"")
        raise RefusedError(500)

    site.glance.faults.after_create = fail
    fields = {"instance_id": "5", "instance_uuid": "5", "nova_installation_uuid": EAST}
    assert (await second_wall.create("doubtful", "alice", fields=fields)).status == 500
    await second_wall.stop()
    site.glance.faults = Faults()
    (created,) = site.glance.images
    ran = await site.run("reconcile", "--json", "--apply")
    assert (ran.status, ran.counts) == (3, {"on its way": 1}), ran.err
    assert ran.found("in doubt") == {created}
    assert await site.records() == {}


@pytest.mark.parametrize("failpoint", ON_A_WALK)
@pytest.mark.parametrize("time", [1, 2, 3, 5])
async def test_a_reconciliation_that_was_killed_goes_on_and_counts_once(
    site: Site, failpoint: str, time: int
) -> None:
    images = [image(site, f"{n}", instance_uuid=f"i-{n}") for n in range(20)]
    await site.put(*(recorded(i, "bob") for i in images[:15]))
    for gone in images[:5]:
        del site.glance.images[gone["id"]]
    arguments = ("reconcile", "--json", "--apply", "--page", "4")
    killed = await site.run(*arguments, failpoint=f"{failpoint}:{time}")
    ran = await site.run(*arguments)
    if killed.status == 0:
        assert killed.counts == {"owner changed": 10, "bypassed": 5, "buried": 5}
        assert ran.counts == {"agrees": 15}
        return
    assert killed.status == -9, killed.err
    assert (ran.status, ran.counts) == (0, {"owner changed": 10, "bypassed": 5, "buried": 5})
    records = (await site.records()).values()
    assert sorted((r.project, r.deleted_at is not None) for r in records) == [
        *[("alice", False)] * 15,
        *[("bob", True)] * 5,
    ]


async def test_one_that_only_tells_is_not_gone_on_with_by_one_that_applies(site: Site) -> None:
    image(site, "x", instance_uuid="1")
    await site.put()
    assert (await site.run("reconcile", failpoint="after-note")).status == -9
    refused = await site.run("reconcile", "--apply")
    assert refused.status == 1
    assert "--anew" in refused.err
    ran = await site.run("reconcile", "--apply", "--anew", "--json")
    assert (ran.status, ran.counts) == (0, {"bypassed": 1})


async def test_a_store_that_isnt_there_is_not_made_by_one_that_only_tells(site: Site) -> None:
    image(site, "x")
    ran = await site.run("reconcile")
    assert ran.status == 1
    assert "store" in ran.err
    assert not site.store.exists()


async def test_what_is_created_through_relproxy_meanwhile_has_not_bypassed_it(
    site: Site, second_wall: Client
) -> None:
    site.store, site.journal = second_wall.store, second_wall.journal
    for n in range(6):
        image(site, f"{n}")
    running = site.begin("reconcile", *FAST, "--json", "--apply", "--page", "3")
    held, go_on = asyncio.Event(), asyncio.Event()

    async def kept_back() -> None:
        held.set()
        await go_on.wait()

    site.glance.faults.before_list = kept_back
    await asyncio.wait_for(held.wait(), 60)
    fields = {"instance_id": "5", "instance_uuid": "5", "nova_installation_uuid": EAST}
    created = (await second_wall.create("new", "alice", fields=fields)).json()["id"]
    go_on.set()
    ran = await asyncio.to_thread(running.end)
    assert ran.status == 0, ran.err
    assert ran.found("bypassed") == set()

    async def is_imported() -> bool:
        return (await site.records())[created].is_imported

    await eventually(is_imported, False)


@pytest.mark.parametrize(
    ("stand_in", "dialect"),
    [(StandInV1, "glance-v1"), (StandInGlanceRegistry, "glance-registry")],
)
async def test_registries_of_old_are_taken_in_and_compared_too(
    tmp_path: Path, stand_in: type[StandInV1], dialect: str
) -> None:
    async with stand_in() as glance:
        site = Site(tmp_path / "site", glance, "relproxy", dialect)
        images = [
            glance.add_image(owner="x", created_at=CREATED, properties={"instance_uuid": f"i-{n}"})
            for n in range(9)
        ]
        ids = [str(image["id"]) for image in images]
        owners = site.owners(dict.fromkeys(ids[1:], "alice"))
        ran = await site.run("import", "--json", "--page", "4", "--owners", owners)
        assert (ran.status, ran.counts) == (3, {"recorded": 8, "no owner": 1}), ran.err
        held = await site.records()
        assert held[ids[8]].capture == Capture(Instance(EAST, "i-8"), Grade.IMPORTED)
        del glance.images[ids[3]]
        ran = await site.run("reconcile", "--json", "--page", "4", "--apply")
        assert ran.counts == {"agrees": 7, "no owner": 1, "buried": 1}, ran.err
        dead = [i for i, r in (await site.records()).items() if r.deleted_at is not None]
        assert dead == [ids[3]]


async def test_a_postgresql_is_told_and_compared_as_well(site: Site, postgres: Postgres) -> None:
    settings = PostgresSettings(postgres.create_database(f"walks-{uuid.uuid4()}"))
    await migrate(settings)
    site.settings = {"store": {"driver": "postgres", "dsn": settings.dsn}}
    images = [image(site, f"{n}", instance_uuid=f"i-{n}") for n in range(20)]
    killed = await site.run("import", "--page", "5", failpoint="before-told:2")
    assert killed.status == -9
    ran = await site.run("import", "--json", "--page", "5")
    assert (ran.status, ran.counts) == (0, {"recorded": 20}), ran.err
    del site.glance.images[images[0]["id"]]
    site.glance.images[images[1]["id"]]["owner"] = "bob"
    ran = await site.run("reconcile", "--json", "--page", "5", "--apply")
    assert (ran.status, ran.counts) == (0, {"agrees": 18, "owner changed": 1, "buried": 1})
    assert (await site.run("reconcile", "--json")).counts == {"agrees": 19}
    count = "SELECT count(*), count(*) FILTER (WHERE grade = 'imported') FROM image_relation"
    # What was given away says no more how it came to be known.
    assert postgres.execute(count, settings.dsn.rpartition("/")[2]) == "20|19\n"
