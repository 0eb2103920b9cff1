from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lab.stand_in import StandIn
from relproxy.store.base import RelationQuery
from relproxy.store.sqlite import SqliteStore
from tests.integration.conftest import EAST, WEST, Client, Serve, registry

TUPLE = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "123"}


def sent_body(glance: StandIn) -> dict[str, Any]:
    creates = [r for r in glance.requests if r.method == "POST"]
    body: dict[str, Any] = json.loads(creates[-1].body)
    return body


async def test_headers_from_a_trusted_source_are_recorded_as_vouched(second_wall: Client) -> None:
    created = await second_wall.create("snapshot", "alice", headers=TUPLE)
    assert created.status == 201
    (relation,) = await second_wall.relations("instance_id=123")
    assert relation["grade"] == "vouched"
    assert relation["nova_installation_uuid"] == EAST
    assert relation["image_id"] == created.json()["id"]
    assert relation["project"] == "alice"
    assert relation["created_at"] == created.json()["created_at"]


async def test_metadata_headers_never_reach_the_registry(
    second_wall: Client, trusting: StandIn
) -> None:
    odd_spellings = {"x_nova_installation_uuid": EAST, "X-NOVA_instance-id": "123"}
    await second_wall.create("a", "alice", headers=TUPLE)
    await second_wall.create("b", "alice", headers=odd_spellings)
    for method, target in (
        ("GET", "/v2/images"),
        ("GET", "/v2/images/x"),
        ("GET", "/"),
        ("PUT", "/v2/images/x/file"),
        ("DELETE", "/v2/images/x"),
    ):
        await second_wall.call(method, target, project="alice", headers=odd_spellings)
    names = {name.lower().replace(b"_", b"-") for r in trusting.requests for name, _ in r.headers}
    assert not {name for name in names if name.startswith(b"x-nova")}


async def test_body_properties_are_stripped_and_recorded_as_claimed(
    second_wall: Client, trusting: StandIn
) -> None:
    fields = {"nova_installation_uuid": WEST.upper(), "instance_id": "7", "os_type": "linux"}
    created = await second_wall.create("snapshot", "alice", fields=fields)
    assert created.status == 201
    image_id = created.json()["id"]
    assert sent_body(trusting) == {"id": image_id, "name": "snapshot", "os_type": "linux"}
    assert "instance_id" not in trusting.images[created.json()["id"]]
    (relation,) = await second_wall.relations("instance_id=7")
    assert (relation["grade"], relation["nova_installation_uuid"]) == ("claimed", WEST)


async def test_an_unmodified_novas_instance_uuid_is_captured_and_left_in_place(
    second_wall: Client, trusting: StandIn
) -> None:
    instance = "3b1e8a52-1f4f-4f57-8d57-2c1f0a3f9e11"
    created = await second_wall.create("snapshot", "alice", fields={"instance_uuid": instance})
    assert created.json()["instance_uuid"] == instance
    assert sent_body(trusting)["instance_uuid"] == instance
    (relation,) = await second_wall.relations(f"instance_id={instance}")
    assert (relation["grade"], relation["nova_installation_uuid"]) == ("claimed", EAST)


async def test_a_forged_property_does_not_replace_what_the_trusted_headers_say(
    second_wall: Client,
) -> None:
    fields = {"nova_installation_uuid": WEST, "instance_id": "forged", "instance_uuid": "inherited"}
    created = await second_wall.create("snapshot", "alice", fields=fields, headers=TUPLE)
    assert created.status == 201
    (relation,) = await second_wall.relations("project=alice")
    assert (relation["instance_id"], relation["grade"]) == ("123", "vouched")


async def test_headers_from_an_untrusted_source_count_for_nothing(
    serve: Serve, trusting: StandIn
) -> None:
    client = await serve(registries=[registry(trusting.url, "registry")], trusted_sources={})
    half = {"X-Nova-Installation-UUID": "not a uuid"}
    for headers in (TUPLE, half):
        created = await client.create("image", "alice", headers=headers)
        assert created.status == 201
    assert await client.relations("project=alice") == []


