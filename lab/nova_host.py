"""A compute host: one command a line of standard input, one answer a line of standard output.

Runs in Nova's environment. What the API would tell it by a message queue it is told here; what it
does then is Nova's own ComputeManager, over Nova's own fake hypervisor, whose snapshots are taken
to Glance by the calls that the libvirt driver makes (nova/virt/libvirt/driver.py, snapshot).
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from nova import monkey_patch

monkey_patch.patch(backend="threading")

from nova import config, context, objects  # noqa: E402 - after Nova's own patching
from nova.compute import manager, power_state, task_states, vm_states  # noqa: E402
from nova.image import glance  # noqa: E402
from nova.network import model  # noqa: E402
from nova.virt import fake  # noqa: E402
from oslo_utils import timeutils  # noqa: E402

CELL = "5f1c2f43-0000-4000-8000-000000000001"
BASE_IMAGE = "c0ffee00-0000-4000-8000-000000000000"
DISK = b"the disk of an instance, as it was at midnight. " * 1024

# What all instances here have in common.
_OWNED = {
    "user_id": "u1", "display_name": "web", "host": "lab", "node": "lab", "compute_id": 1,
    "power_state": power_state.RUNNING, "task_state": None, "root_device_name": "/dev/vda",
    "old_flavor": None, "new_flavor": None, "numa_topology": None, "pci_requests": None,
}  # fmt: skip


class Host:
    """What the verbs of standard input mean."""

    def __init__(self) -> None:
        self._admin = context.get_admin_context()
        self._manager = manager.ComputeManager()
        self._manager.driver.snapshot = _upload
        self._cell: Any = None

    def begin(self) -> None:
        """Make the cell, if there is none."""
        found = objects.CellMappingList.get_all(self._admin)
        if not found:
            cell = objects.CellMapping(
                self._admin, uuid=CELL, name="lab", transport_url="fake:/",
                database_connection=config.CONF.database.connection,
            )  # fmt: skip
            cell.create()
            found = [cell]
        self._cell = found[0]

    def instance(
        self, project: str, image_properties: dict[str, str], volume: str | None = None
    ) -> str:
        """Make an instance as if it had been booted from an image of these properties."""
        with context.target_cell(self._admin, self._cell) as cell:
            made = objects.Instance(
                cell,
                **_OWNED,
                project_id=project,
                vm_state=vm_states.ACTIVE if volume is None else vm_states.STOPPED,
                launched_at=timeutils.utcnow(),
                flavor=_flavor(cell),
                image_ref="" if volume else BASE_IMAGE,
                system_metadata={f"image_{k}": v for k, v in image_properties.items()},
                info_cache=objects.InstanceInfoCache(network_info=model.NetworkInfo()),
            )
            made.create()
            _root(cell, made, volume).create()
        objects.InstanceMapping(
            self._admin, instance_uuid=made.uuid, project_id=project, user_id="u1",
            cell_mapping=self._cell, queued_for_delete=False,
        ).create()  # fmt: skip
        self._manager.driver.instances[made.uuid] = fake.FakeInstance(
            "web", power_state.RUNNING, made.uuid
        )
        return str(made.uuid)

    def backup(
        self, caller: dict[str, Any], instance: str, image: str, backup_type: str, rotation: int
    ) -> None:
        """Do what `createBackup` asks an instance's host to do, rotation and all."""
        with context.target_cell(_context(caller), self._cell) as cell:
            self._manager.backup_instance(
                cell, image, _found(cell, instance), backup_type, rotation
            )

    def snapshot(self, caller: dict[str, Any], instance: str, image: str) -> None:
        """Do what `createImage` asks an instance's host to do."""
        with context.target_cell(_context(caller), self._cell) as cell:
            found = _found(cell, instance)
            found.task_state = task_states.IMAGE_SNAPSHOT
            found.save(expected_task_state=task_states.IMAGE_SNAPSHOT_PENDING)
            # Here and not in a thread, as snapshot_instance does: SQLite has one writer.
            self._manager._snapshot_instance(  # noqa: SLF001
                cell, image, found, task_states.IMAGE_SNAPSHOT
            )

    def state(self, instance: str) -> list[str | None]:
        """Tell the states of an instance: of the machine, and of what is being done with it."""
        with context.target_cell(self._admin, self._cell) as cell:
            found = _found(cell, instance)
            return [found.vm_state, found.task_state]


def _flavor(cell: Any) -> Any:  # noqa: ANN401
    return objects.Flavor(
        cell, id=1, name="small", memory_mb=64, vcpus=1, root_gb=1, ephemeral_gb=0, swap=0,
        flavorid="1", rxtx_factor=1.0, vcpu_weight=0, disabled=False, is_public=True,
        extra_specs={}, projects=[], description=None,
    )  # fmt: skip


def _root(cell: Any, instance: Any, volume: str | None) -> Any:  # noqa: ANN401
    source = (
        {"source_type": "image", "destination_type": "local", "image_id": instance.image_ref}
        if volume is None
        else {"source_type": "volume", "destination_type": "volume", "volume_id": volume}
    )
    return objects.BlockDeviceMapping(
        cell, instance_uuid=instance.uuid, boot_index=0, device_name="/dev/vda", device_type="disk",
        volume_size=1, connection_info="{}", no_device=False, delete_on_termination=False,
        tag=None, volume_type=None, **source,
    )  # fmt: skip


def _context(caller: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the context that the API sends along: the customer's own token is in it."""
    return context.RequestContext(
        user_id=caller["user"], project_id=caller["project"], auth_token=caller["token"],
        request_id=caller["request"], roles=caller["roles"], service_catalog=[],
    )  # fmt: skip


def _found(cell: Any, instance: str) -> Any:  # noqa: ANN401
    wanted = ["metadata", "system_metadata", "info_cache", "flavor", "security_groups"]
    return objects.Instance.get_by_uuid(cell, instance, expected_attrs=wanted)


def _upload(ctxt: Any, _: Any, image_id: str, update_task_state: Any) -> None:  # noqa: ANN401
    update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
    update_task_state(
        task_state=task_states.IMAGE_UPLOADING, expected_state=task_states.IMAGE_PENDING_UPLOAD
    )
    shown = glance.API().get(ctxt, image_id)
    metadata = {
        "disk_format": "raw", "container_format": "bare", "name": shown["name"],
        "status": "active", "properties": {"image_location": "snapshot"},
    }  # fmt: skip
    glance.API().update(ctxt, image_id, metadata, io.BytesIO(DISK), purge_props=False)


def main() -> None:
    """Obey until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    config.parse_args(["nova-compute", "--config-file", sys.argv[1]])
    objects.register_all()
    host = Host()
    for line in sys.stdin:
        command = json.loads(line)
        verb = getattr(host, command.pop("verb"))
        try:
            answer = {"done": verb(**command)}
        except Exception as refusal:  # noqa: BLE001 - it is told to who asked
            answer = {"refused": f"{type(refusal).__name__}: {refusal}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
