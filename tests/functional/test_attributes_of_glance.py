"""What a PATCH may set on a real Glance: any attribute that its image object has."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest

from lab import venvs
from lab.clients import connect
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.filters.target import parse_target
from relproxy.messages import Headers
from tests.functional.conftest import Cloud

_PROGRAM = """
import json, sys
from glance.common import config
import glance.context, glance.gateway, glance_store
from oslo_config import cfg
config.parse_args(args=[], default_config_files=[sys.argv[1]])
reserved = {"os_glance_staging_store": "file", "os_glance_tasks_store": "file"}
glance_store.register_store_opts(cfg.CONF, reserved_stores=reserved)
glance_store.create_multi_stores(cfg.CONF, reserved_stores=reserved)
context = glance.context.RequestContext(is_admin=True, roles=["admin"])
image = glance.gateway.Gateway().get_repo(context).list(limit=1)[0]
print("NAMES " + json.dumps(sorted(dir(image))))
"""

# What a project may change of its own image, and what Glance itself refuses to change.
WRITABLE = {
    "container_format", "disk_format", "min_disk", "min_ram", "name", "os_hidden", "protected",
    "tags",
}  # fmt: skip
READ_ONLY = {
    "checksum", "created_at", "os_hash_algo", "os_hash_value", "size", "status", "updated_at",
    "virtual_size",
}  # fmt: skip
PATCH = "application/openstack-images-v2.1-json-patch"


@pytest.fixture(scope="module")
def attributes(cloud: Cloud) -> set[str]:
    connect(cloud.east, "alice").image.post("/images", json={"name": "any"})
    python = venvs.ensure("glance") / "bin" / "python"
    configuration = Path(cloud.lonely.home) / "glance-api.conf"
    ran = subprocess.run(
        [str(python), "-c", _PROGRAM, str(configuration)],
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(li for li in ran.stdout.splitlines() if li.startswith("NAMES "))
    return set(json.loads(line.removeprefix("NAMES ")))


def test_every_attribute_of_glances_image_is_writable_read_only_or_refused(
    attributes: set[str],
) -> None:
    assert {"image_id", "extra_properties", "__class__"} <= attributes
    dialect = GlanceV2()
    update = dialect.operation("PATCH", parse_target("/v2/images/x"), Headers())
    let_through = {
        name
        for name in attributes
        if dialect.effect(
            update, Headers(), json.dumps([{"op": "add", "path": f"/{name}"}]).encode()
        )
        is None
    }
    assert let_through <= WRITABLE | READ_ONLY


@pytest.mark.parametrize("name", sorted(READ_ONLY))
def test_glance_itself_refuses_to_change_what_is_read_only(cloud: Cloud, name: str) -> None:
    client = connect(cloud.east, "alice")
    image_id = client.image.post("/images", json={"name": "mine"}).json()["id"]
    change = json.dumps([{"op": "replace", "path": f"/{name}", "value": "x"}])
    answer = client.image.patch(
        f"/images/{image_id}", data=change, headers={"Content-Type": PATCH}, raise_exc=False
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("pointer", ["/image_id", "//image_id", "/ image_id "])
def test_no_project_overwrites_an_image_by_patching_another(cloud: Cloud, pointer: str) -> None:
    alice, bob = connect(cloud.east, "alice"), connect(cloud.east, f"bob-{uuid.uuid4().hex}")
    own = alice.image.post("/images", json={"name": "mine"}).json()["id"]
    victim = bob.image.create_image(
        name="bobs", data=b"bobs", disk_format="raw", container_format="bare", visibility="private"
    )
    change = json.dumps([{"op": "replace", "path": pointer, "value": victim.id}])
    answer = alice.image.patch(
        f"/images/{own}", data=change, headers={"Content-Type": PATCH}, raise_exc=False
    )
    assert answer.status_code == 403
    assert bob.image.download_image(victim.id).content == b"bobs"
    assert bob.image.get_image(victim.id).name == "bobs"
