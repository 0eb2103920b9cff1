"""Glance's image API v1: what it says in headers, and how its lists are read and written.

Sources, all of Glance 15 (pike-eol): glance/api/v1/images.py, glance/registry/api/v1/images.py,
glance/common/utils.py. What differs from v2 is in docs/dialects.md.
"""

from __future__ import annotations

import re
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import quote

from relproxy.errors import RegistryGarbageError
from relproxy.filters.base import (
    UNKNOWN,
    BodyEffect,
    CreateBody,
    Operation,
    Page,
    Row,
    created_from,
    is_canonical_uuid,
    is_image_id,
)
from relproxy.filters.capture import BodyMetadata
from relproxy.filters.glance_pipeline import (
    as_sent,
    error_page,
    is_preflight,
    neutral_headers,
    refuse_overridden_method,
    render_versions,
    versioned,
)
from relproxy.filters.glance_v1_meta import ImageMeta, facts_in, is_true, read_meta, text
from relproxy.filters.glance_v1_page import (
    read_image,
    read_listed_metadata,
    read_page,
    read_shared_ids,
    with_private,
    write_page,
)
from relproxy.filters.glance_v1_table import TABLE
from relproxy.filters.query import ListQuery
from relproxy.filters.route_table import matching_rows, row_operation
from relproxy.filters.target import Target, canonical_path
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Headers
from relproxy.model import Access, CreatedImage, Treatment

_VERSION = re.compile(r"v1(\.[01])?")
_OTHER_VERSION = re.compile(r"v2(\.[0-9]+)?")

_INSTALLATION = "nova_installation_uuid"
_INSTANCE = "instance_id"
_STRIPPED = tuple(f"x-image-meta-property-{name}" for name in (_INSTALLATION, _INSTANCE))
_COPY_FROM = "x-glance-api-copy-from"
# Fields by which an image's data would be somebody else's, or whatever the registry can reach.
_ELSEWHERE = ("location", "copy_from", "uri")
_LONGEST_NAME = 255


class GlanceV1:
    """The dialect `glance-v1`; see `relproxy.filters.base.Dialect` for each method."""

    name = "glance-v1"
    probe_target = "/versions"
    guarded_target = "/v1/images?limit=1"
    # A GET would bring the image's data.
    image_method = "HEAD"
    makes_images_in_steps = True
    created_status = 201
    takes_chosen_ids = True
    selects_by_id = False
    links_next_page = False
    # An admin who asks for private images too is shown all.
    list_parts: tuple[str, ...] = ("None",)

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

    def created_image(self, body: bytes) -> CreatedImage:
        """Read the image that the answer to a create or an update shows."""
        return created_from(read_image(body))

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

    def image_path(self, image_id: str) -> str:
        """Return the path of one image."""
        return canonical_path(("v1", "images", image_id))

    def named_images_target(self, name: str, marker: str | None = None) -> str:
        """Ask by name, as an admin who wants private images too."""
        further = "" if marker is None else f"&marker={quote(marker, safe='')}"
        return f"/v1/images/detail?name={quote(name, safe='')}&is_public=None{further}"

    def part_target(self, part: str, *, limit: int, marker: str | None) -> str:
        """Sort by when images were created, by which they keep their places."""
        query = f"is_public={part}&sort_key=created_at&sort_dir=asc&limit={limit}"
        behind = "" if marker is None else f"&marker={quote(marker, safe='')}"
        return f"/v1/images/detail?{query}{behind}"

    def listed_metadata(self, raw: bytes) -> BodyMetadata:
        """Read the properties that name an instance."""
        return read_listed_metadata(raw)

    def shares_target(self, project: str) -> str | None:
        """Return the target of the memberships that the very caller may see."""
        return canonical_path(("v1", "shared-images", project))

    def shared_ids(self, body: bytes) -> frozenset[str]:
        """Read the memberships of a project."""
        return read_shared_ids(body)

    def list_path(self, _: Operation) -> str:
        """Return the path of the list in detail: the short one doesn't say whose an image is."""
        return "/v1/images/detail"

    def unnarrowed(self, query: ListQuery) -> ListQuery:
        """Ask for private images too, which an admin isn't shown unasked."""
        return with_private(query)

    def page(self, body: bytes, operation: str = "image-list") -> Page:
        """Read a list in detail, its images in short where the client asks for those."""
        return read_page(body, in_short=operation == "image-index")

    def render_page(
        self, _: Page, rows: tuple[Row, ...], *, query: ListQuery, next_marker: str | None
    ) -> bytes:
        """Write a list; this API has no links, whatever follows."""
        del query, next_marker
        return write_page(rows)

    def is_unknown_marker(self, status: int, body: bytes) -> bool:
        """Glance answers alike for a marker that doesn't exist, is foreign, or is no UUID."""
        return status == HTTPStatus.BAD_REQUEST and b"invalid marker" in body.lower()

    def render_versions(self, body: bytes, prefix: str, host: str | None = None) -> bytes:
        """Put `prefix` before the path of every absolute `href`, on `host` if that is given."""
        return render_versions(body, prefix, host)

    def absent_image(self, image_id: str) -> str:
        """Return Glance's own sentence (glance/api/v1/controller.py)."""
        return f"Image with identifier {image_id} not found"

    def refusal(self, status: int, sentence: str, accept: str) -> tuple[str, bytes]:
        """Render an error as Glance does."""
        return error_page(status, sentence, accept)


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
