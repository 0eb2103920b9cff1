"""A running relproxy in front of a Glance that speaks v1, in both tenancies."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lab.stand_in_v1 import StandInV1
from tests.integration.conftest import EAST, Answer, Client, Serve, eventually, registry

MIB = 1024**2
ABSENT = "00000000-0000-4000-8000-00000000dead"
VOUCHED = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "123"}
CLAIMED = {
    "x-image-meta-property-nova_installation_uuid": EAST,
    "x-image-meta-property-instance_id": "123",
}
CLAIMED_PROPERTIES = {"nova_installation_uuid": EAST, "instance_id": "123"}
DATA = {
    "Content-Type": "application/octet-stream",
    "x-image-meta-disk_format": "raw",
    "x-image-meta-container_format": "bare",
}


@pytest.fixture
async def noauth() -> AsyncIterator[StandInV1]:
    async with StandInV1() as glance:
        yield glance


@pytest.fixture
async def trusting() -> AsyncIterator[StandInV1]:
    async with StandInV1(trusting=True) as glance:
        yield glance


def v1(url: str, tenancy: str, **settings: Any) -> dict[str, Any]:
    return registry(url, tenancy, dialect="glance-v1", **settings)


@pytest.fixture
async def only_wall(serve: Serve, noauth: StandInV1) -> Client:
    return await serve(registries=[v1(noauth.url, "relproxy")])


@pytest.fixture
async def second_wall(serve: Serve, trusting: StandInV1) -> Client:
    return await serve(registries=[v1(trusting.url, "registry")])


@pytest.fixture(params=["only_wall", "second_wall"])
def wall(request: pytest.FixtureRequest) -> tuple[Client, StandInV1]:
    glance = "noauth" if request.param == "only_wall" else "trusting"
    return request.getfixturevalue(request.param), request.getfixturevalue(glance)


async def create(
    client: Client, name: str, project: str, data: bytes | None = None, **options: Any
) -> Answer:
    headers = {"x-image-meta-name": name, **options.pop("headers", {})}
    if data is not None:
        headers = DATA | headers
    return await client.post("/v1/images", project=project, headers=headers, data=data, **options)


async def made(client: Client, name: str, project: str, **options: Any) -> str:
    answer = await create(client, name, project, **options)
    assert answer.status == 201, answer.body
    image_id: str = answer.json()["image"]["id"]
    return image_id


def same(answer: Answer) -> tuple[object, ...]:
    """Return what two answers have to have in common for nobody to tell them apart."""
    fields = {k.lower(): v for k, v in answer.headers.items()}
    fields = {k: v for k, v in fields.items() if k not in {"date", "x-openstack-request-id"}}
    return answer.status, fields, re.sub(rb"[0-9a-f-]{36}", b"ID", answer.body)


# -- create


async def test_create_is_captured_from_headers_and_stripped(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall

    image_id = await made(client, "snapshot", "alice", data=b"data", headers=VOUCHED)

    sent = glance.requests[-1]
    assert not sent.values("X-Nova-Instance-ID")
    assert sent.values("x-image-meta-id") == [image_id]
    (relation,) = await client.relations("instance_id=123")
    assert (relation["image_id"], relation["project"]) == (image_id, "alice")
    assert relation["grade"] == "vouched"


async def test_claimed_properties_are_stripped_and_recorded_as_claimed(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall
    kept = {"X_Image_Meta-Property_distro": "debian"}

    image_id = await made(client, "snapshot", "alice", headers=CLAIMED | kept)

    assert glance.images[image_id]["properties"] == {"distro": "debian"}
    (relation,) = await client.relations("instance_id=123")
    assert (relation["image_id"], relation["grade"]) == (image_id, "claimed")


async def test_instance_uuid_of_an_unmodified_nova_is_left_in_place(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall

    image_id = await made(
        client, "snapshot", "alice", headers={"x-image-meta-property-instance_uuid": "i-1"}
    )

    assert glance.images[image_id]["properties"] == {"instance_uuid": "i-1"}
    (relation,) = await client.relations("instance_id=i-1")
    assert (relation["image_id"], relation["nova_installation_uuid"]) == (image_id, EAST)


async def test_create_without_an_instance_is_not_touched_where_the_registry_knows_owners(
    second_wall: Client, trusting: StandInV1
) -> None:
    image_id = await made(second_wall, "plain", "alice", data=b"data")

    assert trusting.requests[-1].values("x-image-meta-id") == []
    assert await second_wall.relations(f"image_id={image_id}") == []


async def test_data_of_a_create_streams_while_it_is_journaled(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall
    slow = glance.faults.slow_upload_reader = asyncio.Event()
    given = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(64):
            given += 1
            yield bytes(MIB)

    creating = asyncio.create_task(
        create(client, "large", "alice", data=chunks(), headers=VOUCHED)  # type: ignore[arg-type]
    )
    await glance.await_requests(1)
    # The intent is durable before the head is at the registry, whatever of the data has left.
    assert (await client.get("/v1/overview", url=client.admin_url)).json()["journal"][
        "under_way"
    ] == 1
    assert given < 64
    slow.set()
    answer = await creating

    assert answer.status == 201, answer.body
    sent = glance.requests[-1]
    assert (sent.length, sent.complete) == (64 * MIB, True)
    assert sent.sha256 == hashlib.sha256(bytes(64 * MIB)).hexdigest()


async def test_upload_that_breaks_off_leaves_its_image_to_its_project(
    only_wall: Client, noauth: StandInV1
) -> None:
    noauth.faults.slow_upload_reader = asyncio.Event()
    gone = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        await gone.wait()

    creating = asyncio.create_task(
        create(only_wall, "broken", "alice", data=chunks())  # type: ignore[arg-type]
    )
    await noauth.await_requests(1)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    noauth.faults.slow_upload_reader.set()

    image_id = next(iter(noauth.images))

    async def owner() -> list[str]:
        return [r["project"] for r in await only_wall.relations(f"image_id={image_id}")]

    await eventually(owner, ["alice"])


async def test_refused_create_that_has_made_its_image_leaves_it_to_its_project(
    only_wall: Client, noauth: StandInV1
) -> None:
    noauth.faults.refuse_upload = 413

    answer = await create(only_wall, "killed", "alice", data=b"data")

    assert answer.status == 413
    (image_id,) = noauth.images
    assert noauth.images[image_id]["status"] == "killed"
    (relation,) = await only_wall.relations(f"image_id={image_id}")
    assert relation["project"] == "alice"
    assert await only_wall.in_doubt() == []
    deleted = await only_wall.call("DELETE", f"/v1/images/{image_id}", project="alice")
    assert deleted.status == 200


async def test_refused_create_that_has_made_nothing_is_abandoned_at_once(
    only_wall: Client, noauth: StandInV1
) -> None:
    answer = await create(only_wall, "no", "alice", headers={"x-image-meta-nonsense": "1"})

    assert answer.status == 400
    assert noauth.images == {}
    assert await only_wall.in_doubt() == []
    overview = (await only_wall.get("/v1/overview", url=only_wall.admin_url)).json()
    records = overview["registries"][0]["records"]
    assert {result: count for result, count in records.items() if count} == {"abandoned": 1.0}


@pytest.mark.parametrize("fault", ["fail_after_create", "drop_after_create"])
async def test_create_in_doubt_is_settled_by_its_id(
    wall: tuple[Client, StandInV1], fault: str
) -> None:
    client, glance = wall
    setattr(glance.faults, fault, True)

    answer = await create(client, "doubtful", "alice", data=b"data", headers=VOUCHED)

    assert answer.status >= 500
    (image_id,) = glance.images

    async def recorded() -> list[tuple[str, str]]:
        relations = await client.relations("instance_id=123")
        return [(r["image_id"], r["project"]) for r in relations]

    await eventually(recorded, [(image_id, "alice")])
    assert await client.in_doubt() == []
    assert ("HEAD", f"/v1/images/{image_id}") in {(r.method, r.target) for r in glance.requests}


@pytest.mark.parametrize("others", [0, 3])
async def test_create_in_doubt_without_an_id_is_settled_by_its_name(
    serve: Serve, trusting: StandInV1, others: int
) -> None:
    for count in range(others):
        trusting.add_image(name=f"other {count}", owner="alice")
    client = await serve(registries=[v1(trusting.url, "registry", assign_image_ids=False)])
    trusting.faults.fail_after_create = True

    await create(client, "wanted + 1", "alice", headers=VOUCHED)

    async def names() -> list[str]:
        relations = await client.relations("instance_id=123")
        return [trusting.images[r["image_id"]]["name"] for r in relations]

    await eventually(names, ["wanted + 1"])


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"x-image-meta-is_public": "True"}, id="publish"),
        pytest.param({"X-Image-Meta-Is-Public": " yes"}, id="publish in another spelling"),
        pytest.param({"x-image-meta-location": "file:///etc/passwd"}, id="location"),
        pytest.param({"x-glance-api-copy-from": "http://192.0.2.1/"}, id="copy"),
        pytest.param({"X_Glance_API_Copy_From": "http://192.0.2.1/"}, id="copy with underscores"),
        pytest.param({"x-image-meta-owner": "bob"}, id="another owner"),
        pytest.param({"x-image-meta-id": ABSENT}, id="an id"),
    ],
)
async def test_what_a_member_may_not_say_of_a_new_image_is_refused(
    only_wall: Client, noauth: StandInV1, header: dict[str, str]
) -> None:
    answer = await create(only_wall, "no", "alice", headers=header)

    assert answer.status == 403
    assert noauth.requests == []


async def test_repeated_metadata_header_is_refused(wall: tuple[Client, StandInV1]) -> None:
    client, glance = wall
    twice = [
        ("X-Project-Id", "alice"),
        ("X-Roles", "member"),
        ("x-image-meta-is_public", "False"),
        ("X-Image-Meta-Is-Public", "True"),
    ]
    async with client.session.post(f"{client.url}/v1/images", headers=twice) as answer:
        assert answer.status == 400
    assert glance.requests == []


async def test_chosen_id_that_is_no_uuid_is_refused_before_anything_is_sent(
    second_wall: Client, trusting: StandInV1
) -> None:
    chosen = {"x-image-meta-id": "NOT-A-UUID", **VOUCHED}

    answer = await create(second_wall, "no", "alice", headers=chosen)

    assert (answer.status, trusting.requests) == (400, [])


async def test_empty_id_chooses_none(only_wall: Client, noauth: StandInV1) -> None:
    image_id = await made(only_wall, "plain", "alice", headers={"x-image-meta-id": ""})

    assert noauth.requests[-1].values("x-image-meta-id") == [image_id]


# -- lists


@pytest.mark.parametrize("path", ["/v1/images/detail", "/v1/images", "/v1/", "/v1", "/v1.1/images"])
async def test_list_shows_own_and_public_images_only(
    wall: tuple[Client, StandInV1], path: str
) -> None:
    client, glance = wall
    glance.lists_everything = True  # The wall is relproxy alone.
    for project in ("alice", "bob"):
        await made(client, f"{project}'s", project)
    glance.add_image(name="public", is_public=True, owner="bob")

    answer = await client.get(path, project="alice")

    assert answer.names == ["public", "alice's"]


async def test_second_wall_lists_what_the_registry_lists_for_the_caller(
    second_wall: Client, trusting: StandInV1
) -> None:
    shared = trusting.add_image(name="shared", owner="bob")
    trusting.members[shared["id"]] = {"alice": "accepted"}
    trusting.add_image(name="bob's", owner="bob")
    trusting.add_image(name="alice's", owner="alice")

    answer = await second_wall.get("/v1/images/detail", project="alice")

    assert answer.names == ["alice's", "shared"]
    assert "/v1/shared-images/alice" in {request.target for request in trusting.requests}
    explained = await second_wall.get(
        f"/v1/explain?project=alice&image_id={shared['id']}", url=second_wall.admin_url
    )
    assert explained.json()["registries"][0]["in_lists"]["rule"] == "shared"


async def test_registry_that_does_not_say_what_is_shared_shows_nothing_foreign(
    second_wall: Client, trusting: StandInV1
) -> None:
    trusting.lists_everything = True
    trusting.faults.shares = b'{"shared_images": "all"}'
    trusting.add_image(name="bob's", owner="bob")

    answer = await second_wall.get("/v1/images/detail", project="alice")

    assert answer.status == 502
    assert b"bob's" not in answer.body


async def test_images_of_a_list_in_detail_keep_their_bytes(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall
    await made(client, "mine", "alice")
    odd = b'{"id":"%s", "is_public" : false,"owner":"alice","created_at":"%s", "x": 1.0e0}'
    glance.faults.image_patch = lambda i: odd % (i["id"].encode(), i["created_at"].encode())

    answer = await client.get("/v1/images/detail", project="alice")

    (image,) = glance.images.values()
    assert answer.body == b'{"images": [' + glance.faults.image_patch(image) + b"]}"


async def test_list_in_short_shows_what_the_registry_would(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall
    await made(client, "mine", "alice", data=b"12345")

    through = await client.get("/v1/images", project="alice")
    direct = await client.get(
        "/v1/images",
        url=glance.url,
        headers={"X-Identity-Status": "Confirmed", "X-Project-Id": "alice"}
        if glance.trusting
        else {},
        params={} if glance.trusting else None,
    )

    if glance.trusting:
        assert through.json() == direct.json()
    (row,) = through.json()["images"]
    assert set(row) == {"id", "name", "size", "disk_format", "container_format", "checksum"}
    assert row["size"] == 5


async def test_pages_are_full_until_one_is_empty(wall: tuple[Client, StandInV1]) -> None:
    client, glance = wall
    glance.max_limit = 3
    for count in range(23):
        await made(client, f"{count}", "alice" if count % 3 else "bob")

    walked: list[str] = []
    sizes: list[int] = []
    marker = ""
    while True:
        page = (await client.get(f"/v1/images/detail?limit=5{marker}", project="alice")).json()
        sizes.append(len(page["images"]))
        if not page["images"]:
            break
        walked += [image["name"] for image in page["images"]]
        marker = f"&marker={page['images'][-1]['id']}"

    assert walked == [f"{count}" for count in reversed(range(23)) if count % 3]
    assert sizes == [5, 5, 5, 0]


async def test_list_of_an_admin_is_what_the_registry_lists(
    only_wall: Client, noauth: StandInV1
) -> None:
    await made(only_wall, "alice's", "alice")
    noauth.add_image(name="public", is_public=True)

    by_default = await only_wall.get("/v1/images", project="ops", roles="admin")
    every = await only_wall.get("/v1/images?is_public=None", project="ops", roles="admin")

    assert by_default.names == ["public"]
    assert every.names == ["public", "alice's"]


async def test_foreign_marker_is_as_an_absent_one(wall: tuple[Client, StandInV1]) -> None:
    client, _ = wall
    foreign = await made(client, "bob's", "bob")

    answers = [
        await client.get(f"/v1/images?marker={marker}", project="alice")
        for marker in (foreign, ABSENT)
    ]

    assert answers[0].status == 400
    assert same(answers[0]) == same(answers[1])


async def test_images_of_an_instance_are_asked_for_on_the_image_api(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall
    mine = await made(client, "mine", "alice", headers=VOUCHED)
    await made(client, "bob's", "bob", headers=VOUCHED)
    await made(client, "another's", "alice", headers=VOUCHED | {"X-Nova-Instance-ID": "124"})

    glance.requests.clear()
    answer = await client.get("/v1/images/detail?instance_id=123", project="alice")
    # Once all are found nothing more is asked.
    lists = [r for r in glance.requests if r.target.startswith("/v1/images/detail")]
    assert len(lists) == 1
    none = await client.get("/v1/images/detail?instance_id=125", project="alice")

    assert [image["id"] for image in answer.json()["images"]] == [mine]
    assert none.body == b'{"images": []}'
    assert not any("instance_id" in request.target for request in glance.requests)


async def test_list_of_too_many_foreign_images_is_refused_and_never_short(
    serve: Serve, noauth: StandInV1
) -> None:
    client = await serve(
        registries=[v1(noauth.url, "relproxy", max_limit=5, default_limit=5)],
        limits={"max_upstream_pages": 3},
    )
    await made(client, "mine", "alice")
    for count in range(30):
        noauth.add_image(name=f"foreign {count}")

    assert (await client.get("/v1/images", project="alice")).status == 503


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"images": [1, {"id": "a"}]}', id="no images"),
        pytest.param(b'{"images": [{"id": "a", "name": "n"}]}', id="no owner said"),
        pytest.param(b'{"images": [{"id"', id="broken off"),
    ],
)
async def test_list_that_cannot_be_proven_filtered_is_an_error(
    wall: tuple[Client, StandInV1], garbage: bytes
) -> None:
    client, glance = wall
    glance.faults.garbage = garbage

    answer = await client.get("/v1/images", project="alice")

    assert answer.status == 502
    assert b'"id"' not in answer.body


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_root_lists_by_no_other_method(wall: tuple[Client, StandInV1], method: str) -> None:
    client, glance = wall

    answer = await client.call(method, "/v1/", project="alice")

    assert answer.status in {404, 405}
    assert glance.requests == []


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v2/images", {}),
        ("/v2.3/images", {}),
        ("/images", {"Accept": "application/vnd.openstack.images-v2"}),
    ],
)
async def test_other_version_is_no_way_around(
    wall: tuple[Client, StandInV1], path: str, headers: dict[str, str]
) -> None:
    client, glance = wall

    answer = await client.get(path, project="alice", headers=headers)

    assert (answer.status, glance.requests) == (404, [])


# -- one image


@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT", "DELETE"])
async def test_foreign_image_is_as_an_absent_one(
    only_wall: Client, noauth: StandInV1, method: str
) -> None:
    foreign = await made(only_wall, "bob's", "bob", data=b"data")
    noauth.requests.clear()
    answers, asked = [], []
    for image_id in (foreign, ABSENT):
        answers.append(await only_wall.call(method, f"/v1/images/{image_id}", project="alice"))
        asked.append([request.method for request in noauth.requests])
        noauth.requests.clear()

    assert answers[0].status == 404
    assert same(answers[0]) == same(answers[1])
    assert asked == [["HEAD"], ["HEAD"]]
    assert noauth.images[foreign]["status"] == "active"


async def test_own_image_is_shown_downloaded_updated_and_deleted(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall
    glance.keeps_data = True
    image_id = await made(client, "mine", "alice", headers=VOUCHED)
    path = f"/v1/images/{image_id}"

    uploaded = await client.call(
        "PUT", path, project="alice", data=b"the data", headers=DATA | {"x-image-meta-name": "new"}
    )
    shown = await client.call("HEAD", path, project="alice")
    downloaded = await client.get(path, project="alice")
    deleted = await client.call("DELETE", path, project="alice")

    assert uploaded.json()["image"]["name"] == "new"
    assert (shown.status, shown.headers["x-image-meta-name"], shown.body) == (200, "new", b"")
    assert downloaded.body == b"the data"
    assert downloaded.headers["x-image-meta-id"] == image_id
    assert deleted.status == 200
    (relation,) = await client.relations("instance_id=123")
    assert relation["deleted_at"] is not None


@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT", "DELETE"])
async def test_public_image_that_was_deleted_is_as_an_absent_one(
    only_wall: Client, noauth: StandInV1, method: str
) -> None:
    # Glance shows deleted images to its admins, and that is what everyone is to this one.
    gone = noauth.add_image(is_public=True, deleted=True, status="deleted")

    answers = [
        await only_wall.call(method, f"/v1/images/{image_id}", project="alice")
        for image_id in (gone["id"], ABSENT)
    ]

    assert answers[0].status == 404
    assert same(answers[0]) == same(answers[1])


async def test_foreign_public_image_is_shown_and_not_changed(
    only_wall: Client, noauth: StandInV1
) -> None:
    image = noauth.add_image(name="public", is_public=True, status="active", size=3)
    path = f"/v1/images/{image['id']}"

    assert (await only_wall.get(path, project="alice")).body == bytes(3)
    put = await only_wall.call(
        "PUT", path, project="alice", headers={"x-image-meta-name": "stolen"}
    )
    assert put.status == 404
    assert image["name"] == "public"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"x-image-meta-owner": "alice"}, id="owner"),
        pytest.param({"x-image-meta-is_public": "1"}, id="publish"),
        pytest.param({"x-image-meta-location": "file:///etc/passwd"}, id="location"),
        pytest.param({"x-image-meta-copy_from": "http://192.0.2.1/"}, id="copy as a field"),
        pytest.param({"x-image-meta-id": ABSENT}, id="id"),
    ],
)
async def test_what_a_member_may_not_change_is_refused(
    only_wall: Client, noauth: StandInV1, header: dict[str, str]
) -> None:
    image_id = await made(only_wall, "mine", "alice")
    noauth.requests.clear()

    answer = await only_wall.call("PUT", f"/v1/images/{image_id}", project="alice", headers=header)

    assert (answer.status, noauth.requests) == (403, [])


async def test_update_that_says_again_what_is_private_is_let_through(
    only_wall: Client,
) -> None:
    # Nova's own v1 client sends `is_public` with every update.
    image_id = await made(only_wall, "mine", "alice")

    answer = await only_wall.call(
        "PUT",
        f"/v1/images/{image_id}",
        project="alice",
        headers={"x-image-meta-is_public": "False", "x-image-meta-id": image_id},
    )

    assert answer.status == 200


async def test_change_of_the_owner_is_recorded(wall: tuple[Client, StandInV1]) -> None:
    client, _ = wall
    image_id = await made(client, "mine", "alice", headers=VOUCHED)

    answer = await client.call(
        "PUT",
        f"/v1/images/{image_id}",
        project="ops",
        roles="admin",
        headers={"x-image-meta-owner": "bob"},
    )

    assert answer.status == 200
    (relation,) = await client.relations(f"image_id={image_id}")
    assert relation["project"] == "bob"


async def test_change_of_the_owner_is_recorded_though_the_data_beside_it_is_refused(
    only_wall: Client, noauth: StandInV1
) -> None:
    image_id = await made(only_wall, "mine", "alice", headers=VOUCHED)
    noauth.faults.refuse_upload = 413

    answer = await only_wall.call(
        "PUT",
        f"/v1/images/{image_id}",
        project="ops",
        roles="admin",
        headers=DATA | {"x-image-meta-owner": "bob"},
        data=b"too much",
    )

    assert answer.status == 413
    assert noauth.images[image_id]["owner"] == "bob"
    (relation,) = await only_wall.relations(f"image_id={image_id}")
    assert relation["project"] == "bob"
    absent = await only_wall.call(
        "PUT",
        f"/v1/images/{ABSENT}",
        project="ops",
        roles="admin",
        headers={"x-image-meta-owner": "bob", "x-image-meta-nonsense": "1"},
    )
    assert absent.status == 400
    assert await only_wall.in_doubt() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/images/{}/members"),
        ("PUT", "/v1/images/{}/members"),
        ("PUT", "/v1/images/{}/members/bob"),
        ("DELETE", "/v1/images/{}/members/bob"),
        ("GET", "/v1/shared-images/alice"),
        ("DELETE", "/v1/cached_images"),
        ("GET", "/v1/queued_images"),
    ],
)
async def test_sharing_and_the_cache_are_no_members(
    only_wall: Client, noauth: StandInV1, method: str, path: str
) -> None:
    image_id = await made(only_wall, "mine", "alice")
    noauth.requests.clear()

    answer = await only_wall.call(method, path.format(image_id), project="alice")

    assert (answer.status, noauth.requests) == (403, [])


async def test_sharing_is_the_registrys_where_it_knows_its_customers(
    second_wall: Client, trusting: StandInV1
) -> None:
    image = trusting.add_image(owner="alice")

    answer = await second_wall.call("PUT", f"/v1/images/{image['id']}/members/bob", project="alice")

    assert answer.status == 204
    assert (await second_wall.get("/v1/images", project="bob")).json()["images"][0]["id"] == (
        image["id"]
    )


async def test_form_cannot_override_its_method(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    overridden = await client.post("/v1/images?_method=DELETE", project="alice")
    await create(client, "a form", "alice", data=b"_method=DELETE", headers=form)

    assert overridden.status == 400
    assert glance.requests[-1].values("Content-Type") == ["application/octet-stream"]


async def test_explain_says_what_the_rule_says(only_wall: Client) -> None:
    image_id = await made(only_wall, "mine", "alice")

    answer = await only_wall.get(
        f"/v1/explain?project=bob&image_id={image_id}", url=only_wall.admin_url
    )

    (explained,) = answer.json()["registries"]
    assert explained["in_lists"]["rule"] == "foreign"
    assert explained["image"]["status"] == "queued"


async def test_list_in_shadow_that_cannot_be_judged_says_so(
    serve: Serve, noauth: StandInV1
) -> None:
    client = await serve(
        registries=[v1(noauth.url, "relproxy")],
        routes=[{"name": "all", "registry": "glance", "mode": "shadow"}],
    )
    noauth.add_image(name="foreign", is_public=False)

    short = await client.get("/v1/images?is_public=None", project="alice")
    await client.get("/v1/images/detail?is_public=None", project="alice")

    assert short.names == ["foreign"]
    verdict = 'relproxy_shadow_total{route="all",treatment="list",verdict='
    assert await client.metric(f'{verdict}"unjudged"') == 1
    assert await client.metric(f'{verdict}"would_hide"') == 1


async def test_create_in_shadow_streams_as_it_came_and_is_recorded(
    serve: Serve, noauth: StandInV1
) -> None:
    client = await serve(
        registries=[v1(noauth.url, "relproxy")],
        routes=[{"name": "all", "registry": "glance", "mode": "shadow"}],
        limits={"max_request_body_bytes": 1000},
    )

    image_id = await made(client, "plain", "alice", data=bytes(MIB), headers=CLAIMED)

    assert noauth.requests[-1].length == MIB
    assert noauth.images[image_id]["properties"] == CLAIMED_PROPERTIES
    (relation,) = await client.relations("instance_id=123")
    assert (relation["image_id"], relation["project"]) == (image_id, "alice")


async def test_refused_create_whose_image_cannot_be_asked_for_is_in_doubt(
    only_wall: Client, noauth: StandInV1
) -> None:
    class Failing:
        async def __call__(self) -> None:
            noauth.faults.refuse_upload = 413
            noauth.faults.status_of_meta = 500

    noauth.faults.before_create = Failing()

    answer = await create(only_wall, "killed", "alice", data=b"data")

    assert answer.status == 413
    (image_id,) = noauth.images
    (entry,) = await only_wall.in_doubt()
    assert entry["image_id"] == image_id
    noauth.faults.status_of_meta = None

    async def owners() -> list[str]:
        return [r["project"] for r in await only_wall.relations(f"image_id={image_id}")]

    await eventually(owners, ["alice"])


async def test_create_that_is_not_allowed_is_abandoned_unasked(
    second_wall: Client, trusting: StandInV1
) -> None:
    answer = await create(
        second_wall, "no", "alice", headers=VOUCHED | {"x-image-meta-is_public": "True"}
    )

    assert answer.status == 403
    assert [request.method for request in trusting.requests] == ["POST"]
    assert await second_wall.in_doubt() == []


async def test_client_that_expects_to_be_told_hears_a_refusal_before_it_sends(
    wall: tuple[Client, StandInV1],
) -> None:
    client, glance = wall
    glance.faults.refuse_upload = 413
    taken = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        taken += 1
        yield bytes(10)

    answer = await client.post(
        "/v1/images",
        project="alice",
        headers=DATA | VOUCHED,
        data=chunks(),
        expect100=True,
        timeout=aiohttp.ClientTimeout(total=30),
    )

    assert (answer.status, taken) == (413, 0)
