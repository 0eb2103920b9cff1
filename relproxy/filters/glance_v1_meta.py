"""What Glance's image API v1 says of an image in the headers of a message.

`x-image-meta-<field>` and `x-image-meta-property-<property>`, in both directions. Names know
neither case nor the difference between `-` and `_` (glance/common/utils.py,
`get_image_meta_from_headers`, of Glance 15).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relproxy.errors import BadRequestError
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Headers, folded

_FIELD = b"x-image-meta-"
_PROPERTY = b"x-image-meta-property-"

# What oslo's bool_from_string reads as true; what it can't read is false to Glance.
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_VISIBILITIES = {"True": "public", "False": "private"}


@dataclass(frozen=True, slots=True)
class ImageMeta:
    """The fields and properties that headers name, each by its name with `_`.

    An empty value says nothing, as to Glance, and is None here.
    """

    fields: Mapping[str, str | None]
    properties: Mapping[str, str | None]


def read_meta(headers: Headers) -> ImageMeta:
    """Read the headers of a request.

    Raises `BadRequestError` where one is given twice: servers join them, or take either.
    """
    fields: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    for raw_name, raw_value in headers.pairs:
        name = folded(raw_name)
        if not name.startswith(_FIELD):
            continue
        is_property = name.startswith(_PROPERTY)
        known = properties if is_property else fields
        key = _key(name, _PROPERTY if is_property else _FIELD)
        if key in known:
            shown = name.decode("latin-1")
            raise BadRequestError(f"The header '{shown}' is given more than once: send it once.")
        known[key] = raw_value.decode("latin-1").strip(" \t") or None
    return ImageMeta(fields, properties)


def is_true(value: str | None) -> bool:
    """Tell whether Glance reads this as true."""
    return value is not None and value.strip().lower() in _TRUE


def text(value: str | None) -> str | None:
    """Return a header's value as the text that Glance shows in JSON; None where it is none."""
    try:
        return None if value is None else value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return None


def facts_in(headers: Headers) -> ImageFacts:
    """Read what the rule looks at of an answer; what two may read differently is hidden."""
    try:
        fields = read_meta(headers).fields
    except BadRequestError:
        return ImageFacts(None, None, None, None)
    visibility = _VISIBILITIES.get(fields.get("is_public") or "")
    if fields.get("deleted") != "False":
        # An admin is shown deleted images too, and that is what everyone may be to the registry.
        visibility = None
    return ImageFacts(fields.get("id"), fields.get("owner"), visibility, fields.get("created_at"))


def _key(name: bytes, prefix: bytes) -> str:
    return name[len(prefix) :].decode("latin-1").replace("-", "_")
