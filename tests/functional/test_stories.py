"""The blueprint's user stories, with unchanged Glances and the clients that people use."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from openstack.connection import Connection
from openstack.exceptions import ForbiddenException, NotFoundException

from lab.clients import connect, metadata_headers
from tests.functional.conftest import EAST, WEST, Cloud
from tests.functional.front import front_before

DATA = b"midnight" * 10_000


def unique(name: str) -> str:
    """Return a project or instance that no other test uses: the Glances are shared."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def snapshot(url: str, project: str, installation: str, instance: str, name: str) -> str:
    """Do what an instance-aware Nova does for its customer, with openstacksdk."""
    nova = connect(url, project, headers=metadata_headers(installation, instance))
    image = nova.image.create_image(
        name=name, data=DATA, disk_format="raw", container_format="bare", visibility="private",
        allow_duplicates=True,
    )  # fmt: skip
    return str(image.id)


def of_instance(client: Connection, instance: str, more: str = "") -> list[str]:
    answer = client.image.get(f"/images?instance_id={instance}{more}")
    assert answer.status_code == 200, answer.text
    return [image["id"] for image in answer.json()["images"]]


def listed(client: Connection, **query: Any) -> list[str]:
    return [image.name for image in client.image.images(**query)]


@pytest.fixture(params=["east", "west"])
def endpoint(request: pytest.FixtureRequest, cloud: Cloud) -> str:
    """Both Glances in turn, each as its own route gives it."""
    url: str = getattr(cloud, request.param)
    return url


def test_story_a_backup_scheduler_finds_the_images_of_instance_123(endpoint: str) -> None:
    """Blueprint RelatedImages, story 1: which images belong to instance 123 of this Nova?"""
    alice, bob = unique("alice"), unique("bob")
    installation = EAST
    first = snapshot(endpoint, alice, installation, "123", "monday")
    second = snapshot(endpoint, alice, installation, "123", "tuesday")
    snapshot(endpoint, alice, installation, "124", "another instance")
    snapshot(endpoint, alice, WEST, "123", "another installation")
    bobs = snapshot(endpoint, bob, installation, "123", "another project")
    named = f"&nova_installation_uuid={installation}"
    assert of_instance(connect(endpoint, alice), "123", named) == [second, first]
    assert of_instance(connect(endpoint, bob), "123", named) == [bobs]


def test_story_a_customer_sees_their_own_images_and_public_ones(endpoint: str) -> None:
    """Blueprint RelatedImages, story 2: nobody's instance images show up in somebody's list."""
    alice, bob = unique("alice"), unique("bob")
    image_id = snapshot(endpoint, alice, EAST, "123", "alices")
    snapshot(endpoint, bob, EAST, "123", "bobs")
    admin = connect(endpoint, "operations", roles="admin")
    public = admin.image.create_image(name=unique("public"), visibility="public",
                                      disk_format="raw", container_format="bare")  # fmt: skip
    for client, own, foreign in (
        (connect(endpoint, alice), "alices", "bobs"),
        (connect(endpoint, bob), "bobs", "alices"),
    ):
        names = listed(client)
        assert own in names
        assert public.name in names
        assert foreign not in names
    assert connect(endpoint, alice).image.download_image(image_id).content == DATA
    with pytest.raises((NotFoundException, ForbiddenException)):
        connect(endpoint, bob).image.get_image(image_id)
    connect(endpoint, alice).image.delete_image(image_id)
    assert "alices" not in listed(connect(endpoint, alice))


def test_two_glances_and_two_installations_answer_exactly_in_one_relproxy(cloud: Cloud) -> None:
    """The blueprint's tuple: (nova_installation_uuid, instance_id), the same id in both Novas."""
    alice = unique("alice")
    made = {
        (url, installation): snapshot(url, alice, installation, "123", "snapshot")
        for url in (cloud.east, cloud.west)
        for installation in (EAST, WEST)
    }
    for (url, installation), image_id in made.items():
        named = f"&nova_installation_uuid={installation}"
        assert of_instance(connect(url, alice), "123", named) == [image_id]
    # Each route knows its own installation.
    assert of_instance(connect(cloud.east, alice), "123") == [made[cloud.east, EAST]]
    assert of_instance(connect(cloud.west, alice), "123") == [made[cloud.west, WEST]]
    url = f"{cloud.relproxy.admin_url}/v1/relations?instance_id=123&project={alice}"
    with urllib.request.urlopen(url) as answer:
        relations = json.load(answer)["relations"]
    assert {r["image_id"] for r in relations} == set(made.values())
    assert {(r["registry"], r["nova_installation_uuid"]) for r in relations} == {
        ("lonely", EAST), ("lonely", WEST), ("owned", EAST), ("owned", WEST),
    }  # fmt: skip


