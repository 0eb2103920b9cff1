"""Nova 34 itself, unchanged, before relproxy and a real Glance: with our image service and without.

Its API runs under its own WSGI module or under relproxy's; what an instance's host does is Nova's
own ComputeManager. The switched-on Nova is called one installation in its nova.conf, and the route
names another, so that each test sees who said which.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import venvs
from lab.nova import TREE, Entry, Nova
from lab.processes import free_port
from tests.functional.nova_cloud import (
    FORGED,
    FORGERY,
    INHERITING_LESS,
    NAMED,
    ROUTED,
    SWITCHED_ON,
    NotDoneError,
    NovaCloud,
    starting,
)

WITH, WITHOUT = "with the service", "without"
OURS: Entry = "relproxy.nova.osapi_compute"
THEIRS: Entry = "nova.wsgi.osapi_compute"
HEADERS = ("x-nova-installation-uuid", "x-nova-instance-id")
VOLUME = "0b4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NovaCloud]:
    with starting(tmp_path_factory.mktemp("nova")) as started:
        yield started


@pytest.fixture(params=[WITH, WITHOUT])
def way(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def nova(cloud: NovaCloud, way: str) -> Nova:
    return cloud.novas[way]


def expected(cloud: NovaCloud, way: str, instance: str) -> tuple[str, str, str, str]:
    return cloud.vouched(instance) if way == WITH else cloud.claimed(instance)


def test_a_snapshot_is_recorded_and_found_by_its_instance(
    cloud: NovaCloud, nova: Nova, way: str
) -> None:
    instance = cloud.instance()
    image = cloud.snapshot(nova, instance)
    record = expected(cloud, way, instance)
    assert cloud.record(image) == record
    assert cloud.of_instance(instance, record[0]) == [image]
    assert cloud.of_instance(instance, record[0], "bob") == []
    held = cloud.image(image)
    assert (held["status"], held["instance_uuid"]) == ("active", instance)
    assert not {"instance_id", "nova_installation_uuid"} & set(held)


def test_backups_are_found_by_their_instance_and_rotated_to_n(
    cloud: NovaCloud, nova: Nova, way: str
) -> None:
    """By Nova's own `_rotate_backups`, which lists and deletes through relproxy."""
    instance, another = cloud.instance(), cloud.instance()
    cloud.backup(nova, another, 2)
    snapshot = cloud.snapshot(nova, instance)
    made = [cloud.backup(nova, instance, 2) for _ in range(4)]
    record = expected(cloud, way, instance)
    assert [cloud.record(image) for image in made[2:]] == [record, record]
    # Newest first; rotation is of backups, so the older snapshot is still there.
    assert cloud.of_instance(instance, record[0]) == [made[3], made[2], snapshot]
    assert len(cloud.of_instance(another, record[0])) == 1
    assert cloud.host.do("state", instance=instance) == ["active", None]


def test_shelving_names_its_instance(cloud: NovaCloud, nova: Nova, way: str) -> None:
    instance = cloud.instance()
    cloud.act(nova, instance, {"shelve": None}, "alice")
    record = expected(cloud, way, instance)
    (image,) = cloud.of_instance(instance, record[0])
    assert cloud.record(image) == record
    assert cloud.image(image)["name"] == "web-shelved"


def test_a_volume_backed_snapshot_names_its_instance_with_the_service(cloud: NovaCloud) -> None:
    instance = cloud.instance(volume=VOLUME)
    image = cloud.volume_snapshot(cloud.novas[WITH], instance)
    assert cloud.record(image) == cloud.vouched(instance)
    assert cloud.of_instance(instance, NAMED) == [image]
    assert "block_device_mapping" in cloud.image(image)


def test_a_volume_backed_snapshot_of_an_unmodified_nova_names_no_instance(cloud: NovaCloud) -> None:
    """What docs/nova.md says: it carries no `instance_uuid` of its own."""
    instance = cloud.instance(volume=VOLUME)
    image = cloud.volume_snapshot(cloud.novas[WITHOUT], instance)
    assert cloud.record(image) is None
    assert cloud.of_instance(instance, ROUTED) == []


