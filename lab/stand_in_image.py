"""The stand-in Glance's image documents: how they look, what a client may set, patches.

Pure functions that follow Glance 33: api/v2/images.py (`RequestDeserializer`, `_do_add` and its
like, `_format_image`) and api/v2/policy.py. Of Glance's JSON schema only types, visibilities and
the form of an id are checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any

from lab.stand_in_query import Caller, Image, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

PATCH_TYPES = (
    "application/openstack-images-v2.0-json-patch",
    "application/openstack-images-v2.1-json-patch",
)

# In Glance's order; custom properties come before, `_COMPUTED` after.
_BASE: dict[str, Any] = {
    "name": None,
    "disk_format": None,
    "container_format": None,
    "visibility": "shared",
    "size": None,
    "virtual_size": None,
    "status": "queued",
    "checksum": None,
    "protected": False,
    "min_ram": 0,
    "min_disk": 0,
    "owner": None,
    "os_hidden": False,
    "os_hash_algo": None,
    "os_hash_value": None,
}
_COMPUTED = ("id", "created_at", "updated_at", "tags", "self", "file", "schema", "stores")
_READ_ONLY = (
    *("created_at", "updated_at", "status", "checksum", "size", "virtual_size"),
    *("direct_url", "self", "file", "schema", "os_hash_algo", "os_hash_value"),
)
_RESERVED = ("location", "deleted", "deleted_at")
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "owner", "disk_format", "container_format"), (str, NoneType)),
    **dict.fromkeys(("protected", "os_hidden"), (bool,)),
    **dict.fromkeys(("min_disk", "min_ram"), (int,)),
    "tags": (list,),
}
_VISIBILITIES = ("community", "public", "private", "shared")
_UUID = re.compile("-".join(f"[0-9a-fA-F]{{{length}}}" for length in (8, 4, 4, 4, 12)))
_OPERATIONS = ("add", "remove", "replace")


def new_document(image_id: str, fields: Mapping[str, Any], *, now: str) -> Image:
    """Return a whole image document; what `fields` leaves out is as after a create at `now`."""
    created_at = fields.get("created_at", now)
    document = {
        **{name: value for name, value in fields.items() if name not in (*_BASE, *_COMPUTED)},
        **{name: fields.get(name, default) for name, default in _BASE.items()},
        "id": image_id,
        "created_at": created_at,
        "updated_at": fields.get("updated_at", created_at),
        "tags": sorted(set(fields.get("tags", ()))),
        "self": f"/v2/images/{image_id}",
        "file": f"/v2/images/{image_id}/file",
        "schema": "/v2/schemas/image",
    }
    if document["status"] != "queued":
        document["stores"] = "file"
    return document


def may_change(image: Image, caller: Caller) -> bool:
    """Tell whether the caller is the image's owner or an admin."""
    is_own = caller.project is not None and image["owner"] == caller.project
    return caller.is_admin or is_own


def check_create(fields: Mapping[str, Any], caller: Caller) -> None:
    """Raise `RefusedError` where Glance refuses to create such an image for the caller."""
    for name, value in fields.items():
        _check_writable(name, also_read_only="stores")
        if _is_reserved(name):
            raise RefusedError(403, detail=f"Attribute '{name}' is reserved.")
        _check_value(name, value)
    if caller.is_admin:
        return
    if fields.get("owner", caller.project) != caller.project:
        detail = f"You are not permitted to create images owned by '{fields['owner']}'"
        raise RefusedError(403, detail=detail)
    _check_visibility(fields.get("visibility"), caller)


def _check_writable(name: str, *, also_read_only: str) -> None:
    if name in _READ_ONLY or name == also_read_only:
        raise RefusedError(403, f"Attribute '{name}' is read-only.")


def _is_reserved(name: str) -> bool:
    return name in _RESERVED or name.startswith("os_glance")


