"""A running relproxy in front of a glance-registry of 2011, in both tenancies."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lab.stand_in_glance_registry import StandInGlanceRegistry
from tests.integration.conftest import EAST, Answer, Client, Serve, eventually, registry

ABSENT = "4711"
VOUCHED = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "123"}
CLAIMED = {"nova_installation_uuid": EAST, "instance_id": "123"}


@pytest.fixture
async def noauth() -> AsyncIterator[StandInGlanceRegistry]:
    async with StandInGlanceRegistry() as glance:
        yield glance


@pytest.fixture
async def trusting() -> AsyncIterator[StandInGlanceRegistry]:
    async with StandInGlanceRegistry(trusting=True) as glance:
        yield glance


def of_2011(url: str, tenancy: str, **settings: Any) -> dict[str, Any]:
    settings = {"upstream_identity": "token", **settings}
    return registry(url, tenancy, dialect="glance-registry", **settings)


@pytest.fixture
async def only_wall(serve: Serve, noauth: StandInGlanceRegistry) -> Client:
    return await serve(registries=[of_2011(noauth.url, "relproxy")])


@pytest.fixture
async def second_wall(serve: Serve, trusting: StandInGlanceRegistry) -> Client:
    return await serve(registries=[of_2011(trusting.url, "registry")])


Wall = tuple[Client, StandInGlanceRegistry]


@pytest.fixture(params=["only_wall", "second_wall"])
def wall(request: pytest.FixtureRequest) -> Wall:
    glance = "noauth" if request.param == "only_wall" else "trusting"
    return request.getfixturevalue(request.param), request.getfixturevalue(glance)


def token(glance: StandInGlanceRegistry, project: str) -> dict[str, str]:
    return {"X-Auth-Token": project} if glance.trusting else {}


async def create(
    wall: Wall, name: str, project: str, headers: dict[str, str] | None = None, **fields: Any
) -> Answer:
    client, glance = wall
    return await client.post(
        "/images",
        project=project,
        headers=token(glance, project) | (headers or {}),
        json={"image": {"name": name, **fields}},
    )


async def made(wall: Wall, name: str, project: str, **options: Any) -> str:
    answer = await create(wall, name, project, **options)
    assert answer.status == 200, answer.body
    return str(answer.json()["image"]["id"])


async def get(wall: Wall, target: str, project: str) -> Answer:
    client, glance = wall
    return await client.get(target, project=project, headers=token(glance, project))


def same(answer: Answer) -> tuple[object, ...]:
    fields = {k.lower(): v for k, v in answer.headers.items()}
    fields = {k: v for k, v in fields.items() if k not in {"date", "x-openstack-request-id"}}
    return answer.status, fields, re.sub(rb"\d+", b"N", answer.body)


async def test_create_is_captured_from_headers(wall: Wall) -> None:
    client, glance = wall

    image_id = await made(wall, "snapshot", "alice", headers=VOUCHED)

    assert not glance.requests[-1].values("X-Nova-Instance-ID")
    assert "id" not in json.loads(glance.requests[-1].body)["image"]
    (relation,) = await client.relations("instance_id=123")
    assert (relation["image_id"], relation["project"]) == (image_id, "alice")
    assert relation["grade"] == "vouched"


async def test_claimed_properties_are_stripped_and_all_else_keeps_its_bytes(wall: Wall) -> None:
    client, glance = wall
    body = (
        b'{"image":{"name" : "n","properties":{"a":"1", "instance_id":"123",'
        b'"nova_installation_uuid":"%s"}, "min_ram":1e0}}' % EAST.encode()
    )

    answer = await client.post(
        "/images", project="alice", headers=token(glance, "alice"), data=body
    )

    assert answer.status == 200
    assert glance.requests[-1].body == (
        b'{"image": {"name": "n", "properties": {"a": "1"}, "min_ram": 1e0}}'
    )
    (relation,) = await client.relations("instance_id=123")
    assert relation["grade"] == "claimed"


async def test_create_in_doubt_is_settled_by_its_name(
    only_wall: Client, noauth: StandInGlanceRegistry
) -> None:
    noauth.add_image(name="other")
    noauth.faults.fail_after_create = True

    answer = await create((only_wall, noauth), "wanted", "alice", headers=VOUCHED)

    assert answer.status == 500

    async def recorded() -> list[tuple[str, str]]:
        relations = await only_wall.relations("instance_id=123")
        return [(noauth.images[r["image_id"]]["name"], r["project"]) for r in relations]

    await eventually(recorded, [("wanted", "alice")])


async def test_two_images_of_one_name_wait_for_a_person(
    only_wall: Client, noauth: StandInGlanceRegistry
) -> None:
    noauth.faults.fail_after_create = True
    await create((only_wall, noauth), "twin", "alice", headers=VOUCHED)
    await create((only_wall, noauth), "twin", "bob", headers=VOUCHED)

    async def reasons() -> set[bool]:
        entries = await only_wall.in_doubt()
        return {"images of this name fit" in (e["reason"] or "") for e in entries}

    await eventually(reasons, {True})
    assert await only_wall.relations("instance_id=123") == []


@pytest.mark.parametrize("path", ["/images/detail", "/images", "/", "//images/", "/%69mages"])
async def test_list_shows_own_and_public_images_only(wall: Wall, path: str) -> None:
    _, glance = wall
    glance.lists_everything = True  # The wall is relproxy alone.
    for project in ("alice", "bob"):
        await made(wall, f"{project}'s", project)
    glance.add_image(name="public", is_public=True, owner="bob")

    answer = await get(wall, path, "alice")

    assert answer.names == ["public", "alice's"]


async def test_shared_image_is_listed_where_the_registry_knows_its_customers(
    second_wall: Client, trusting: StandInGlanceRegistry
) -> None:
    shared = trusting.add_image(name="shared", owner="bob")
    trusting.members[str(shared["id"])] = {"alice": "accepted"}

    assert (await get((second_wall, trusting), "/images", "alice")).names == ["shared"]


async def test_pages_are_full_until_one_is_empty(wall: Wall) -> None:
    _, glance = wall
    glance.max_limit = 3
    for count in range(14):
        await made(wall, f"{count}", "alice" if count % 3 else "bob")

    walked: list[str] = []
    sizes: list[int] = []
    marker = ""
    while not sizes or sizes[-1]:
        page = (await get(wall, f"/images/detail?limit=4{marker}", "alice")).json()["images"]
        sizes.append(len(page))
        walked += [image["name"] for image in page]
        marker = f"&marker={page[-1]['id']}" if page else ""

    assert walked == [f"{count}" for count in reversed(range(14)) if count % 3]
    assert sizes == [4, 4, 1, 0]


async def test_images_of_an_instance_are_asked_for_on_its_api(wall: Wall) -> None:
    mine = await made(wall, "mine", "alice", headers=VOUCHED)
    await made(wall, "bob's", "bob", headers=VOUCHED)

    answer = await get(wall, "/images/detail?instance_id=123", "alice")

    assert [str(image["id"]) for image in answer.json()["images"]] == [mine]


@pytest.mark.parametrize("marker", ["foreign", ABSENT, "017", "x", "1x"])
async def test_markers_that_are_not_to_be_known_are_refused_alike(
    only_wall: Client, noauth: StandInGlanceRegistry, marker: str
) -> None:
    wall = only_wall, noauth
    foreign = await made(wall, "bob's", "bob")
    named = foreign if marker == "foreign" else marker

    answer = await get(wall, f"/images?marker={named}", "alice")
    absent = await get(wall, "/images?marker=99", "alice")

    assert answer.status == 400
    assert same(answer) == same(absent)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("spelling", ["{}", "0{}", "{}x", "+{}", "{}.json", "%20{}"])
async def test_foreign_image_is_as_an_absent_one_in_every_spelling(
    only_wall: Client, noauth: StandInGlanceRegistry, method: str, spelling: str
) -> None:
    foreign = await made((only_wall, noauth), "bob's", "bob")
    body = {"image": {"name": "stolen"}} if method == "PUT" else None

    answers = [
        await only_wall.call(method, f"/images/{spelling.format(i)}", project="alice", json=body)
        for i in (foreign, ABSENT)
    ]

    assert answers[0].status == 404
    assert same(answers[0]) == same(answers[1])
    assert noauth.images[foreign]["name"] == "bob's"
    assert not noauth.images[foreign]["deleted"]


async def test_own_image_is_shown_updated_and_deleted(wall: Wall) -> None:
    client, glance = wall
    image_id = await made(wall, "mine", "alice", headers=VOUCHED)
    path, headers = f"/images/{image_id}", token(glance, "alice")

    changed = await client.call(
        "PUT", path, project="alice", headers=headers, json={"image": {"name": "new"}}
    )
    shown = await get(wall, path, "alice")
    deleted = await client.call("DELETE", path, project="alice", headers=headers)

    assert changed.json()["image"]["name"] == "new"
    assert shown.json()["image"]["name"] == "new"
    assert deleted.status == 200
    (relation,) = await client.relations("instance_id=123")
    assert relation["deleted_at"] is not None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"owner": "alice"}, id="owner"),
        pytest.param({"is_public": "no"}, id="publish, to Python"),
        pytest.param({"location": "file:///etc/passwd"}, id="location"),
        pytest.param({"id": 1}, id="id"),
        pytest.param({"members": []}, id="an attribute of its object"),
    ],
)
async def test_what_a_member_may_not_change_is_refused(
    only_wall: Client, noauth: StandInGlanceRegistry, fields: dict[str, Any]
) -> None:
    noauth.add_image(name="first")
    image_id = await made((only_wall, noauth), "mine", "alice")
    noauth.requests.clear()

    answer = await only_wall.call(
        "PUT", f"/images/{image_id}", project="alice", json={"image": fields}
    )

    assert (answer.status, noauth.requests) == (403, [])


async def test_change_of_the_owner_is_recorded(
    only_wall: Client, noauth: StandInGlanceRegistry
) -> None:
    image_id = await made((only_wall, noauth), "mine", "alice", headers=VOUCHED)

    await only_wall.call(
        "PUT",
        f"/images/{image_id}",
        project="ops",
        roles="admin",
        json={"image": {"owner": "bob"}},
    )

    (relation,) = await only_wall.relations(f"image_id={image_id}")
    assert relation["project"] == "bob"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/images.json"),
        ("GET", "/images/detail.xml"),
        ("GET", "/images/new"),
        ("GET", "/images/1/edit"),
        ("HEAD", "/images"),
        ("POST", "/"),
        ("OPTIONS", "/"),
        ("DELETE", "/shared-images/alice"),
        ("GET", "/nonsense"),
    ],
)
async def test_what_the_router_makes_more_of_is_no_way_around(
    wall: Wall, method: str, target: str
) -> None:
    client, glance = wall
    glance.add_image(name="secret", owner="bob")

    answer = await client.call(method, target, project="alice", headers=token(glance, "alice"))

    assert answer.status in {404, 405}
    assert glance.requests == []


async def test_registry_is_ready_and_explained(wall: Wall) -> None:
    client, _ = wall
    image_id = await made(wall, "mine", "alice", headers=VOUCHED)

    ready = await client.get("/readyz", url=client.admin_url)
    explained = await client.get(
        f"/v1/explain?project=alice&image_id={image_id}", url=client.admin_url
    )

    assert ready.status == 200, ready.body
    (told,) = explained.json()["registries"]
    assert [record["image_id"] for record in told["records"]] == [image_id]