def test_glance_itself_holds_nothing_of_the_instance(cloud: Cloud) -> None:
    image_id = snapshot(cloud.east, unique("alice"), EAST, "i-0815", "snapshot")
    with urllib.request.urlopen(f"{cloud.lonely.url}/v2/images/{image_id}") as answer:
        held = answer.read()
    assert image_id.encode() in held
    assert b"i-0815" not in held
    assert EAST.encode() not in held


def test_an_unmodified_novas_snapshot_is_captured_from_its_property(endpoint: str) -> None:
    """Nova 34 without any change: `instance_uuid` in the body, the installation of the route."""
    alice, instance = unique("alice"), str(uuid.uuid4())
    client = connect(endpoint, alice)
    body = {
        "name": "snapshot", "visibility": "private", "instance_uuid": instance,
        "image_type": "snapshot", "user_id": "u1", "base_image_ref": str(uuid.uuid4()),
    }  # fmt: skip
    created = client.image.post("/images", json=body)
    assert created.status_code == 201, created.text
    assert created.json()["instance_uuid"] == instance
    assert of_instance(client, instance) == [created.json()["id"]]


@pytest.fixture
def front(endpoint: str) -> Iterator[str]:
    with front_before(endpoint) as url:
        yield url


def glance(url: str, project: str, *arguments: str) -> str:
    """Run the `glance` command line."""
    argv = [
        sys.executable, "-m", "glanceclient.shell", "--os-image-url", url,
        "--os-auth-token", project, *arguments,
    ]  # fmt: skip
    program = "import sys; from glanceclient.shell import main; sys.exit(main())"
    argv = [sys.executable, "-c", program, *argv[3:]]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_glance_image_list_with_property_filter_asks_for_an_instance(
    endpoint: str, front: str
) -> None:
    alice, bob = unique("alice"), unique("bob")
    mine = snapshot(endpoint, alice, EAST, "123", "alices")
    snapshot(endpoint, bob, EAST, "123", "bobs")
    snapshot(endpoint, alice, EAST, "124", "other")
    named = ("--property-filter", f"nova_installation_uuid={EAST}")
    shown = glance(front, alice, "image-list", "--property-filter", "instance_id=123", *named)
    assert mine in shown
    assert [name in shown for name in ("alices", "bobs", "other")] == [True, False, False]
    assert "alices" in glance(front, alice, "image-list")
    assert "bobs" not in glance(front, alice, "image-list", "--limit", "1000")


def test_openstacksdk_silently_drops_a_filter_that_it_does_not_know(cloud: Cloud) -> None:
    """What docs/api.md warns of: it returns everything, so it must not be used to ask."""
    alice = unique("alice")
    snapshot(cloud.west, alice, WEST, "123", "mine")
    snapshot(cloud.west, alice, WEST, "124", "other")
    client = connect(cloud.west, alice)
    assert set(listed(client, instance_id="123")) >= {"mine", "other"}


@pytest.mark.parametrize("page_size", [1, 2, 3])
def test_both_clients_walk_every_page_behind_a_prefix(cloud: Cloud, page_size: int) -> None:
    alice, bob = unique("alice"), unique("bob")
    for number in range(4):
        snapshot(cloud.west, alice, WEST, "walk", f"{alice}-{number}")
        snapshot(cloud.west, bob, WEST, "walk", f"{bob}-{number}")
    expected = [f"{alice}-{number}" for number in range(4)]
    names = listed(connect(cloud.west, alice), limit=page_size, sort="name:asc")
    assert [name for name in names if name.startswith("alice-")] == expected
    with front_before(cloud.west) as front:
        shown = glance(front, alice, "image-list", "--page-size", str(page_size))
    assert all(name in shown for name in expected)
    assert bob not in shown


def test_uploads_and_downloads_through_the_glance_command_line(endpoint: str, front: str) -> None:
    alice = unique("alice")
    image_id = snapshot(endpoint, alice, EAST, "123", "mine")
    assert "active" in glance(front, alice, "image-show", image_id)
    with urllib.request.urlopen(
        urllib.request.Request(
            f"{front}/v2/images/{image_id}/file", headers={"X-Auth-Token": alice}
        )
    ) as answer:
        assert io.BytesIO(answer.read()).getvalue() == DATA


def test_versions_are_discovered_behind_a_prefix(cloud: Cloud) -> None:
    client = connect(cloud.west, unique("alice"))
    assert client.image.get_endpoint() == f"{cloud.west}/v2/"
