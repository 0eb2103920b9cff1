"""Glance's image API v1: what it says in headers, and how its lists are read and written.

Sources, all of Glance 15 (pike-eol): glance/api/v1/images.py, glance/registry/api/v1/images.py,
glance/common/utils.py. What differs from v2 is in docs/dialects.md.
"""

from __future__ import annotations

import re
from dataclasses import replace

from relproxy.errors import RegistryGarbageError
from relproxy.filters.base import (
    UNKNOWN,
    BodyEffect,
    CreateBody,
    Operation,
    is_canonical_uuid,
    is_image_id,
)
from relproxy.filters.capture import BodyMetadata
from relproxy.filters.glance_pipeline import (
    as_sent,
    is_preflight,
    neutral_headers,
    refuse_overridden_method,
    versioned,
)
from relproxy.filters.glance_v1_lists import GlanceV1Lists
from relproxy.filters.glance_v1_meta import ImageMeta, facts_in, is_true, read_meta, text
from relproxy.filters.glance_v1_table import TABLE
from relproxy.filters.route_table import matching_rows, row_operation
from relproxy.filters.target import Target, canonical_path
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Headers
from relproxy.model import Access, Treatment

_VERSION = re.compile(r"v1(\.[01])?")
_OTHER_VERSION = re.compile(r"v2(\.[0-9]+)?")

_INSTALLATION = "nova_installation_uuid"
_INSTANCE = "instance_id"
_STRIPPED = tuple(f"x-image-meta-property-{name}" for name in (_INSTALLATION, _INSTANCE))
_COPY_FROM = "x-glance-api-copy-from"
# Fields by which an image's data would be somebody else's, or whatever the registry can reach.
_ELSEWHERE = ("location", "copy_from", "uri")
_LONGEST_NAME = 255


class GlanceV1(GlanceV1Lists):
    """The dialect `glance-v1`; see `relproxy.filters.base.Dialect` for each method."""

    name = "glance-v1"
    probe_target = "/versions"
    guarded_target = "/v1/images?limit=1"
    # A GET would bring the image's data.
    image_method = "HEAD"
    makes_images_in_steps = True
    created_status = 201
    takes_chosen_ids = True
    _root = ("v1",)

    def operation(self, method: str, target: Target, headers: Headers) -> Operation:
        """Classify a request on its canonical path.

        Raises `BadRequestError` where the query would make Glance take another method.
        """
        refuse_overridden_method(target.query)
        segments = versioned(target.segments, headers, _VERSION, "v1")
        path = canonical_path(as_sent(target.segments, segments))
        if versioned(target.segments, headers, _OTHER_VERSION, "v2")[:1] == ("v2",):
            # The same images by another API, none of whose answers would be filtered.
            return Operation(UNKNOWN, Treatment.REFUSE, Access.REFUSED, path)
        found = matching_rows(TABLE, segments)
        for row in found:
            if row.method == method:
                operation = row_operation(row, segments, path)
                moves_data = row.moves_data and (method == "GET" or _has_body(headers))
                return replace(operation, moves_data=moves_data)
        if segments == ("v1",) or segments[:2] == ("v1", "shared-images"):
            # These routes have no condition: the registry answers every method of them alike,
            # also what looks like a preflight.
            return Operation(UNKNOWN, Treatment.REFUSE, Access.REFUSED, path, allowed=("GET",))
        if found and is_preflight(method, headers):
            return Operation("preflight", Treatment.PASS, Access.ANYONE, path)
        allowed = tuple(row.method for row in found)
        return Operation(UNKNOWN, Treatment.PASS, Access.REFUSED, path, allowed=allowed)

    def neutral_headers(self, headers: Headers) -> Headers:
        """Take out what makes Glance see another version or another method."""
        return neutral_headers(headers, body_type="application/octet-stream")

    def read_create(self, headers: Headers, _: bytes) -> CreateBody:
        """Read the headers of `POST /v1/images`."""
        meta = read_meta(headers)
        kept = headers.without(_STRIPPED)
        chosen_id, name = meta.fields.get("id"), text(meta.fields.get("name"))
        if "id" in meta.fields and chosen_id is None:
            # Empty, it chooses none; and the id that relproxy chooses would be a second one.
            kept = kept.without(("x-image-meta-id",))
        return CreateBody(
            metadata=BodyMetadata(
                meta.properties.get(_INSTALLATION),
                meta.properties.get(_INSTANCE),
                meta.properties.get("instance_uuid"),
            ),
            headers=kept,
            stripped=b"",
            chosen_id=chosen_id,
            has_id=chosen_id is not None,
            name=name if name is not None and len(name) <= _LONGEST_NAME else None,
            owner=meta.fields.get("owner"),
            effect=_effect(meta, headers),
        )

    def with_image_id(self, said: CreateBody, image_id: str) -> CreateBody:
        """Add the field that names the id."""
        return replace(said, headers=said.headers.with_added(("x-image-meta-id", image_id)))

    def effect(self, operation: Operation, headers: Headers, _: bytes) -> BodyEffect | None:
        """Read the effect of a PUT of an image."""
        if operation.name != "image-update":
            return None
        meta = read_meta(headers)
        changes_owner = "owner" in meta.fields
        named = meta.fields.get("id")
        if named is not None and named.lower() != (operation.image_id or "").lower():
            deed = "change the id of an image"
            return BodyEffect(deed, is_for_nobody=True, changes_owner=changes_owner)
        if changes_owner:
            return BodyEffect("change the owner of an image", changes_owner=True)
        return _effect(meta, headers)

    def image_facts(self, headers: Headers, _: bytes) -> ImageFacts:
        """Read the fields of one image that the rule looks at."""
        facts = facts_in(headers)
        if facts.id is None:
            raise RegistryGarbageError("The registry's answer is not an image.")
        return facts

    def particulars(self, headers: Headers, _: bytes) -> dict[str, object]:
        """Return what else keeps an image out of lists, and whether it can be used."""
        fields = read_meta(headers).fields
        return {name: fields.get(name) for name in ("status", "deleted")}

    def is_image_id(self, text: str) -> bool:
        """Tell whether an image may have this id."""
        return is_image_id(text)

    def is_recordable_id(self, text: str) -> bool:
        """Tell whether this is a UUID in lower case: MariaDB compares without case."""
        return is_canonical_uuid(text)

    def absent_image(self, image_id: str) -> str:
        """Return Glance's own sentence (glance/api/v1/controller.py)."""
        return f"Image with identifier {image_id} not found"


def _effect(meta: ImageMeta, headers: Headers) -> BodyEffect | None:
    if is_true(meta.fields.get("is_public")):
        return BodyEffect("publish an image")
    if not meta.fields.keys().isdisjoint(_ELSEWHERE):
        return BodyEffect("set the location of an image")
    if headers.values(_COPY_FROM):
        return BodyEffect("copy an image from elsewhere")
    return None


def _has_body(headers: Headers) -> bool:
    length = headers.first("Content-Length")
    return bool(headers.values("Transfer-Encoding")) or length not in {None, "0"}
