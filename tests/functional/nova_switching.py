"""Inside Nova's environment: switching on and off in a Nova that is whole, and in one that isn't.

Prints one JSON object: what happened in each case.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from nova import monkey_patch

monkey_patch.patch(backend="threading")

from nova import config, context, objects  # noqa: E402 - after Nova's own patching
from nova.compute import api as compute_api  # noqa: E402
from nova.compute import utils as compute_utils  # noqa: E402
from nova.image import glance  # noqa: E402
from oslo_log import log as logging  # noqa: E402

from relproxy.nova import switch  # noqa: E402
from relproxy.nova.identification import creating  # noqa: E402

NAMES = (
    (glance, "get_default_image_service"),
    (compute_utils, "create_image"),
    (compute_api.API, "snapshot_volume_backed"),
)


def bound() -> list[Any]:
    return [getattr(owner, name, None) for owner, name in NAMES]


@contextmanager
def instead(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Have another Nova, in which something is called or made otherwise."""
    own = getattr(owner, name)
    if value is None:
        delattr(owner, name)
    else:
        setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)


def is_left_alone() -> bool:
    """Try to switch on; tell whether that was given up and nothing is bound anew."""
    before = bound()
    try:
        return not switch.switch_on() and bound() == before
    finally:
        switch.switch_off()


def reversing() -> dict[str, bool]:
    own = bound()
    on = switch.switch_on()
    anew = bound()
    again = switch.switch_on() and bound() == anew
    switch.switch_off()
    switch.switch_off()
    return {
        "is on": on and all(a is not b for a, b in zip(own, anew, strict=True)),
        "is on once": again,
        "is off as before": bound() == own,
    }


def other_novas() -> dict[str, bool]:
    def without_instance(ctxt: Any, server: Any) -> None: ...
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such client")

    found = {}
    for what, name in NAMES:
        with instead(what, name, None):
            found[f"no {name}"] = is_left_alone()
    with instead(compute_utils, "create_image", without_instance):
        found["a create_image without an instance"] = is_left_alone()
    with instead(glance.GlanceImageServiceV2, "__init__", broken):
        found["an image service that can't be made"] = is_left_alone()
    return found


def creates(token: str, project: str) -> dict[str, str]:
    """Create images while something is wrong; return the id of each."""
    switch.switch_on()
    ctxt = context.RequestContext(
        user_id="u1", project_id=project, auth_token=token, roles=["member"], service_catalog=[]
    )

    def create(name: str, instance: Any) -> str:
        with creating(instance):
            made = glance.API().create(ctxt, {"name": name, "properties": {"instance_uuid": "i-1"}})
        return str(made["id"])

    ids = {
        "an id with a blank": create("blank", SimpleNamespace(uuid="i 1")),
        "an id that is no text": create("number", SimpleNamespace(uuid=7)),
        "an instance without an id": create("none", object()),
        "no instance": create("no instance", None),
    }
    own = glance.GlanceClientWrapper._create_onetime_client  # noqa: SLF001 - Nova has no other
    with instead(
        glance.GlanceClientWrapper,
        "_create_onetime_client",
        lambda self, ctxt, version: _Unlike(own(self, ctxt, version)),
    ):
        ids["a client that is made otherwise"] = create("otherwise", SimpleNamespace(uuid="i-2"))
    return ids


class _Unlike:
    """A client of the image API whose images have no `http_client`."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._own, name)
        return SimpleNamespace(create=own.create) if name == "images" else own


def main() -> None:
    _, file, token, project = sys.argv
    answers, sys.stdout = sys.stdout, sys.stderr
    config.parse_args(["nova-api", "--config-file", file])
    logging.setup(config.CONF, "nova")
    objects.register_all()
    told = {**reversing(), **other_novas(), "creates": creates(token, project)}
    print(json.dumps(told), file=answers)


if __name__ == "__main__":
    main()
