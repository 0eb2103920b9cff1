"""The blueprint's tuple: (nova_installation_uuid, instance_id)."""

from __future__ import annotations

import itertools
import json
import urllib.parse
import urllib.request
from collections.abc import Iterable

import pytest

from lab.clients import connect, metadata_headers
from tests.functional.conftest import EAST, WEST, Cloud
from tests.functional.test_stories import unique

# Two installations whose instances have the same ids, before each of two Glances.
INSTALLATIONS = (EAST, WEST)
INSTANCES = ("123", "124")
REGISTRIES = ("lonely", "owned")

Key = tuple[str, str, str, str]


@pytest.fixture(scope="module")
def projects() -> tuple[str, str]:
    return unique("alice"), unique("bob")


@pytest.fixture(scope="module")
def made(cloud: Cloud, projects: tuple[str, str]) -> dict[Key, str]:
    """One image of each registry, installation, instance and project."""
    images = {}
    for key in itertools.product(REGISTRIES, INSTALLATIONS, INSTANCES, projects):
        registry, installation, instance, project = key
        nova = connect(
            url_of(cloud, registry), project, headers=metadata_headers(installation, instance)
        )
        answer = nova.image.post("/images", json={"name": "snapshot", "visibility": "private"})
        images[key] = str(answer.json()["id"])
    return images


def url_of(cloud: Cloud, registry: str) -> str:
    return cloud.east if registry == "lonely" else cloud.west


def asked(cloud: Cloud, registry: str, project: str, **query: str) -> list[str]:
    client = connect(url_of(cloud, registry), project)
    answer = client.image.get(f"/images?{urllib.parse.urlencode(query)}")
    return sorted(image["id"] for image in answer.json()["images"])


def told(cloud: Cloud, **query: str) -> list[str]:
    url = f"{cloud.relproxy.admin_url}/v1/relations?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url) as answer:
        return sorted(relation["image_id"] for relation in json.load(answer)["relations"])


def of(made: dict[Key, str], *wanted: Iterable[str]) -> list[str]:
    """Return the images whose key has one of what is wanted, in each of its places."""
    return sorted(
        image
        for key, image in made.items()
        if all(part in choice for part, choice in zip(key, wanted, strict=True))
    )


@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize("instance", INSTANCES)
@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_nova_installation_uuid_and_instance_id_123_name_one_instance_on_one_glance(
    cloud: Cloud,
    made: dict[Key, str],
    projects: tuple[str, str],
    registry: str,
    installation: str,
    instance: str,
) -> None:
    """Two installations with the same instance id, on one Glance."""
    for project in projects:
        found = asked(
            cloud, registry, project, instance_id=instance, nova_installation_uuid=installation
        )
        assert found == of(made, [registry], [installation], [instance], [project])
        assert len(found) == 1


@pytest.mark.parametrize(("registry", "own"), [("lonely", EAST), ("owned", WEST)])
def test_without_an_installation_the_routes_own_is_meant(
    cloud: Cloud, made: dict[Key, str], projects: tuple[str, str], registry: str, own: str
) -> None:
    for project in projects:
        found = asked(cloud, registry, project, instance_id="123")
        assert found == of(made, [registry], [own], ["123"], [project])


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_one_installation_on_two_glances_is_found_on_both_and_told_apart(
    cloud: Cloud, made: dict[Key, str], projects: tuple[str, str], installation: str
) -> None:
    alice, bob = projects
    both = told(cloud, instance_id="123", nova_installation_uuid=installation, project=alice)
    assert both == of(made, REGISTRIES, [installation], ["123"], [alice])
    assert len(both) == len(REGISTRIES)
    for registry in REGISTRIES:
        named = {"instance_id": "123", "nova_installation_uuid": installation}
        assert asked(cloud, registry, bob, **named) == of(
            made, [registry], [installation], ["123"], [bob]
        )


def test_an_instance_id_alone_is_of_every_installation_across_registries(
    cloud: Cloud, made: dict[Key, str], projects: tuple[str, str]
) -> None:
    for instance, project in itertools.product(INSTANCES, projects):
        found = told(cloud, instance_id=instance, project=project)
        assert found == of(made, REGISTRIES, INSTALLATIONS, [instance], [project])
        assert len(found) == len(REGISTRIES) * len(INSTALLATIONS)


def test_half_of_another_tuple_finds_nothing(cloud: Cloud, projects: tuple[str, str]) -> None:
    nobody = "11111111-1111-4111-8111-111111111111"
    for registry in REGISTRIES:
        for instance, installation in (("123", nobody), ("125", EAST), ("125", WEST)):
            named = {"instance_id": instance, "nova_installation_uuid": installation}
            assert asked(cloud, registry, projects[0], **named) == []
