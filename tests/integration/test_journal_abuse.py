"""The journal is everybody's, and what anybody sends makes entries: what is left of them."""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from typing import Any

import pytest

from lab.stand_in import StandIn
from relproxy.store.base import EntryState
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_row import Row
from tests.integration.conftest import Client, Serve, eventually, registry

PATCH = "application/openstack-images-v2.1-json-patch"
VICTIM = "3b1e8a52-1f4f-4f57-8d57-2c1f0a3f9e11"
TUPLE = {"X-Nova-Instance-ID": "123"}
GIVEN_AWAY = json.dumps([{"op": "replace", "path": "/owner", "value": "x"}])
# What Glance answers with 409, because of the second change.
CONFLICT = json.dumps(
    [
        {"op": "add", "path": "/owner", "value": "mallory"},
        {"op": "remove", "path": "/no-such-property"},
    ]
)


def kept(client: Client) -> list[Row]:
    """Return the entries that the journal holds, in whatever state."""
    with closing(JournalFile(client.journal / "worker-0.db")) as file:
        return file.everything()


async def changed(client: Client, image_id: str, change: str, **options: Any) -> int:
    """Try to change an image's owner; return the status."""
    options["headers"] = {"Content-Type": PATCH, **options.get("headers", {})}
    answer = await client.call("PATCH", f"/v2/images/{image_id}", data=change, **options)
    return answer.status


async def test_what_the_registry_refuses_leaves_nothing_in_the_journal(
    second_wall: Client, trusting: StandIn
) -> None:
    body = {"name": "x", "instance_uuid": VICTIM}
    assert (await second_wall.post("/v2/images", json=body)).status == 401
    assert await changed(second_wall, str(uuid.uuid4()), GIVEN_AWAY) == 401
    assert await changed(second_wall, str(uuid.uuid4()), GIVEN_AWAY, project="mallory") == 404
    # Each reached the registry, so each had an entry.
    assert len(trusting.requests) == 3
    assert kept(second_wall) == []


@pytest.mark.parametrize("image_id", ["1" * 7000, "a%20", f"{VICTIM}%20", "%C3%A9"])
async def test_a_change_of_the_owner_of_what_is_no_images_id_is_refused(
    second_wall: Client, trusting: StandIn, image_id: str
) -> None:
    """Not journaled, because of its size, nor let pass: MariaDB finds an image under "ID "."""
    answer = await second_wall.call(
        "PATCH",
        f"/v2/images/{image_id}",
        project="mallory",
        headers={"Content-Type": PATCH},
        data=GIVEN_AWAY,
    )
    assert answer.status == 404
    assert b"No image found with ID" in answer.body
    assert trusting.requests == []
    assert kept(second_wall) == []


async def test_a_name_that_no_image_can_have_is_not_kept(
    second_wall: Client, trusting: StandIn
) -> None:
    trusting.faults.status = (503, b"")
    names = ["x" * 255, "x" * 256, "x" * 900_000]
    for name in names:
        assert (await second_wall.create(name, "mallory", headers=TUPLE)).status == 503
    assert [row.image_name for row in kept(second_wall)] == [names[0], None, None]
    shown = await second_wall.get("/v1/journal", url=second_wall.admin_url)
    assert len(shown.body) < 4096


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": (503, b"")}])
async def test_a_strangers_create_that_is_cut_off_says_nothing_of_anybodys_image(
    second_wall: Client, trusting: StandIn, fault: dict[str, Any]
) -> None:
    """He names the id of somebody else's image, and an instance; and needs no token for it."""
    made = await second_wall.create("golden", "alice", fields={"visibility": "shared"})
    for name, value in fault.items():
        setattr(trusting.faults, name, value)
    body = {"id": made.json()["id"], "name": "x", "instance_uuid": VICTIM}
    assert (await second_wall.post("/v2/images", json=body)).status >= 500
    assert kept(second_wall) == []
    assert await second_wall.relations(f"instance_id={VICTIM}") == []