@pytest.mark.parametrize("kind", ["snapshot", "volume-backed"])
def test_metadata_forged_by_a_customer_changes_nothing_with_the_service(
    cloud: NovaCloud, kind: str
) -> None:
    nova = cloud.novas[WITH]
    if kind == "snapshot":
        instance = cloud.instance()
        image = cloud.snapshot(nova, instance, metadata=FORGERY)
    else:
        instance = cloud.instance(volume=VOLUME)
        image = cloud.volume_snapshot(nova, instance, FORGERY)
    assert cloud.record(image) == cloud.vouched(instance)
    assert cloud.of_instance(instance, NAMED) == [image]
    assert image not in cloud.of_instance("forged", FORGED)
    assert not {"instance_id", "nova_installation_uuid"} & set(cloud.image(image))


@pytest.mark.parametrize("kind", ["snapshot", "volume-backed"])
def test_what_a_base_image_has_changes_nothing_with_the_service(
    cloud: NovaCloud, kind: str
) -> None:
    nova = cloud.novas[WITH]
    volume = None if kind == "snapshot" else VOLUME
    instance = cloud.instance("alice", volume, **FORGERY, os_distro="debian")
    make = cloud.snapshot if volume is None else cloud.volume_snapshot
    image = make(nova, instance)
    assert cloud.record(image) == cloud.vouched(instance)
    held = cloud.image(image)
    assert held["os_distro"] == "debian"
    assert not {"instance_id", "nova_installation_uuid"} & set(held)


def test_metadata_forged_at_an_unmodified_nova_is_a_claim_of_its_own_project(
    cloud: NovaCloud,
) -> None:
    victim = cloud.instance("bob")
    image = cloud.snapshot(
        cloud.novas[WITHOUT], cloud.instance(), metadata={"instance_uuid": victim}
    )
    assert cloud.record(image) == cloud.claimed(victim)
    assert cloud.of_instance(victim, ROUTED, "bob") == []
    whole = cloud.snapshot(cloud.novas[WITHOUT], cloud.instance(), metadata=FORGERY)
    assert cloud.record(whole) == cloud.claimed("forged", FORGED)
    assert cloud.of_instance("forged", FORGED, "bob") == []


def test_the_tuple_is_in_the_creates_and_in_nothing_else(cloud: NovaCloud) -> None:
    nova = cloud.novas[WITH]
    cloud.tap.forget()
    instance, of_volumes = cloud.instance(), cloud.instance(volume=VOLUME)
    cloud.snapshot(nova, instance, metadata=FORGERY)
    for _ in range(2):
        cloud.backup(nova, instance, 1)
    cloud.volume_snapshot(nova, of_volumes)
    # Of another's instance, so that Glance is told of a member.
    shared = cloud.act(nova, instance, {"createImage": {"name": "shared"}}, "admin")
    assert shared.image is not None
    cloud.host.do("snapshot", caller=shared.caller, instance=instance, image=shared.image)
    cloud.act(nova, instance, {"shelve": None}, "alice")
    sent = cloud.tap.sent()
    creates = [one for one in sent if (one.method, one.path) == ("POST", "/v2/images")]
    told = [tuple(one.headers[name] for name in HEADERS) for one in creates]
    assert told == [(NAMED, instance)] * 3 + [(NAMED, of_volumes)] + [(NAMED, instance)] * 2
    assert [json.loads(one.body).keys() & FORGERY.keys() for one in creates] == [
        {"instance_uuid"}, {"instance_uuid"}, {"instance_uuid"}, set(),
        {"instance_uuid"}, {"instance_uuid"},
    ]  # fmt: skip
    others = [one for one in sent if one not in creates]
    assert {(one.method, one.path.partition("?")[0].count("/")) for one in others} == {
        ("GET", 3), ("GET", 2), ("PATCH", 3), ("PUT", 4), ("POST", 4), ("DELETE", 3),
    }  # fmt: skip
    assert [one for one in others if set(HEADERS) & set(one.headers)] == []


