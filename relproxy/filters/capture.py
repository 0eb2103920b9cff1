"""Which instance a create names, and who says so (docs/architecture.md, Capture).

Three levels, the first that says anything wins whole: the metadata headers, where a trusted source
sent them (vouched); the two reserved properties of the body; and the property that an unmodified
Nova sends (both claimed, because a customer can put them there through an honest Nova).
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from relproxy.errors import BadRequestError
from relproxy.messages import Headers
from relproxy.model import Capture, Grade, Instance

# 1 to 255 visible characters; ASCII, because the headers could carry nothing else unambiguously.
_INSTANCE_ID = re.compile(r"[\x21-\x7e]{1,255}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")


@dataclass(frozen=True, slots=True)
class MetadataHeaders:
    """The names of the two instance metadata headers."""

    installation: str
    instance: str


@dataclass(frozen=True, slots=True)
class BodyMetadata:
    """What the body of a create says, as decoded JSON values; None where it says nothing.

    `instance_uuid` is the registry's own informational property and stays in the body.
    """

    installation: object = None
    instance: object = None
    instance_uuid: object = None


def read_capture(
    headers: Headers,
    body: BodyMetadata,
    *,
    names: MetadataHeaders,
    is_trusted: bool,
    route_installation: str | None,
) -> Capture | None:
    """Return the instance that a create names, or None where it names none.

    Raises `BadRequestError` for half a tuple, a malformed value, or a repeated metadata header.
    Headers from an untrusted source count for nothing and never make an error.
    """
    if is_trusted:
        installation = headers.vouched(names.installation)
        instance = headers.vouched(names.instance)
        if installation is not None or instance is not None:
            vouched = _whole(installation, instance, route_installation, names)
            return Capture(vouched, Grade.VOUCHED)
    if body.installation is not None or body.instance is not None:
        properties = MetadataHeaders("nova_installation_uuid", "instance_id")
        claimed = _whole(body.installation, body.instance, route_installation, properties)
        return Capture(claimed, Grade.CLAIMED)
    return _informational(body.instance_uuid, route_installation)


def canonical_installation(value: object, name: str) -> str:
    """Return an installation's UUID in canonical form; raise `BadRequestError` if it isn't one."""
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise BadRequestError(f"'{name}' is not a UUID.")
    return str(uuid.UUID(value))


def checked_instance_id(value: object, name: str) -> str:
    """Return an instance id as it is; raise `BadRequestError` if it can't be one."""
    if not isinstance(value, str) or not _INSTANCE_ID.fullmatch(value):
        raise BadRequestError(f"'{name}' is not 1 to 255 visible ASCII characters.")
    return value


def _whole(
    installation: object,
    instance: object,
    route_installation: str | None,
    names: MetadataHeaders,
) -> Instance:
    if instance is None:
        raise BadRequestError(
            f"'{names.installation}' without '{names.instance}' is half a tuple: send both."
        )
    checked = checked_instance_id(instance, names.instance)
    if installation is not None:
        return Instance(canonical_installation(installation, names.installation), checked)
    if route_installation is None:
        raise BadRequestError(
            f"'{names.instance}' without '{names.installation}' is half a tuple, and this route "
            "has no installation of its own: send both."
        )
    return Instance(route_installation, checked)


def _informational(instance_uuid: object, route_installation: str | None) -> Capture | None:
    # Not refused when malformed or without an installation: it is the registry's own property,
    # any value of it is legal there, and a Nova that takes no part must work untouched.
    if route_installation is None or not isinstance(instance_uuid, str):
        return None
    if not _INSTANCE_ID.fullmatch(instance_uuid):
        return None
    return Capture(Instance(route_installation, instance_uuid), Grade.CLAIMED)
