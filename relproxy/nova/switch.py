"""Switching the instance-aware image service on and off in a running Nova.

Nova has no setting that names an image service class. Three names of its modules are bound anew:
the function that every call to Glance gets its image service from, and the two that create an image
of an instance, which thereby say of which (docs/decisions/0019-in-front-of-novas-image-service.md).
All three, or none.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nova.conf
from nova.compute import api as compute_api
from nova.compute import utils as compute_utils
from nova.image import glance

from relproxy.nova.identification import Naming, creating
from relproxy.nova.image_service import InstanceAwareGlanceImageService
from relproxy.nova.options import configured

_LOG = logging.getLogger(__name__)

# Where Nova begins to create an image of an instance. A test looks for others in Nova's source.
CREATES = ((compute_utils, "create_image"), (compute_api.API, "snapshot_volume_backed"))

# What was bound before: owner, name, value.
_before: list[tuple[Any, str, Any]] = []


def switch_on() -> bool:
    """Install the service, and tell whether it is; Nova is as it was where it isn't."""
    if _before:
        return True
    try:
        naming = configured(nova.conf.CONF)
        if naming is None:
            _LOG.warning("instances are not named: nova.conf has no nova_installation_uuid")
            return False
        bound = [_service(naming), *(_create(owner, name) for owner, name in CREATES)]
    except Exception:  # noqa: BLE001 - Nova goes on, whatever it is
        _LOG.exception("instances are not named, and Nova goes on without")
        return False
    for owner, name, value in bound:
        _before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)
    _LOG.info("instances are named for installation %s", naming.installation)
    return True


def switch_off() -> None:
    """Bind again what was there before."""
    while _before:
        owner, name, value = _before.pop()
        setattr(owner, name, value)


def _service(naming: Naming) -> tuple[Any, str, Callable[[], Any]]:
    """Return what is bound for the service, once it is sure that one can be made."""
    if not callable(glance.get_default_image_service):
        raise TypeError("nova.image.glance.get_default_image_service is no function")

    def get_default_image_service() -> InstanceAwareGlanceImageService:
        return InstanceAwareGlanceImageService(naming)

    get_default_image_service()
    return glance, "get_default_image_service", get_default_image_service


def _create(owner: Any, name: str) -> tuple[Any, str, Callable[..., Any]]:  # noqa: ANN401
    own = getattr(owner, name)
    signature = inspect.signature(own)
    if "instance" not in signature.parameters:
        raise TypeError(f"{name} has no parameter 'instance'")

    @functools.wraps(own)
    def create(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with creating(_instance_of(signature, args, kwargs)):
            return own(*args, **kwargs)

    return owner, name, create


def _instance_of(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:  # noqa: ANN401
    """Return the instance that a call is about, or None where that can't be told."""
    try:
        return signature.bind(*args, **kwargs).arguments["instance"]
    except Exception:  # noqa: BLE001 - Nova goes on, whatever it is
        _LOG.exception("instance of a call can't be told")
        return None