def test_an_admins_snapshot_of_anothers_instance_is_the_admins_image_of_that_instance(
    cloud: NovaCloud,
) -> None:
    instance = cloud.instance("bob")
    image = cloud.snapshot(cloud.novas[WITH], instance, "admin")
    assert cloud.record(image) == cloud.vouched(instance, "admin")
    assert cloud.of_instance(instance, NAMED, "admin") == [image]
    held = cloud.image(image, "admin")
    assert (held["owner"], held["visibility"]) == (cloud.projects["admin"], "shared")


def test_a_customers_own_headers_at_nova_go_nowhere(cloud: NovaCloud) -> None:
    """They are a request to Nova; what Nova sends is a request of Nova's own."""
    cloud.tap.forget()
    instance = cloud.instance()
    image = cloud.snapshot(cloud.novas[WITHOUT], instance, metadata={"x-nova-instance-id": "123"})
    assert cloud.record(image) == cloud.claimed(instance)
    assert not any(set(HEADERS) & set(one.headers) for one in cloud.tap.sent())


def test_unknown_instances_of_a_known_nova_have_no_images(cloud: NovaCloud) -> None:
    assert cloud.of_instance(str(uuid.uuid4()), NAMED) == []


# -- when something is wrong


@contextmanager
def another_nova(
    cloud: NovaCloud, home: Path, entry: Entry, more: str, image_url: str, path: Path = TREE
) -> Iterator[Nova]:
    twin = cloud.novas[WITH]
    nova = Nova(home, cloud.keystone, image_url, entry, more, twin.volume_url, twin, path)
    nova.start()
    try:
        yield nova
    finally:
        nova.stop()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param("", "nova.conf has no nova_installation_uuid", id="no installation"),
        pytest.param(
            "[relproxy]\nnova_installation_uuid = 123\n",
            "nova_installation_uuid is '123', which is no UUID",
            id="an installation that is no UUID",
        ),
    ],
)
def test_a_wrong_configuration_is_logged_and_nova_works_as_without(
    cloud: NovaCloud, tmp_path: Path, more: str, said: str
) -> None:
    with another_nova(cloud, tmp_path, OURS, more, cloud.tap.url) as nova:
        instance = cloud.instance()
        image = cloud.snapshot(nova, instance)
        assert cloud.record(image) == cloud.claimed(instance)
        assert said in nova.log


def test_a_broken_package_is_logged_and_nova_works_as_without(
    cloud: NovaCloud, tmp_path: Path
) -> None:
    shutil.copytree(TREE / "relproxy", tmp_path / "relproxy")
    (tmp_path / "relproxy" / "nova" / "switch.py").write_text("import no_such_package\n")
    url = cloud.tap.url
    with another_nova(cloud, tmp_path, OURS, SWITCHED_ON, url, tmp_path) as nova:
        instance = cloud.instance()
        image = cloud.snapshot(nova, instance)
        assert cloud.record(image) == cloud.claimed(instance)
        assert "instances are not named, and Nova goes on without" in nova.log
        assert "No module named 'no_such_package'" in nova.log


def test_a_registry_without_a_relproxy_is_told_nothing_that_it_keeps(
    cloud: NovaCloud, tmp_path: Path
) -> None:
    """Switched on before there is a relproxy, or after it was taken away again."""
    with another_nova(cloud, tmp_path, OURS, SWITCHED_ON, cloud.glance.url) as nova:
        instance = cloud.instance("alice", None, **FORGERY)
        images = [
            cloud.snapshot(nova, instance),
            cloud.snapshot(nova, instance, metadata=FORGERY),
        ]
        held = [cloud.image(image) for image in images]
        assert [one["status"] for one in held] == ["active"] * 2
        # Nova's own property is as Nova alone would have it.
        assert [one["instance_uuid"] for one in held] == [instance, FORGERY["instance_uuid"]]
        assert not {"instance_id", "nova_installation_uuid"} & (held[0].keys() | held[1].keys())
        assert [cloud.record(image) for image in images] == [None, None]


