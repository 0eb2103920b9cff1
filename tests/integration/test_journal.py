"""Creates under trouble: what is durable when, and what becomes of a create in doubt."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.stand_in import StandIn
from relproxy.store.base import EntryKind
from relproxy.store.journal_file import JournalFile
from tests.entries import completed
from tests.integration.conftest import Client, Serve, Wall, eventually, registry

TUPLE = {"X-Nova-Instance-ID": "123"}
PATCH = "application/openstack-images-v2.1-json-patch"


async def recorded(client: Client) -> list[str]:
    return [r["image_id"] for r in await client.relations("instance_id=123")]


async def test_an_image_that_will_be_recorded_gets_its_id_from_relproxy(
    second_wall: Client, trusting: StandIn
) -> None:
    created = await second_wall.create("a", "alice", headers=TUPLE)
    sent = json.loads(trusting.requests[-1].body)
    assert sent["id"] == created.json()["id"] == str(uuid.UUID(sent["id"]))
    await second_wall.create("b", "alice")
    assert json.loads(trusting.requests[-1].body) == {"name": "b"}


async def test_a_setting_leaves_the_choice_of_ids_to_the_registry(
    serve: Serve, trusting: StandIn
) -> None:
    client = await serve(registries=[registry(trusting.url, "registry", assign_image_ids=False)])
    created = await client.create("a", "alice", headers=TUPLE)
    assert "id" not in json.loads(trusting.requests[-1].body)
    assert await recorded(client) == [created.json()["id"]]


@pytest.mark.parametrize("fault", ["fail_after_create", "drop_after_create"])
async def test_a_create_whose_answer_is_lost_is_recorded_when_the_registry_shows_its_image(
    second_wall: Client, trusting: StandIn, fault: str
) -> None:
    setattr(trusting.faults, fault, True)
    answer = await second_wall.create("a", "alice", headers=TUPLE)
    assert answer.status >= 500
    setattr(trusting.faults, fault, False)
    (image_id,) = trusting.images
    await eventually(lambda: recorded(second_wall), [image_id])
    assert await second_wall.in_doubt() == []
    (relation,) = await second_wall.relations("instance_id=123")
    assert relation["project"] == "alice"


async def test_a_create_that_made_nothing_stays_in_doubt_until_its_time_is_over(
    serve: Serve, trusting: StandIn, tmp_path: Path
) -> None:
    journal = {"directory": tmp_path / "j", "allow_volatile": True}
    registries = [registry(trusting.url, "registry")]
    client = await serve(registries=registries, journal=journal)
    trusting.faults.status = (500, b"no")
    await client.create("a", "alice", headers=TUPLE)
    trusting.faults.status = None

    async def reasons() -> list[str]:
        return [entry["reason"] for entry in await client.in_doubt()]

    await eventually(
        reasons, ["The registry has no such image yet, and may still be at work on it."]
    )
    await client.stop()
    again = await serve(registries=registries, journal={**journal, "abandon_after_s": 0.001})
    nothing: list[dict[str, Any]] = []
    await eventually(again.in_doubt, nothing)
    assert await recorded(again) == []


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        pytest.param({"tenancy": "relproxy"}, [], id="treats everybody as its admin"),
        pytest.param({"tenancy": "registry"}, [], id="believes its front"),
        pytest.param(
            {"tenancy": "registry", "upstream_identity": "token", "allows_anonymous": True},
            ["The registry shows no such image to a stranger: give relproxy credentials for it."],
            id="takes relproxy for a stranger",
        ),
    ],
)
async def test_only_a_registry_that_hides_nothing_from_relproxy_proves_that_there_is_no_image(
    serve: Serve, noauth: StandIn, tmp_path: Path, settings: dict[str, Any], reasons: list[str]
) -> None:
    journal = {"directory": tmp_path / "j", "allow_volatile": True, "abandon_after_s": 0.001}
    client = await serve(registries=[registry(noauth.url, **settings)], journal=journal)
    noauth.faults.status = (500, b"no")
    await client.create("a", "alice", headers=TUPLE)
    # As Glance answers a stranger who asks for a private image.
    noauth.faults.status = (404, b"no such image")

    async def found() -> list[str]:
        return [entry["reason"] for entry in await client.in_doubt()]

    await eventually(found, reasons)


async def test_a_conflict_on_an_assigned_id_is_in_doubt_and_one_on_a_chosen_id_is_not(
    second_wall: Client, trusting: StandIn
) -> None:
    trusting.faults.status = (409, b"taken")
    chosen = {"id": str(uuid.uuid4())}
    await second_wall.create("chosen", "alice", headers=TUPLE, fields=chosen)
    await second_wall.create("assigned", "alice", headers=TUPLE)
    assert [entry["image_name"] for entry in await second_wall.in_doubt()] == ["assigned"]


async def lost(client: Client, glance: StandIn, **fields: Any) -> str:
    """Create an image whose answer is lost, and return the id that it has got."""
    glance.faults.fail_after_create = True
    await client.create("a", "alice", headers=TUPLE, fields=fields)
    glance.faults.fail_after_create = False
    return list(glance.images)[-1]


async def test_settling_a_chosen_id_takes_the_image_that_fits(
    second_wall: Client, trusting: StandIn
) -> None:
    image_id = await lost(second_wall, trusting, id=str(uuid.uuid4()))
    await eventually(lambda: recorded(second_wall), [image_id])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"owner": "bob"}, "belongs to another project"),
        ({"created_at": "2001-01-01T00:00:00Z"}, "was not created when"),
        ({"created_at": "2999-01-01T00:00:00Z"}, "was not created when"),
    ],
)
async def test_settling_a_chosen_id_never_takes_an_image_that_does_not_fit(
    second_wall: Client, trusting: StandIn, change: dict[str, str], why: str
) -> None:
    image_id = await lost(second_wall, trusting, id=str(uuid.uuid4()))
    trusting.images[image_id].update(change)

    async def reason() -> bool:
        return [why in entry["reason"] for entry in await second_wall.in_doubt()] == [True]

    await eventually(reason, expected=True)
    assert await recorded(second_wall) == []


async def test_settling_never_steals_an_image_that_has_a_live_record(
    serve: Serve, noauth: StandIn
) -> None:
    open_to_choice = registry(noauth.url, "relproxy", chosen_image_ids="allow")
    client = await serve(registries=[open_to_choice])
    image_id = (await client.create("bobs", "bob")).json()["id"]
    noauth.faults.status = (500, b"no")
    await client.create("a", "alice", headers=TUPLE, fields={"id": image_id})
    noauth.faults.status = None

    async def reasons() -> list[str]:
        return [entry["reason"] for entry in await client.in_doubt()]

    await eventually(reasons, ["A live record holds the image: a person has to say whose it is."])
    (relation,) = await client.relations(f"image_id={image_id}")
    assert relation["project"] == "bob"


async def test_without_assigned_ids_a_create_in_doubt_is_found_by_its_name(
    serve: Serve, trusting: StandIn
) -> None:
    client = await serve(registries=[registry(trusting.url, "registry", assign_image_ids=False)])
    image_id = await lost(client, trusting)
    await eventually(lambda: recorded(client), [image_id])


async def test_two_images_of_one_name_wait_for_a_person(serve: Serve, trusting: StandIn) -> None:
    client = await serve(registries=[registry(trusting.url, "registry", assign_image_ids=False)])
    await client.create("a", "alice")
    await lost(client, trusting)

    async def reasons() -> list[str]:
        return [entry["reason"] for entry in await client.in_doubt()]

    await eventually(reasons, ["2 images of this name fit: a person has to say which."])


async def test_a_journal_that_can_not_be_written_refuses_the_creates_that_need_it(
    second_wall: Client, trusting: StandIn
) -> None:
    with full(second_wall):
        answer = await second_wall.create("a", "alice", headers=TUPLE)
        assert answer.status == 503
        assert "Retry-After" in answer.headers
        assert b"made durable now" in answer.body
        assert trusting.requests == []
        assert (await second_wall.create("b", "alice")).status == 201
    assert (await second_wall.create("c", "alice", headers=TUPLE)).status == 201
    refused = 'relproxy_records_total{registry="glance",result="refused"}'
    assert await second_wall.metric(refused) == 1


async def test_or_forwards_them_unrecorded_and_counts_each(
    serve: Serve, trusting: StandIn, tmp_path: Path
) -> None:
    journal = {
        "directory": tmp_path / "j",
        "allow_volatile": True,
        "when_unwritable": "forward",
    }
    client = await serve(registries=[registry(trusting.url, "registry")], journal=journal)
    with full(client):
        answer = await client.create("a", "alice", headers=TUPLE)
        assert answer.status == 201
    unrecorded = 'relproxy_records_total{registry="glance",result="unrecorded"}'
    assert await client.metric(unrecorded) == 1
    assert await recorded(client) == []


class full:  # noqa: N801 - it reads as what it does
    """Let a journal be read and not written, as on a full disk."""

    def __init__(self, client: Client) -> None:
        self._path = client.journal / "worker-0.db"

    def __enter__(self) -> None:
        refuse = "BEFORE INSERT ON entry BEGIN SELECT RAISE(FAIL, 'full'); END"
        self._run(f"CREATE TRIGGER full {refuse}")

    def __exit__(self, *_: object) -> None:
        self._run("DROP TRIGGER full")

    def _run(self, statement: str) -> None:
        with sqlite3.connect(self._path, isolation_level=None) as database:
            database.execute(statement)
        database.close()


def giving_to(project: str) -> dict[str, Any]:
    """Return what a PATCH is called with that makes a project the owner."""
    change = json.dumps([{"op": "replace", "path": "/owner", "value": project}])
    return {"data": change, "headers": {"Content-Type": PATCH}}


async def test_an_owner_that_no_store_can_keep_is_left_to_a_person(
    serve: Serve, noauth: StandIn
) -> None:
    client = await serve(registries=[registry(noauth.url, "relproxy")])
    made = await client.create("a", "ops", roles="admin", headers=TUPLE, fields={"owner": "a\0b"})
    assert made.status == 503
    assert b"owner holds what is no character" in made.body

    async def reasons() -> list[str]:
        return [entry["reason"] for entry in await client.in_doubt()]

    await eventually(reasons, ["The image's owner holds what is no character: it isn't recorded."])
    answer = await client.create("b", "alice", headers=TUPLE)
    assert (answer.status, answer.headers.get("X-Relproxy-Record")) == (201, None)


async def test_what_the_store_refuses_is_shown_on_the_admin_listener(second_wall: Client) -> None:
    file = JournalFile(second_wall.journal / "worker-0.db")
    row = completed("a")
    file.together([lambda: file.add([row]), lambda: file.park(row.id, "why")])
    file.close()
    answer = await second_wall.get("/v1/journal", url=second_wall.admin_url)
    (parked,) = answer.json()["parked"]
    assert (parked["entry"], parked["state"], parked["reason"]) == (row.id, "parked", "why")
    # Clients of this host see what it says all the same.
    assert [r["project"] for r in await second_wall.relations("image_id=a")] == ["alice"]


async def test_an_admins_change_of_the_owner_moves_the_record(only_wall: Client) -> None:
    image_id = (await only_wall.create("a", "alice", headers=TUPLE)).json()["id"]
    options = giving_to("bob")
    refused = await only_wall.call("PATCH", f"/v2/images/{image_id}", project="alice", **options)
    assert refused.status == 403
    changed = await only_wall.call(
        "PATCH", f"/v2/images/{image_id}", project="ops", roles="admin", **options
    )
    assert changed.status == 200
    assert (await only_wall.get("/v2/images", project="alice")).names == []
    assert (await only_wall.get("/v2/images", project="bob")).names == ["a"]
    asked = await only_wall.get("/v2/images?instance_id=123", project="bob")
    assert asked.names == ["a"]


@pytest.mark.parametrize("status", [400, 401, 405, 413, 415, 429])
async def test_a_change_of_the_owner_that_was_not_even_looked_at_leaves_nothing_in_doubt(
    second_wall: Client, trusting: StandIn, status: int
) -> None:
    """Anybody can send one, for any id, without a token."""
    trusting.faults.status = (status, b"no")
    for number in range(5):
        image_id = f"11111111-2222-4333-8444-55555555555{number}"
        answer = await second_wall.call("PATCH", f"/v2/images/{image_id}", **giving_to("bob"))
        assert answer.status == status
    assert await second_wall.in_doubt() == []
    assert len(trusting.requests) == 5


async def test_a_refused_change_of_the_owner_is_looked_at_with_the_callers_own_eyes(
    second_wall: Client, trusting: StandIn
) -> None:
    public = trusting.add_image(name="a", owner="ops", visibility="public")["id"]
    for _ in range(3):
        answer = await second_wall.call(
            "PATCH", f"/v2/images/{public}", project="alice", **giving_to("alice")
        )
        assert answer.status == 403
    assert await second_wall.in_doubt() == []
    # And where it was made all the same, the record follows.
    mine = (await second_wall.create("b", "alice", headers=TUPLE)).json()["id"]
    trusting.images[mine]["owner"] = "ops"
    trusting.images[mine]["visibility"] = "public"
    answer = await second_wall.call(
        "PATCH", f"/v2/images/{mine}", project="alice", **giving_to("ops")
    )
    assert answer.status == 403
    (relation,) = await second_wall.relations(f"image_id={mine}")
    assert relation["project"] == "ops"


async def test_a_refused_change_of_the_owner_is_settled_by_asking_the_registry(
    second_wall: Client, trusting: StandIn
) -> None:
    """Glance answers some of them with 403 and makes them all the same."""
    image_id = (await second_wall.create("a", "alice", headers=TUPLE)).json()["id"]
    trusting.faults.status = (403, b"no")
    await second_wall.call(
        "PATCH",
        f"/v2/images/{image_id}",
        project="alice",
        **giving_to("bob"),
    )
    trusting.faults.status = None
    trusting.images[image_id]["owner"] = "bob"

    async def project() -> str:
        (relation,) = await second_wall.relations(f"image_id={image_id}")
        owner: str = relation["project"]
        return owner

    await eventually(project, "bob")


async def test_a_deleted_image_is_buried_though_the_store_comes_late(
    second_wall: Client,
) -> None:
    image_id = (await second_wall.create("a", "alice", headers=TUPLE)).json()["id"]
    deleted = await second_wall.call("DELETE", f"/v2/images/{image_id}", project="alice")
    assert deleted.status == 204
    (relation,) = await second_wall.relations(f"image_id={image_id}")
    assert relation["deleted_at"] is not None


@asynccontextmanager
async def left_during(client: Client, glance: StandIn, **call: Any) -> AsyncIterator[None]:
    """Let a client leave once its change is made; the registry answers when the block is over."""
    glance.faults.hang_after_change = asyncio.Event()
    calling = asyncio.create_task(client.call(**call))
    yield
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    await eventually(lambda: client.metric("relproxy_requests_in_progress"), 0.0)
    glance.faults.hang_after_change.set()


async def test_a_deleted_image_is_buried_though_its_client_has_gone(wall: Wall) -> None:
    created = (await wall.client.create("a", "alice", headers=TUPLE)).json()
    target = f"/v2/images/{created['id']}"

    async def is_made() -> bool:
        return created["id"] in wall.glance.images

    call = {"method": "DELETE", "target": target, "project": "alice"}
    async with left_during(wall.client, wall.glance, **call):
        await eventually(is_made, expected=False)

    async def is_live() -> bool:
        (relation,) = await wall.client.relations(f"image_id={created['id']}")
        return relation["deleted_at"] is None

    await eventually(is_live, expected=False)
    # Which of those that had this id: relproxy has looked at it, or has its record.
    file = JournalFile(wall.client.journal / "worker-0.db")
    (burial,) = (row for row in file.everything() if row.kind is EntryKind.BURIAL)
    file.close()
    assert burial.created_at == created["created_at"]


async def test_an_owner_is_changed_in_the_record_though_the_client_has_gone(
    only_wall: Client, noauth: StandIn
) -> None:
    image_id = (await only_wall.create("a", "alice", headers=TUPLE)).json()["id"]
    target = f"/v2/images/{image_id}"

    async def owner() -> str:
        found: str = noauth.images[image_id]["owner"]
        return found

    call = {"method": "PATCH", "target": target, "project": "ops", "roles": "admin"}
    async with left_during(only_wall, noauth, **call, **giving_to("bob")):
        await eventually(owner, "bob")

    async def project() -> str:
        (relation,) = await only_wall.relations(f"image_id={image_id}")
        found: str = relation["project"]
        return found

    await eventually(project, "bob")
    # By the answer itself, and not because it was asked for afterwards.
    assert (
        await only_wall.metric('relproxy_records_total{registry="glance",result="in_doubt"}') == 0
    )


async def test_what_a_registry_says_to_a_deletion_arrives_as_it_was_said(wall: Wall) -> None:
    image_id = (await wall.client.create("a", "alice", headers=TUPLE)).json()["id"]
    wall.glance.images[image_id]["protected"] = True
    target = f"/v2/images/{image_id}"
    # What a body is to it, Glance says itself.
    asked: list[dict[str, Any]] = [{}, {"data": b"some"}, {"data": b""}]
    for options in asked:
        answer = await wall.client.call("DELETE", target, project="alice", **options)
        sent = wall.glance.requests[-1]
        assert (sent.method, sent.body) == ("DELETE", options.get("data", b""))
        assert answer.status == (400 if sent.body else 403)
        assert b"</html>" in answer.body
    wall.glance.images[image_id]["protected"] = False
    answer = await wall.client.call("DELETE", target, project="alice")
    assert (answer.status, answer.body) == (204, b"")
    assert "Content-Length" not in answer.headers
