"""`relproxy import`: what a registry had before relproxy, through every trouble on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from lab.stand_in import StandIn
from lab.stand_in_query import RefusedError
from relproxy.failpoints import ON_A_WALK
from relproxy.model import Burial, Capture, Grade, Instance, OwnerChange
from tests.integration.conftest import EAST, WEST, Client
from tests.integration.walks import CREATED, FAST, Site, recorded

ABSENT = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def site(tmp_path: Path, trusting: StandIn) -> Site:
    """Before a registry that knows owners."""
    return Site(tmp_path / "site", trusting, "registry")


@pytest.fixture
def alone(tmp_path: Path, noauth: StandIn) -> Site:
    """Before a registry that has none."""
    return Site(tmp_path / "alone", noauth, "relproxy")


def filled(glance: StandIn, count: int, **fields: Any) -> list[dict[str, Any]]:
    return [
        glance.add_image(owner=f"project-{n % 3}", instance_uuid=f"i-{n}", **fields)
        for n in range(count)
    ]


async def test_images_are_recorded_by_owner_and_by_instance_and_marked_as_imported(
    site: Site,
) -> None:
    (image,) = filled(site.glance, 1, visibility="private", created_at=CREATED)
    ran = await site.run("import", "--json")
    assert (ran.status, ran.counts) == (0, {"recorded": 1}), ran.err
    (held,) = (await site.records()).values()
    capture = Capture(Instance(EAST, "i-0"), Grade.IMPORTED)
    expected = recorded(image, "project-0", capture=capture, is_imported=True)
    # As of its creation: a backup that is older than a captured one stays older.
    assert held == expected


async def test_every_image_there_is_is_found_once(site: Site) -> None:
    for visibility in ("private", "shared", "community", "public"):
        for hidden in (True, False):
            site.glance.add_image(owner="alice", visibility=visibility, os_hidden=hidden)
    filled(site.glance, 20, created_at=CREATED)
    for page in ("1", "3", "28", "1000"):
        ran = await site.run("import", "--json", "--page", page, "--anew")
        assert ran.images == 28
    assert len(await site.records()) == 28


async def test_what_is_known_already_is_left_as_it_is(site: Site) -> None:
    images = filled(site.glance, 6)
    captured = recorded(images[0], "project-0", capture=Capture(Instance(WEST, "9"), Grade.CLAIMED))
    given = recorded(images[1], "somebody")
    dead = recorded(images[2], "project-2")
    known = [captured, given, dead]
    await site.put(*known, Burial("glance", dead.image_id, dead.recorded_at, dead.created_at))
    before = await site.records()
    ran = await site.run("import", "--json")
    assert ran.counts == {"known": 1, "another owner": 1, "deleted by record": 1, "recorded": 3}
    assert ran.status == 3
    assert ran.found("another owner") == {given.image_id}
    after = await site.records()
    assert {i: after[i] for i in before} == before
    again = await site.run("import", "--json")
    assert again.counts == {"known": 4, "another owner": 1, "deleted by record": 1}
    assert await site.records() == after


async def test_instances_of_no_known_installation_are_added_once_it_is_known(site: Site) -> None:
    site.settings = {"routes": [{"name": "all", "registry": "glance"}]}
    filled(site.glance, 1)
    site.glance.add_image(owner="alice", instance_id="7", nova_installation_uuid=WEST.upper())
    site.glance.add_image(owner="alice", instance_id="7", nova_installation_uuid="nonsense")
    await site.run("import")
    held = [record.capture for record in (await site.records()).values()]
    assert held == [None, Capture(Instance(WEST, "7"), Grade.IMPORTED), None]
    ran = await site.run("import", "--json", "--installation", EAST)
    assert ran.counts == {"instance added": 1, "known": 2}
    first = next(iter((await site.records()).values()))
    assert first.capture == Capture(Instance(EAST, "i-0"), Grade.IMPORTED)


async def test_nothing_is_guessed_where_nobody_names_an_owner(alone: Site) -> None:
    hidden = alone.glance.add_image(owner="what the registry says", visibility="private")["id"]
    alone.glance.add_image(visibility="public")
    ran = await alone.run("import", "--json")
    assert (ran.status, ran.counts) == (3, {"no owner": 1, "public, no owner": 1})
    assert ran.found("no owner") == {hidden}
    assert await alone.records() == {}


async def test_a_list_gives_owners_to_images_of_a_registry_that_has_none(
    alone: Site, only_wall: Client
) -> None:
    first, second, third = (alone.glance.add_image(visibility="private")["id"] for _ in range(3))
    owners = alone.owners({first.upper(): "alice", second: "bob", ABSENT: "carol"})
    alone.store, alone.journal = only_wall.store, only_wall.journal
    ran = await alone.run("import", "--json", "--owners", owners)
    assert (ran.status, ran.counts) == (3, {"recorded": 2, "no owner": 1}), ran.err
    assert (ran.found("no owner"), ran.found("not in registry")) == ({third}, {ABSENT})
    for project, ids in (("alice", [first]), ("bob", [second]), ("carol", [])):
        listed = (await only_wall.get("/v2/images", project=project)).json()["images"]
        assert [image["id"] for image in listed] == ids


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["line 1: the columns are none"]),
        ("id,project\nx,alice\n", ["line 1: the columns are id, project"]),
        ("image_id,project,note\nx,alice,\n", ["line 1: the columns are image_id, project, note"]),
        (
            "image_id,project\na,alice\n../x,alice\nb,\nc,alice,bob\nd\nA,bob\ne,a\tb\n",
            [
                *("line 3: '../x'", "line 4: ''", "line 5: 3 fields", "line 6: 1 fields"),
                *("line 7: a is in line 2", "line 8: 'a\\tb'"),
            ],
        ),
        ('image_id,project\n"a,alice\n', ["line 2: unexpected end of data"]),
        ("image_id,project\n" + "?,a\n" * 30, ["line 21: '?'", "and 10 more"]),
    ],
)
async def test_a_list_that_isnt_right_is_told_line_by_line_and_nothing_is_done(
    alone: Site, text: str, problems: list[str]
) -> None:
    alone.glance.add_image(id=ABSENT, visibility="private")
    ran = await alone.run("import", "--owners", alone.owners(text))
    assert ran.status == 1
    for problem in problems:
        assert problem in ran.err
    assert alone.glance.requests == []
    right = alone.owners(f"\ufeffproject,image_id\r\nalice,{ABSENT}\r\n\r\n")
    ran = await alone.run("import", "--owners", right)
    assert ran.status == 0, ran.err


async def test_owners_are_no_mans_to_say_where_the_registry_names_them(site: Site) -> None:
    ran = await site.run("import", "--owners", site.owners({}))
    assert (ran.status, ran.err) == (1, "The registry 'glance' names owners itself.\n")


async def test_a_registry_that_hides_images_from_relproxy_is_refused(site: Site) -> None:
    site.settings = {"registries": [{
        "name": "glance", "tenancy": "registry", "endpoints": [site.glance.url],
    }]}  # fmt: skip
    ran = await site.run("import")
    assert ran.status == 1
    assert "give relproxy `credentials` of an admin" in ran.err
    assert site.glance.requests == []


# -- trouble on the way


def on_each_list(glance: StandIn, hook: Callable[[int], None]) -> None:
    """Call `hook` with the number of each list, before it is answered."""
    count = 0

    async def counted() -> None:
        nonlocal count
        count += 1
        hook(count)

    glance.faults.before_list = counted


async def test_a_registry_that_is_away_for_a_while_is_asked_again(site: Site) -> None:
    filled(site.glance, 9)

    def fail(number: int) -> None:
        site.glance.faults.truncate_after = 40 if number == 3 else None
        site.glance.faults.garbage = b"[]" if number == 5 else None
        if number in {1, 7}:
            raise RefusedError(503 if number == 1 else 401)

    on_each_list(site.glance, fail)
    ran = await site.run("import", "--json", "--page", "3")
    assert (ran.status, ran.counts) == (0, {"recorded": 9}), ran.err
    assert len(await site.records()) == 9


async def test_a_registry_that_refuses_is_not_asked_again(site: Site) -> None:
    def fail(_: int) -> None:
        raise RefusedError(403)

    on_each_list(site.glance, fail)
    ran = await site.run("import")
    assert ran.status == 1
    assert "answers 403 to relproxy's own question" in ran.err
    assert len(site.glance.requests) == 1


@pytest.mark.parametrize("gone", [1, 2, 6, 9])
async def test_the_walk_goes_on_where_the_image_that_marked_its_place_is_gone(
    site: Site, gone: int
) -> None:
    """Of the nine images walked so many of the last are gone, without a trace."""
    images = filled(site.glance, 20, created_at=CREATED)
    images.sort(key=lambda image: image["id"])

    def drop(number: int) -> None:
        if number == 4:
            for image in images[9 - gone : 9]:
                del site.glance.images[image["id"]]

    on_each_list(site.glance, drop)
    ran = await site.run("import", "--json", "--page", "3")
    assert (ran.status, ran.counts) == (0, {"recorded": 20}), ran.err
    # From the beginning only where nothing else is left.
    begun = [r for r in site.glance.requests if "os_hidden=false" in r.target]
    assert sum("marker=" not in r.target for r in begun) == (1 if gone < 9 else 2)


async def test_what_is_created_and_deleted_during_the_walk_is_as_it_is_in_the_end(
    alone: Site, only_wall: Client
) -> None:
    """An image that the list still had when it was deleted is not brought back."""
    alone.store, alone.journal = only_wall.store, only_wall.journal
    images = [alone.glance.add_image(visibility="private")["id"] for _ in range(6)]
    owners = alone.owners(dict.fromkeys(images, "alice"))
    running = alone.begin("import", *FAST, "--json", "--page", "3", "--owners", owners)
    held, go_on = asyncio.Event(), asyncio.Event()

    async def kept_back() -> None:
        held.set()
        await go_on.wait()

    alone.glance.faults.after_list = kept_back
    await held.wait()
    gone = f"/v2/images/{images[0]}"
    assert (await only_wall.call("DELETE", gone, project="root", roles="admin")).status == 204
    created = (await only_wall.create("new", "bob")).json()["id"]
    go_on.set()
    ran = await asyncio.to_thread(running.end)
    assert ran.status == 0, ran.err
    records = await alone.records()
    assert {i for i, r in records.items() if r.deleted_at is None} == {*images[1:], created}
    assert (records[created].project, records[created].is_imported) == ("bob", False)


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(site: Site) -> None:
    site.settings = {"limits": {"max_page_bytes": 5000}}
    filled(site.glance, 20)
    ran = await site.run("import", "--json")
    assert (ran.status, ran.counts) == (0, {"recorded": 20}), ran.err


async def test_an_image_that_cant_be_read_or_kept_is_told_and_the_others_are_recorded(
    site: Site,
) -> None:
    filled(site.glance, 2)
    site.glance.add_image(owner="o" * 256)
    strange = site.glance.add_image(owner="alice")["id"]

    def patch(image: Any) -> bytes:
        doubled = b'{"id": "x", ' if image["id"] == strange else b"{"
        return doubled + json.dumps(image).encode()[1:]

    site.glance.faults.image_patch = patch
    ran = await site.run("import", "--json", "--page", "1")
    assert (ran.status, ran.counts) == (3, {"recorded": 2, "can't be kept": 1, "unreadable": 1})


# -- broken off


@pytest.mark.parametrize("failpoint", ON_A_WALK)
@pytest.mark.parametrize("time", [1, 2, 4])
async def test_a_walk_that_was_killed_goes_on_and_counts_each_image_once(
    site: Site, failpoint: str, time: int
) -> None:
    filled(site.glance, 20)
    killed = await site.run("import", "--page", "5", failpoint=f"{failpoint}:{time}")
    assert killed.status == -9, killed.err
    asked = len(site.glance.requests)
    ran = await site.run("import", "--json", "--page", "5")
    assert (ran.status, ran.counts) == (0, {"recorded": 20}), ran.err
    assert "going on with what was begun at" in ran.err
    assert len(await site.records()) == 20
    # Four pages, one at the end that is empty, and the hidden ones; one may be asked for twice.
    assert asked < len(site.glance.requests) <= 7


async def test_a_walk_is_gone_on_with_on_the_same_terms_only(alone: Site) -> None:
    image = alone.glance.add_image(visibility="private")["id"]
    first = alone.owners({image: "alice"})
    killed = await alone.run("import", "--owners", first, failpoint="before-note")
    assert killed.status == -9
    other = alone.owners({image: "bob"})
    refused = await alone.run("import", "--owners", other)
    assert refused.status == 1
    assert "--anew" in refused.err
    ran = await alone.run("import", "--owners", other, "--anew")
    assert ran.status == 0, ran.err
    assert (await alone.records())[image].project == "bob"


async def test_the_same_walk_doesnt_go_twice_at_a_time(site: Site) -> None:
    filled(site.glance, 1)
    site.glance.faults.delay = asyncio.Event()
    running = site.begin("import", *FAST)
    await site.glance.await_requests(1)
    second = await Site(site.home, site.glance, "registry").run("import", "--json")
    assert (second.status, second.err) == (1, "The same walk is under way on this host.\n")
    site.glance.faults.delay.set()
    assert (await asyncio.to_thread(running.end)).status == 0


async def test_a_broken_file_of_a_walk_is_said_to_be_one(site: Site) -> None:
    walks = site.journal / "walks"
    walks.mkdir(parents=True)
    (walks / "import-glance.db").write_bytes(b"nonsense" * 1000)
    filled(site.glance, 1)
    ran = await site.run("import")
    assert ran.status == 1
    assert "--anew" in ran.err
    assert (await site.run("import", "--anew")).status == 0


async def test_a_store_that_is_another_hosts_is_not_written(site: Site, tmp_path: Path) -> None:
    filled(site.glance, 1)
    assert (await site.run("import")).status == 0
    site.journal = tmp_path / "another"
    ran = await site.run("import")
    assert ran.status == 1
    assert "belongs to another host" in ran.err


async def test_a_store_that_is_locked_for_too_long_ends_the_walk_and_it_goes_on_later(
    site: Site,
) -> None:
    filled(site.glance, 3)
    assert (await site.run("import")).status == 0
    filled(site.glance, 3)
    async with aiosqlite.connect(site.store, isolation_level=None) as other:
        await other.execute("BEGIN IMMEDIATE")
        assert (await site.run("import")).status == 1
    ran = await site.run("import", "--json")
    assert (ran.status, ran.counts) == (0, {"known": 3, "recorded": 3}), ran.err


async def test_a_plain_file_gets_plain_lines_and_exact_counts(site: Site) -> None:
    filled(site.glance, 7)
    ran = await site.run("import", "--page", "2")
    assert ran.out == "7 images: 7 recorded\n"
    assert ran.err.splitlines()[0] == "2 listed, about 0%" or "listed" in ran.err
    assert "\r" not in ran.err


async def test_an_owner_change_that_comes_later_wins_over_a_walk(site: Site) -> None:
    (image,) = filled(site.glance, 1)
    assert (await site.run("import")).status == 0
    (held,) = (await site.records()).values()
    change = OwnerChange("glance", held.image_id, image["created_at"], "bob", held.recorded_at)
    await site.put(change)
    ran = await site.run("import", "--json")
    assert ran.counts == {"another owner": 1}
    assert (await site.records())[held.image_id].project == "bob"