async def test_a_create_without_instance_metadata_is_not_touched(
    second_wall: Client, trusting: StandIn
) -> None:
    body = b'{ "name" : "caf\\u00e9",\n "min_disk": 1 }'
    answer = await second_wall.post(
        "/v2/images", project="alice", data=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status == 201
    assert trusting.requests[-1].body == body
    assert await second_wall.relations("project=alice") == []


@pytest.mark.parametrize(
    ("headers", "fields", "sentence"),
    [
        pytest.param(
            {"X-Nova-Installation-UUID": EAST}, {}, "half a tuple", id="installation-alone"
        ),
        pytest.param(
            {**TUPLE, "X-Nova-Installation-UUID": "123"}, {}, "is not a UUID", id="malformed-uuid"
        ),
        pytest.param(
            {**TUPLE, "X-Nova-Instance-ID": "a b"}, {}, "visible ASCII", id="blank-in-instance"
        ),
        pytest.param({}, {"instance_id": 5}, "visible ASCII", id="number-in-body"),
        pytest.param({}, {"instance_id": "x" * 256}, "visible ASCII", id="instance-too-long"),
        pytest.param({}, {"nova_installation_uuid": EAST}, "half a tuple", id="half-in-body"),
        pytest.param(TUPLE, {"id": "NOT-CANONICAL"}, "lower case", id="odd-image-id"),
    ],
)
async def test_malformed_metadata_is_refused_with_a_sentence_and_nothing_is_forwarded(
    second_wall: Client,
    trusting: StandIn,
    headers: dict[str, str],
    fields: dict[str, Any],
    sentence: str,
) -> None:
    answer = await second_wall.create(
        "x", "alice", fields=fields, headers={"Accept": "application/json", **headers}
    )
    assert answer.status == 400
    assert sentence in answer.json()["message"]
    assert answer.json()["code"] == "400 Bad Request"
    assert answer.headers["X-Openstack-Request-Id"].startswith("req-")
    assert trusting.requests == []


async def test_a_repeated_metadata_header_is_refused(
    second_wall: Client, trusting: StandIn
) -> None:
    headers = [*TUPLE.items(), ("X-Nova-Instance-ID", "456"), ("X-Project-Id", "alice")]
    url = f"{second_wall.url}/v2/images"
    async with second_wall.session.post(url, json={"name": "x"}, headers=headers) as answer:
        assert answer.status == 400
        assert "more than once" in await answer.text()
    assert trusting.requests == []


async def test_a_repeated_key_in_a_create_is_refused(
    second_wall: Client, trusting: StandIn
) -> None:
    body = b'{"name": "x", "instance_id": "1", "instance_id": "2"}'
    answer = await second_wall.post("/v2/images", project="alice", data=body)
    assert answer.status == 400
    assert b"repeats a key" in answer.body
    assert trusting.requests == []


async def test_a_body_over_the_cap_is_refused(serve: Serve, trusting: StandIn) -> None:
    client = await serve(
        registries=[registry(trusting.url, "registry")], limits={"max_request_body_bytes": 100}
    )
    assert (await client.create("x" * 200, "alice")).status == 413

    async def chunks() -> Any:
        for _ in range(20):
            yield b'{"name": "'

    assert (await client.post("/v2/images", project="alice", data=chunks())).status == 413
    assert trusting.requests == []


async def test_a_create_is_recorded_though_its_client_has_gone(
    second_wall: Client, trusting: StandIn
) -> None:
    trusting.faults.hang_after_create = asyncio.Event()
    create = asyncio.create_task(second_wall.create("snapshot", "alice", headers=TUPLE))
    await trusting.await_requests(1)
    create.cancel()
    await asyncio.gather(create, return_exceptions=True)
    trusting.faults.hang_after_create.set()
    await second_wall.stop()
    store = SqliteStore(second_wall.store)
    await store.open()
    found = await store.records(RelationQuery(instance_id="123"), limit=9, before=None)
    await store.close()
    assert [record.image_id for record in found] == list(trusting.images)


async def test_a_create_is_never_sent_twice(second_wall: Client, trusting: StandIn) -> None:
    trusting.faults.drop_after_create = True
    answer = await second_wall.create("snapshot", "alice", headers=TUPLE)
    assert answer.status == 502
    assert len(trusting.requests) == 1
    assert await second_wall.metric('relproxy_records_total{registry="glance",result="in_doubt"}')


async def test_a_refused_create_is_not_recorded(second_wall: Client, trusting: StandIn) -> None:
    trusting.faults.status = (409, b"taken")
    answer = await second_wall.create("snapshot", "alice", headers=TUPLE)
    assert (answer.status, answer.body) == (409, b"taken")
    assert await second_wall.relations("project=alice") == []


async def test_captures_are_counted_by_grade(second_wall: Client) -> None:
    await second_wall.create("a", "alice", headers=TUPLE)
    await second_wall.create("b", "alice", fields={"instance_id": "9"})
    count = 'relproxy_captures_total{grade="%s",registry="glance"}'
    assert await second_wall.metric(count % "vouched") == 1
    assert await second_wall.metric(count % "claimed") == 1
