"""The stand-in for Glance's v1: its images, whom they are shown to, and its lists.

Follows Glance 15 (pike-eol): glance/registry/api/v1/images.py, glance/db/sqlalchemy/api.py
(`image_get_all`, with `v1_mode`), glance/common/utils.py (headers). Left out: property protection,
quotas, `deleted` as a filter, and images of nobody, which Glance shows to everyone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.stand_in_query import Caller, Image, Query, RefusedError

_UUID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")
_FIELDS = frozenset(
    {"location", "size", "is_public", "disk_format", "container_format", "name", "status",
     "copy_from", "uri", "checksum", "created_at", "updated_at", "deleted_at", "min_ram",
     "min_disk", "owner", "store", "id", "protected", "deleted", "virtual_size"}
)  # fmt: skip
_TRUE = ("t", "true", "on", "y", "yes", "1")
_NUMBERS = ("size", "min_disk", "min_ram", "virtual_size")
_SWITCHES = ("is_public", "deleted", "protected")
_SHORT = ("id", "name", "size", "disk_format", "container_format", "checksum")
_SORT_KEYS = (
    *("name", "status", "container_format", "disk_format", "size", "id"),
    *("created_at", "updated_at"),
)
_BY_VALUE = ("name", "status", "container_format", "disk_format")
_BASE: Mapping[str, Any] = {
    "name": None, "disk_format": None, "container_format": None, "size": 0, "virtual_size": None,
    "checksum": None, "status": "queued", "is_public": False, "owner": None, "protected": False,
    "min_disk": 0, "min_ram": 0, "deleted": False, "deleted_at": None,
}  # fmt: skip


def new_image(image_id: str, fields: Mapping[str, Any], *, now: str) -> Image:
    """Return a whole image; what `fields` leaves out is as after a create at `now`."""
    created_at = fields.get("created_at", now)
    return {
        "id": image_id,
        **{name: fields.get(name, default) for name, default in _BASE.items()},
        "created_at": created_at,
        "updated_at": fields.get("updated_at", created_at),
        "properties": dict(fields.get("properties", {})),
    }


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Return the fields that a request's headers name, `properties` among them, as Glance does.

    What is repeated is joined, as WSGI servers do.
    """
    joined: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower().replace("_", "-"), raw_value.decode()
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    fields: dict[str, Any] = {}
    properties: dict[str, str | None] = {}
    for name, value in joined.items():
        if name.startswith("x-image-meta-property-"):
            properties[_key(name, "x-image-meta-property-")] = value or None
        elif name.startswith("x-image-meta-"):
            fields[_known(_key(name, "x-image-meta-"), name)] = value or None
    for key in _NUMBERS:
        if key in fields:
            fields[key] = _number(key, fields[key])
    for key in _SWITCHES:
        if key in fields:
            fields[key] = str(fields[key]).strip().lower() in _TRUE
    return fields | {"properties": properties}


def _key(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).replace("-", "_")


def _known(field: str, name: str) -> str:
    if field not in _FIELDS:
        raise RefusedError(400, f"Bad header: {name}")
    return field


def _number(key: str, value: str | None) -> int:
    if value is None or not value.isdigit():
        raise RefusedError(400, f"Cannot convert image {key} '{value}' to an integer.")
    return int(value)


def write_headers(image: Image) -> list[tuple[str, str]]:
    """Return an image as the headers of an answer."""
    shown = {k: v for k, v in image.items() if k != "properties"}
    shown |= {f"property-{key.lower()}": value for key, value in image["properties"].items()}
    return [(f"x-image-meta-{k}", str(v)) for k, v in shown.items() if v is not None]


def in_short(image: Image) -> Image:
    """Return an image as `/images` lists it."""
    return {name: image[name] for name in _SHORT}


def is_uuid(text: str) -> bool:
    """Tell whether Glance takes this for an id."""
    return _UUID.fullmatch(text) is not None


def is_readable(image: Image, caller: Caller, members: Collection[str | None]) -> bool:
    """Tell whether the caller may read the image by its id."""
    is_own = caller.project is not None and image["owner"] == caller.project
    return caller.is_admin or image["is_public"] or is_own or caller.project in members


@dataclass(frozen=True)
class Listing:
    """What a list asks for."""

    limit: int
    marker: str | None
    sort_key: str
    is_descending: bool
    filters: Mapping[str, str]

    @property
    def shows_deleted(self) -> bool:
        """Whether deleted images are listed too."""
        return "changes-since" in self.filters


def parse_listing(query: Query, *, default_limit: int, max_limit: int) -> Listing:
    """Read a list's query; of a parameter that is repeated the last one counts."""
    given = dict(query)
    limit = given.get("limit", str(default_limit))
    if not limit.lstrip("-").isdigit():
        raise RefusedError(400, "limit param must be an integer")
    if int(limit) < 0:
        raise RefusedError(400, "limit param must be positive")
    marker = given.get("marker")
    if marker and not is_uuid(marker):
        raise RefusedError(400, "Invalid marker format")
    sort_key, sort_dir = given.get("sort_key", "created_at"), given.get("sort_dir", "desc")
    if sort_key not in _SORT_KEYS:
        raise RefusedError(400, f"Unsupported sort_key. Acceptable values: {', '.join(_SORT_KEYS)}")
    if sort_dir not in ("asc", "desc"):
        raise RefusedError(400, "Unsupported sort_dir. Acceptable values: asc, desc")
    if given.get("is_public", "none").lower() not in ("none", "true", "false", "1", "0"):
        raise RefusedError(400, "Bad value passed to filter is_public")
    size = min(int(limit), max_limit)
    return Listing(size, marker or None, sort_key, sort_dir == "desc", given)


def is_listed(
    image: Image, caller: Caller, listing: Listing, members: Collection[str | None]
) -> bool:
    """Tell whether the image is in the caller's list, whatever else is asked for.

    To an admin `is_public=None` shows all, and nothing what any member would see.
    """
    if image["deleted"] and not listing.shows_deleted:
        return False
    asked = listing.filters.get("is_public", "true").lower()
    if caller.is_admin and asked == "none":
        return True
    if caller.is_admin and asked in ("false", "0"):
        return not image["is_public"]
    return is_readable(image, Caller(caller.project, is_admin=False), members)


def matches(image: Image, listing: Listing) -> bool:
    """Tell whether an image is what the filters ask for."""
    filters = listing.filters
    by_property = {
        name.removeprefix("property-"): value
        for name, value in filters.items()
        if name.startswith("property-")
    }
    return (
        all(image[name] == filters[name] for name in _BY_VALUE if name in filters)
        and image["size"] >= int(filters.get("size_min", 0))
        and image["size"] <= int(filters.get("size_max", image["size"]))
        and image["updated_at"][:19] >= filters.get("changes-since", "")[:19]
        and all(image["properties"].get(key) == value for key, value in by_property.items())
    )
