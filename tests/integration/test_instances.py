from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lab.stand_in import StandIn
from tests.integration.conftest import EAST, WEST, Client, Serve, Wall, eventually, registry
from tests.integration.test_lists import walked


def of(instance: str, installation: str = EAST) -> dict[str, str]:
    return {"X-Nova-Installation-UUID": installation, "X-Nova-Instance-ID": instance}


async def test_an_instances_images_are_those_recorded_for_the_callers_project(wall: Wall) -> None:
    client = wall.client
    await client.create("mine", "alice", headers=of("123"))
    await client.create("others", "bob", headers=of("123"))
    await client.create("elsewhere", "alice", headers=of("124"))
    query = "/v2/images?instance_id=123"
    assert (await client.get(query, project="alice")).names == ["mine"]
    assert (await client.get(query, project="bob")).names == ["others"]
    both = await client.get(query, project="ops", roles="admin")
    assert both.names == ["others", "mine"]


async def test_a_foreign_and_an_unknown_instance_give_the_same_empty_list(
    second_wall: Client,
) -> None:
    await second_wall.create("others", "bob", headers=of("123"), fields={"visibility": "private"})
    foreign = await second_wall.get("/v2/images?instance_id=123", project="alice")
    unknown = await second_wall.get("/v2/images?instance_id=999", project="alice")
    assert foreign.status == unknown.status == 200
    assert foreign.body.replace(b"123", b"999") == unknown.body
    assert foreign.json()["images"] == []


@pytest.mark.parametrize("is_vouched", [False, True], ids=["claimed", "vouched"])
async def test_an_image_that_is_given_away_brings_no_claim_with_it(
    second_wall: Client, trusting: StandIn, *, is_vouched: bool
) -> None:
    """Glance refuses a member's change of the owner with 403, and makes it."""
    await second_wall.create("honest", "alice", headers=of("123"))
    tuple_of = {"instance_id": "123", "nova_installation_uuid": EAST}
    named: dict[str, Any] = {"headers": of("123")} if is_vouched else {"fields": tuple_of}
    made = await second_wall.create("given", "mallory", **named)
    image_id = made.json()["id"]
    given = await second_wall.call(
        "PATCH",
        f"/v2/images/{image_id}",
        project="mallory",
        headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        data=json.dumps([{"op": "add", "path": "/owner", "value": "alice"}]),
    )
    assert (made.status, given.status) == (201, 403)
    assert trusting.images[image_id]["owner"] == "alice"

    async def entries_in_doubt() -> int:
        return len(await second_wall.in_doubt())

    await eventually(entries_in_doubt, 0)
    expected = ["given", "honest"] if is_vouched else ["honest"]
    query = "/v2/images?instance_id=123"
    assert (await second_wall.get(query, project="alice")).names == expected
    assert (await second_wall.get(query, project="mallory")).names == []
    assert (await second_wall.get(query, project="ops", roles="admin")).names == expected
    assert len(await second_wall.relations("instance_id=123")) == len(expected)
    (shown,) = await second_wall.relations(f"image_id={image_id}")
    said = [shown[name] for name in ("nova_installation_uuid", "instance_id", "grade")]
    assert shown["project"] == "alice"
    assert said == ([EAST, "123", "vouched"] if is_vouched else [None] * 3)
    explained = await second_wall.get(
        f"/v1/explain?project=alice&image_id={image_id}", url=second_wall.admin_url
    )
    (record,) = explained.json()["registries"][0]["records"]
    assert [record[name] for name in ("nova_installation_uuid", "instance_id", "grade")] == said


async def test_a_public_image_does_not_tell_a_project_which_instance_it_came_from(
    second_wall: Client,
) -> None:
    await second_wall.create(
        "published", "bob", roles="admin", headers=of("123"), fields={"visibility": "public"}
    )
    assert (await second_wall.get("/v2/images", project="alice")).names == ["published"]
    assert (await second_wall.get("/v2/images?instance_id=123", project="alice")).names == []


async def test_the_installation_is_the_one_asked_for_else_the_routes(
    serve: Serve, trusting: StandIn
) -> None:
    client = await serve(
        registries=[registry(trusting.url, "registry")],
        routes=[
            {"name": "west", "path_prefix": "/west", "registry": "glance", "installation": "west"},
            {"name": "any", "path_prefix": "/any", "registry": "glance"},
            {"name": "east", "registry": "glance", "installation": "east"},
        ],
    )
    await client.create("of-east", "alice", headers=of("123", EAST))
    await client.create("of-west", "alice", headers=of("123", WEST))
    ask = "/v2/images?instance_id=123"
    assert (await client.get(ask, project="alice")).names == ["of-east"]
    assert (await client.get(f"/west{ask}", project="alice")).names == ["of-west"]
    assert (await client.get(f"/any{ask}", project="alice")).names == ["of-west", "of-east"]
    named = f"{ask}&nova_installation_uuid={WEST.upper()}"
    assert (await client.get(named, project="alice")).names == ["of-west"]