async def test_what_a_trusted_source_vouches_for_is_no_strangers(
    second_wall: Client, trusting: StandIn
) -> None:
    trusting.faults.status = (503, b"")
    assert (await second_wall.post("/v2/images", json={"name": "a"}, headers=TUPLE)).status == 503
    assert [row.state for row in kept(second_wall)] == [EntryState.IN_DOUBT]


async def test_what_the_registry_makes_for_somebody_whom_only_it_knows_is_recorded(
    serve: Serve, noauth: StandIn
) -> None:
    """By the owner that its answer names: the client has read that it is made."""
    tokens = registry(noauth.url, "registry", upstream_identity="token")
    client = await serve(registries=[tokens])
    body = {"name": "a", "owner": "alice", "instance_uuid": VICTIM}
    made = await client.post("/v2/images", json=body, headers={"X-Auth-Token": "alice's"})
    assert made.status == 201
    (relation,) = await client.relations(f"instance_id={VICTIM}")
    assert (relation["image_id"], relation["project"]) == (made.json()["id"], "alice")


async def test_a_change_of_the_owner_that_conflicts_is_no_doubt(
    second_wall: Client, trusting: StandIn
) -> None:
    """Anybody with one image of his own can have as many conflicts as he likes."""
    own = trusting.add_image(name="mine", owner="mallory")["id"]
    for _ in range(5):
        assert await changed(second_wall, own, CONFLICT, project="mallory") == 409
    counted = 'relproxy_records_total{registry="glance",result="in_doubt"'
    assert await second_wall.metric(counted) == 0


async def test_one_image_has_one_question_about_its_owner_however_often_it_is_in_doubt(
    serve: Serve, noauth: StandIn
) -> None:
    """Without credentials they wait for a person, and are not to be read by the thousand."""
    client = await serve(registries=[registry(noauth.url, "registry", upstream_identity="token")])
    noauth.faults.status = (409, b"")
    image_id = str(uuid.uuid4())
    for _ in range(5):
        assert await changed(client, image_id, GIVEN_AWAY) == 409
    (entry,) = await client.in_doubt()
    assert entry["image_id"] == image_id


async def test_a_create_is_not_blocked_by_another_projects_entry_for_the_id_that_it_chose(
    second_wall: Client, trusting: StandIn
) -> None:
    """The registry says whose the image is: the other create can't have made it."""
    chosen = {"id": str(uuid.uuid4())}
    trusting.faults.status = (503, b"")
    await second_wall.create("x", "mallory", headers=TUPLE, fields=chosen)
    trusting.faults.status = None
    trusting.faults.fail_after_create = True
    await second_wall.create("a", "alice", headers=TUPLE, fields=chosen)
    trusting.faults.fail_after_create = False

    async def projects() -> list[str]:
        return [r["project"] for r in await second_wall.relations("instance_id=123")]

    await eventually(projects, ["alice"])


async def test_a_201_of_another_image_makes_nobody_its_owner(
    only_wall: Client, noauth: StandIn
) -> None:
    """relproxy chose the id of what was to be made: an answer that names another is none."""
    other = noauth.add_image(name="secret", visibility="private", owner=None)
    noauth.faults.status = (201, json.dumps(other).encode())
    answer = await only_wall.create("mine", "mallory")
    assert answer.status == 502
    assert b"secret" not in answer.body
    noauth.faults.status = None
    assert (await only_wall.get(f"/v2/images/{other['id']}", project="mallory")).status == 404
    (entry,) = await only_wall.in_doubt()
    assert entry["image_id"] != other["id"]


async def test_a_change_of_one_images_owner_says_nothing_of_another(
    only_wall: Client, noauth: StandIn
) -> None:
    mine, other = [(await only_wall.create("a", project)).json() for project in ("ops", "alice")]
    noauth.faults.status = (200, json.dumps({**other, "owner": "x"}).encode())
    options = {"project": "ops", "roles": "admin"}
    assert await changed(only_wall, mine["id"], GIVEN_AWAY, **options) == 502
    noauth.faults.status = None
    (relation,) = await only_wall.relations(f"image_id={other['id']}")
    assert relation["project"] == "alice"