def _check_value(name: str, value: object) -> None:
    complaint = f"Provided object does not match schema 'image': {value!r}"
    if not isinstance(value, _TYPES.get(name, (str,))):
        raise RefusedError(400, f"{complaint} is not of the type of '{name}'")
    if name == "visibility" and value not in _VISIBILITIES:
        raise RefusedError(400, f"{complaint} is not one of {list(_VISIBILITIES)}")
    if name == "id" and not _UUID.fullmatch(str(value)):
        raise RefusedError(400, f"{complaint} does not match '{_UUID.pattern}'")


def _check_visibility(visibility: object, caller: Caller) -> None:
    if visibility == "public" and not caller.is_admin:
        raise not_authorized("publicize_image")


def not_authorized(action: str) -> RefusedError:
    """Return the refusal of Glance's policy layer."""
    return RefusedError(403, f"You are not authorized to complete {action} action.")


@dataclass(frozen=True)
class Change:
    """One operation of a PATCH; `is_strict` in the older media type, where `add` only adds."""

    operation: str
    name: str
    value: object
    is_strict: bool


def read_changes(body: object, content_type: str) -> list[Change]:
    """Read a PATCH body in either media type; raise `RefusedError` as Glance would."""
    if not isinstance(body, list):
        raise RefusedError(400, "Request body must be a JSON array of operation objects.")
    return [_read_change(raw, is_strict=content_type == PATCH_TYPES[0]) for raw in body]


def _read_change(raw: object, *, is_strict: bool) -> Change:
    if not isinstance(raw, dict):
        raise RefusedError(400, "Operations must be JSON objects.")
    stated = next((name for name in _OPERATIONS if name in raw), None)
    operation = stated if is_strict else raw.get("op")
    if operation not in _OPERATIONS:
        allowed = f"It must be one of the following: {', '.join(_OPERATIONS)}."
        raise RefusedError(400, f"Invalid operation: `{operation}`. {allowed}")
    name = _read_pointer(str(raw.get(operation if is_strict else "path", "")))
    _check_writable(name, also_read_only="id")
    if _is_reserved(name):
        raise RefusedError(403, f"Attribute '{name}' is reserved.")
    if operation == "remove":
        return Change(operation, name, None, is_strict)
    if "value" not in raw:
        raise RefusedError(400, f'Operation "{operation}" requires a member named "value".')
    _check_value(name, raw["value"])
    return Change(operation, name, raw["value"], is_strict)


def _read_pointer(pointer: str) -> str:
    """Return the one name that a JSON pointer may have; Glance strips blanks around it."""
    if not pointer.startswith("/"):
        raise RefusedError(400, f'Pointer `{pointer}` does not start with "/".')
    names = [
        part.replace("~1", "/").replace("~0", "~").strip()
        for part in pointer.lstrip("/").split("/")
    ]
    if len(names) != 1:
        raise RefusedError(400, f"Invalid JSON pointer for this resource: '/{'/'.join(names)}'")
    return names[0]


def changed(image: Image, change: Change, caller: Caller) -> Image:
    """Return the image after one change; raise `RefusedError` where Glance refuses it."""
    name = change.name
    if change.operation == "replace" and name == "owner" and not caller.is_admin:
        raise RefusedError(403, detail="Owner can't be updated by non admin.")
    if name == "visibility":
        _check_visibility(change.value, caller)
    if not may_change(image, caller):
        raise not_authorized("modify_image")
    _check_presence(image, change)
    if change.operation == "remove":
        return {key: value for key, value in image.items() if key != name}
    value = sorted(set(change.value)) if isinstance(change.value, list) else change.value
    return image | {name: value} if name in image else _with_property(image, name, value)


def _check_presence(image: Image, change: Change) -> None:
    name = change.name
    if change.operation == "remove" and (name in _BASE or name in _COMPUTED):
        raise RefusedError(403, detail=f"Property {name} may not be removed.")
    if change.operation != "add" and name not in image:
        raise RefusedError(409, detail=f"Property {name} does not exist.")
    if change.operation == "add" and change.is_strict and name in image:
        raise RefusedError(409, detail=f"Property {name} already present.")


def _with_property(image: Image, name: str, value: object) -> Image:
    """Put a new custom property where Glance shows it: after the others, before the name."""
    custom = {key: image[key] for key in image if key not in (*_BASE, *_COMPUTED)}
    return {**custom, name: value, **image}