async def test_the_question_is_pushed_down_as_the_registrys_own_id_filter(
    second_wall: Client, trusting: StandIn
) -> None:
    created = await second_wall.create("mine", "alice", headers=of("123"))
    trusting.requests.clear()
    answer = await second_wall.get("/v2/images?instance_id=123&limit=7", project="alice")
    (asked,) = trusting.requests
    assert asked.target == f"/v2/images?id=in:{created.json()['id']}&limit=8"
    assert answer.json()["first"] == "/v2/images?instance_id=123&limit=7"


async def test_a_registry_that_ignores_the_filter_does_not_widen_the_answer(
    second_wall: Client, trusting: StandIn
) -> None:
    await second_wall.create("of-instance", "alice", headers=of("123"))
    await second_wall.create("mine-too", "alice")
    rows = list(trusting.images.values())
    trusting.faults.garbage = json.dumps({"images": rows, "first": "/v2/images"}).encode()
    asked = await second_wall.get("/v2/images?instance_id=123", project="alice")
    assert asked.names == ["of-instance"]
    unknown = await second_wall.get("/v2/images?instance_id=999", project="alice")
    assert unknown.names == []


async def test_filters_and_sorting_combine_with_an_instance(second_wall: Client) -> None:
    for name in ("b", "a", "c"):
        await second_wall.create(name, "alice", headers=of("123"), fields={"os_type": name})
    ask = "/v2/images?instance_id=123&sort=name:asc"
    assert (await second_wall.get(ask, project="alice")).names == ["a", "b", "c"]
    assert (await second_wall.get(f"{ask}&os_type=b", project="alice")).names == ["b"]


async def test_a_year_of_nightly_backups_is_walked_exactly_though_no_url_holds_their_ids(
    serve: Serve, trusting: StandIn
) -> None:
    client = await serve(
        registries=[registry(trusting.url, "registry")],
        # Six ids to a request: the same several streams that a year needs at the default.
        limits={"max_upstream_target_bytes": 1000, "max_upstream_pages": 100},
    )
    for night in range(60):
        await client.create(f"night-{night:02}", "alice", headers=of("123"))
        trusting.add_image(name="other", owner="alice")
    expected = [f"night-{night:02}" for night in range(59, -1, -1)]
    target = "/v2/images?instance_id=123&limit=25"
    names = [page async for page in walked(client, target, "alice")]
    assert [len(page) for page in names] == [25, 25, 10]
    assert [name for page in names for name in page] == expected
    by_name = [page async for page in walked(client, f"{target}&sort=name:asc", "alice")]
    assert [name for page in by_name for name in page] == expected[::-1]


async def test_an_image_deleted_from_the_registry_is_no_longer_listed(
    second_wall: Client,
) -> None:
    created = await second_wall.create("mine", "alice", headers=of("123"))
    image_id = created.json()["id"]
    await second_wall.call("DELETE", f"/v2/images/{image_id}", project="alice")
    assert (await second_wall.get("/v2/images?instance_id=123", project="alice")).names == []


async def test_an_id_created_anew_is_not_listed_under_the_instance_of_the_old_one(
    second_wall: Client, trusting: StandIn
) -> None:
    image_id = (await second_wall.create("old", "alice", headers=of("123"))).json()["id"]
    del trusting.images[image_id]
    trusting.add_image(id=image_id, name="new", owner="alice", created_at="2031-01-01T00:00:00Z")
    assert (await second_wall.get("/v2/images?instance_id=123", project="alice")).names == []
    assert (await second_wall.get("/v2/images", project="alice")).names == ["new"]


async def test_creates_of_many_clients_at_once_are_all_recorded(second_wall: Client) -> None:
    creates = [second_wall.create(f"i{n}", "alice", headers=of("123")) for n in range(30)]
    answers = await asyncio.gather(*creates)
    assert {answer.status for answer in answers} == {201}
    made = {answer.json()["id"] for answer in answers}
    relations = await second_wall.relations("instance_id=123")
    assert {relation["image_id"] for relation in relations} == made
    assert len(relations) == 30