def test_an_unmodified_nova_that_inherits_less_claims_no_wrong_instance(
    cloud: NovaCloud, tmp_path: Path
) -> None:
    """What docs/nova.md tells the operator of an unmodified Nova to set."""
    inherited = {"instance_uuid": "another", "instance_id": "another"}
    plain = cloud.novas[WITHOUT]
    volumes = cloud.instance("alice", VOLUME, **inherited)
    wrong = cloud.volume_snapshot(plain, volumes)
    assert cloud.record(wrong) == cloud.claimed("another")
    with another_nova(cloud, tmp_path, THEIRS, INHERITING_LESS, cloud.tap.url) as careful:
        assert cloud.record(cloud.volume_snapshot(careful, volumes)) is None
        instance = cloud.instance("alice", None, **inherited)
        image = cloud.snapshot(careful, instance)
        assert cloud.record(image) == cloud.claimed(instance)


def test_with_relproxy_stopped_novas_error_is_the_one_for_glance_away(
    cloud: NovaCloud, tmp_path: Path
) -> None:
    instance = cloud.instance()
    actions = ({"createImage": {"name": "one"}}, backup())

    def refused(nova: Nova) -> list[Any]:
        answers = []
        for action in actions:
            with pytest.raises(NotDoneError) as failure:
                cloud.act(nova, instance, action, "alice")
            answers.append(failure.value.refused)
        assert "nova.exception.GlanceConnectionFailed" in nova.log
        return answers

    nowhere = f"http://127.0.0.1:{free_port()}"
    with another_nova(cloud, tmp_path, THEIRS, "", nowhere) as nova:
        for_glance_away = refused(nova)
    cloud.relproxy.stop()
    try:
        for nova in cloud.novas.values():
            assert refused(nova) == for_glance_away
    finally:
        cloud.relproxy.start()
    # Nothing is stuck: the same instance is snapshotted as soon as relproxy is back.
    assert cloud.host.do("state", instance=instance) == ["active", None]
    image = cloud.snapshot(cloud.novas[WITH], instance)
    assert cloud.record(image) == cloud.vouched(instance)


def backup() -> dict[str, Any]:
    return {"createBackup": {"name": "two", "backup_type": "daily", "rotation": 1}}


@pytest.fixture(scope="module")
def switched(cloud: NovaCloud) -> dict[str, Any]:
    """What tests/functional/nova_switching.py tells, with what Nova's log says added."""
    nova = cloud.novas[WITH]
    argv = [
        str(venvs.ensure("nova") / "bin" / "python"),
        *("-m", "tests.functional.nova_switching"),
        *(str(nova.configuration), cloud.token("alice"), cloud.projects["alice"]),
    ]
    cloud.tap.forget()
    ran = subprocess.run(argv, capture_output=True, text=True, cwd=TREE, check=False)
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return {**told, "log": nova.log, "sent": cloud.tap.sent()}


@pytest.mark.parametrize("claim", ["is on", "is on once", "is off as before"])
def test_the_switch_can_be_turned_back(switched: dict[str, Any], claim: str) -> None:
    assert switched[claim]


@pytest.mark.parametrize(
    "other",
    [
        "no get_default_image_service",
        "no create_image",
        "no snapshot_volume_backed",
        "a create_image without an instance",
        "an image service that can't be made",
    ],
)
def test_another_nova_is_left_as_it_is(switched: dict[str, Any], other: str) -> None:
    assert switched[other]
    assert "instances are not named, and Nova goes on without" in switched["log"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("an id with a blank", "instance of an image can't be named"),
        ("an id that is no text", "instance of an image can't be named"),
        ("an instance without an id", "instance of an image can't be named"),
        ("a client that is made otherwise", "image was created without naming its instance"),
        ("no instance", ""),
    ],
)
def test_an_image_is_created_whatever_is_wrong_with_its_instance(
    cloud: NovaCloud, switched: dict[str, Any], wrong: str, said: str
) -> None:
    image = switched["creates"][wrong]
    assert cloud.record(image) == cloud.claimed("i-1")
    assert said in switched["log"]
    # Once, whatever failed before.
    creates = [one for one in switched["sent"] if (one.method, one.path) == ("POST", "/v2/images")]
    assert len(creates) == len(switched["creates"])
