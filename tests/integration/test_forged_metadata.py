"""Instance metadata that isn't what it says: it misleads nobody but its own project."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import EAST, WEST, Client, Wall

VICTIM = "3b1e8a52-1f4f-4f57-8d57-2c1f0a3f9e11"
OWN = "f0a1b2c3-0000-4000-8000-000000000001"


def vouched(instance: str) -> dict[str, str]:
    return {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": instance}


def from_nova(instance: str, **overridden: Any) -> dict[str, Any]:
    """Return what an unmodified Nova creates: its own properties, and what overrides them."""
    return {"instance_uuid": instance, "image_type": "snapshot", "visibility": "private"} | (
        overridden
    )


async def of_instance(client: Client, project: str, instance: str, **more: str) -> list[str]:
    query = "".join(f"&{name}={value}" for name, value in more.items())
    answer = await client.get(f"/v2/images?instance_id={instance}{query}", project=project)
    assert answer.status == 200, answer.body
    return answer.names


async def grades(client: Client, instance: str) -> dict[str, tuple[str, str]]:
    found = await client.relations(f"instance_id={instance}")
    return {record["project"]: (record["instance_id"], record["grade"]) for record in found}


async def test_metadata_forged_through_an_honest_novas_create_image_is_its_own_projects_claim(
    wall: Wall,
) -> None:
    """`createImage` lets a customer's metadata override `instance_uuid`."""
    client = wall.client
    honest = await client.create("honest", "alice", fields=from_nova(VICTIM))
    forged = await client.create("forged", "mallory", fields=from_nova(OWN, instance_uuid=VICTIM))
    assert (honest.status, forged.status) == (201, 201)

    assert await of_instance(client, "alice", VICTIM) == ["honest"]
    assert await of_instance(client, "mallory", VICTIM) == ["forged"]
    assert await of_instance(client, "bob", VICTIM) == []
    assert await grades(client, VICTIM) == {
        "alice": (VICTIM, "claimed"),
        "mallory": (VICTIM, "claimed"),
    }


async def test_a_novas_headers_say_which_instance_it_was_whatever_the_customer_forges(
    wall: Wall,
) -> None:
    forged = from_nova(OWN, instance_uuid=VICTIM, instance_id=VICTIM, nova_installation_uuid=WEST)
    made = await wall.client.create("forged", "mallory", fields=forged, headers=vouched(OWN))
    assert made.status == 201

    assert await grades(wall.client, OWN) == {"mallory": (OWN, "vouched")}
    assert await grades(wall.client, VICTIM) == {}
    assert await of_instance(wall.client, "mallory", VICTIM) == []
    # The reserved properties are no way to leave something in the image either.
    (image,) = wall.glance.images.values()
    assert not {"instance_id", "nova_installation_uuid"} & set(image)


async def test_what_is_inherited_from_a_base_image_is_a_claim_beside_what_nova_vouches_for(
    wall: Wall,
) -> None:
    """A snapshot inherits the properties of the image that its instance was made of."""
    client = wall.client
    base = await client.create("base", "alice", fields=from_nova("i-1"), headers=vouched("i-1"))
    inherited = {"instance_uuid": "i-1", "base_image_ref": base.json()["id"]}

    with_headers = await client.create("second", "alice", fields=inherited, headers=vouched("i-2"))
    without = await client.create("volume-backed", "alice", fields=inherited)

    assert (with_headers.status, without.status) == (201, 201)
    assert await of_instance(client, "alice", "i-2") == ["second"]
    # Nova itself says nothing of the instance there: what it inherited is recorded as what it is.
    assert await of_instance(client, "alice", "i-1") == ["volume-backed", "base"]
    found = await client.relations("instance_id=i-1")
    assert [record["grade"] for record in found] == ["claimed", "vouched"]


@pytest.mark.parametrize("more", [{}, {"nova_installation_uuid": WEST}], ids=["any", "another"])
async def test_a_claim_of_another_installation_is_not_this_ones(
    wall: Wall, more: dict[str, str]
) -> None:
    claim = {"instance_id": "i-1", "nova_installation_uuid": WEST}
    await wall.client.create("claimed", "mallory", fields=claim)
    await wall.client.create("honest", "mallory", headers=vouched("i-1"))

    expected = ["claimed"] if more else ["honest"]
    assert await of_instance(wall.client, "mallory", "i-1", **more) == expected


async def test_a_claim_says_nothing_to_an_admin_that_is_not_said_to_be_one(wall: Wall) -> None:
    await wall.client.create("forged", "mallory", fields=from_nova(VICTIM))
    answer = await wall.client.get(f"/v2/images?instance_id={VICTIM}", project="ops", roles="admin")
    # An admin is shown every project's claims, so retention goes by project too.
    assert answer.names == ["forged"]
    assert await grades(wall.client, VICTIM) == {"mallory": (VICTIM, "claimed")}
