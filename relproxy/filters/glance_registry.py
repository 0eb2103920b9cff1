"""The API of glance-registry as of 2011: JSON both ways, and ids that are numbers.

Sources, all of Glance 2011.3 (diablo): glance/registry/server.py, glance/registry/db/api.py. What
differs from the image APIs is in docs/dialects.md.
"""

from __future__ import annotations

import re
from typing import Any

from relproxy.errors import BadRequestError
from relproxy.filters.base import (
    UNKNOWN,
    BodyEffect,
    CreateBody,
    Operation,
)
from relproxy.filters.capture import BodyMetadata
from relproxy.filters.glance_pipeline import (
    neutral_headers,
    refuse_overridden_method,
)
from relproxy.filters.glance_registry_table import TABLE
from relproxy.filters.glance_v1_lists import GlanceV1Lists
from relproxy.filters.glance_v1_page import read_image
from relproxy.filters.json_edit import (
    Raw,
    decoded_value,
    render_object,
    request_document,
    shallow_object,
)
from relproxy.filters.route_table import matching_rows, row_operation
from relproxy.filters.target import Target
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Headers
from relproxy.model import Access, Treatment

# As the registry writes it: what it reads is whatever Python's int() takes, " 017" and "+17" too.
_ID = re.compile(r"0|[1-9][0-9]{0,17}")

_INSTALLATION = "nova_installation_uuid"
_INSTANCE = "instance_id"
_RESERVED = frozenset({_INSTALLATION, _INSTANCE})
# The registry sets whatever attribute it is told on its own object of the image
# (glance/registry/db/models.py, ModelBase.update): these are the image's own.
_ATTRIBUTES = frozenset(
    {"id", "created_at", "updated_at", "deleted_at", "deleted", "name", "status", "size",
     "disk_format", "container_format", "min_disk", "min_ram", "is_public", "location", "checksum",
     "owner", "properties", "store"}
)  # fmt: skip
_LONGEST_NAME = 255


class GlanceRegistry(GlanceV1Lists):
    """The dialect `glance-registry`; see `relproxy.filters.base.Dialect` for each method."""

    name = "glance-registry"
    probe_target = "/images?limit=0"
    guarded_target = "/images?limit=1"
    image_method = "GET"
    makes_images_in_steps = False
    created_status = 200
    # They come from its database's own sequence: a chosen one would stand in its way.
    takes_chosen_ids = False

    def operation(self, method: str, target: Target, _: Headers) -> Operation:
        """Classify a request on its canonical path.

        Raises `BadRequestError` where the query would make the router take another method.
        """
        refuse_overridden_method(target.query)
        found = matching_rows(TABLE, target.segments)
        for row in found:
            operation = row_operation(row, target.segments, target.path)
            if operation.image_id is not None and not self.is_image_id(operation.image_id):
                return Operation(UNKNOWN, Treatment.REFUSE, Access.REFUSED, target.path)
            if row.method == method:
                return operation
        # Refused in every tenancy: it may be another way to a list.
        allowed = tuple(row.method for row in found)
        return Operation(UNKNOWN, Treatment.REFUSE, Access.REFUSED, target.path, allowed=allowed)

    def neutral_headers(self, headers: Headers) -> Headers:
        """Take out what makes the router see another method."""
        return neutral_headers(headers, body_type="application/json")

    def read_create(self, headers: Headers, body: bytes) -> CreateBody:
        """Read the JSON of `POST /images`."""
        image = _image_of(body)
        properties = image.get("properties") or {}
        if not isinstance(properties, dict):
            raise BadRequestError("The properties of the image are not an object.")
        chosen_id, owner, name = (image.get(key) for key in ("id", "owner", "name"))
        return CreateBody(
            metadata=BodyMetadata(
                properties.get(_INSTALLATION),
                properties.get(_INSTANCE),
                properties.get("instance_uuid"),
            ),
            headers=headers,
            stripped=body if _RESERVED.isdisjoint(properties) else _stripped(body),
            chosen_id=chosen_id if chosen_id is None else str(chosen_id),
            has_id="id" in image,
            name=name if isinstance(name, str) and len(name) <= _LONGEST_NAME else None,
            owner=owner if owner is None else str(owner),
            effect=_effect(image),
        )

    def with_image_id(self, _: CreateBody, image_id: str) -> CreateBody:
        """Raise: nobody asks for it, because `takes_chosen_ids` is false."""
        raise NotImplementedError(f"this registry takes no chosen id: {image_id}")

    def effect(self, operation: Operation, _: Headers, body: bytes) -> BodyEffect | None:
        """Read the effect of a PUT of an image."""
        if operation.name != "image-update":
            return None
        image = _image_of(body)
        changes_owner = "owner" in image
        if "id" in image and str(image["id"]) != operation.image_id:
            deed = "change the id of an image"
            return BodyEffect(deed, is_for_nobody=True, changes_owner=changes_owner)
        effect = _effect(image)
        if effect is None and not changes_owner:
            return None
        return BodyEffect(
            effect.deed if effect else "change the owner of an image",
            is_for_nobody=effect is not None and effect.is_for_nobody,
            changes_owner=changes_owner,
        )

    def image_facts(self, _: Headers, body: bytes) -> ImageFacts:
        """Read the members of one image that the rule looks at."""
        return read_image(body)

    def particulars(self, _: Headers, body: bytes) -> dict[str, object]:
        """Return what else keeps an image out of lists, and whether it can be used."""
        image = decoded_value(shallow_object(body)["image"])
        return {name: image.get(name) for name in ("status", "deleted")}

    def is_image_id(self, text: str) -> bool:
        """Tell whether this is a number as the registry writes it."""
        return _ID.fullmatch(text) is not None

    def is_recordable_id(self, text: str) -> bool:
        """Tell whether this is a number as the registry writes it."""
        return self.is_image_id(text)

    def absent_image(self, image_id: str) -> str:
        """Return the registry's own sentence, which names none."""
        del image_id
        return "The resource could not be found."


def _image_of(body: bytes) -> dict[str, Any]:
    image = request_document(body, dict).get("image")
    if not isinstance(image, dict):
        raise BadRequestError("The JSON of the request has no 'image' that is an object.")
    return image


def _stripped(body: bytes) -> bytes:
    """Take the reserved properties out; every other member keeps its bytes."""
    document = shallow_object(body)
    image = shallow_object(bytes(document["image"]))
    properties = shallow_object(bytes(image["properties"]))
    kept = {name: raw for name, raw in properties.items() if name not in _RESERVED}
    image["properties"] = Raw(render_object(kept))
    return render_object({**document, "image": Raw(render_object(image))})


def _effect(image: dict[str, Any]) -> BodyEffect | None:
    unknown = sorted(image.keys() - _ATTRIBUTES)
    if unknown:
        return BodyEffect(f"set '{unknown[0]}' of an image", is_for_nobody=True)
    if image.get("is_public"):
        return BodyEffect("publish an image")
    if image.get("location") is not None:
        return BodyEffect("set the location of an image")
    return None
