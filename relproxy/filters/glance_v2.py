"""Glance's image API v2: what it says, and how its bodies are read and written.

Sources: glance/api/v2/images.py (`index`, `RequestDeserializer`, `ResponseSerializer`) and
glance/api/middleware/version_negotiation.py of Glance 33.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec

from relproxy.errors import BadRequestError, RegistryGarbageError
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
from relproxy.filters.glance_v2_page import read_facts, read_page, write_page
from relproxy.filters.glance_v2_table import TABLE
from relproxy.filters.json_edit import (
    decoded_value,
    render_object,
    request_document,
    shallow_object,
)
from relproxy.filters.query import ListQuery
from relproxy.filters.route_table import matching_rows, row_operation
from relproxy.filters.target import Target, canonical_path
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Headers
from relproxy.model import Access, CreatedImage, Treatment

_VERSION = re.compile(r"v2(\.[0-9]+)?")

_INSTALLATION = "nova_installation_uuid"
_INSTANCE = "instance_id"
_RESERVED = frozenset({_INSTALLATION, _INSTANCE})

# Attributes with which a project would publish an image, or fill it from elsewhere.
_ADMIN_ATTRIBUTES = frozenset({"visibility", "locations", "owner"})
# Glance sets any attribute that its image object has, not only those of its schema
# (glance/api/v2/images.py, _do_replace): with `image_id` a PATCH of one image overwrites another.
# A test walks the real object's attributes.
_NOBODYS_ATTRIBUTES = frozenset(
    {"base", "context", "deactivate", "delete", "extra_properties", "get_data", "get_payload",
     "get_super_class", "helper", "image_id", "member", "notifier", "reactivate", "repo",
     "send_notification", "set_data"}
)  # fmt: skip
# Characters of an image's name; Glance refuses a longer one (glance/api/v2/images.py, "name").
_LONGEST_NAME = 255
_PRIVATE = (None, "private", "shared")
_OWN_IMPORT_METHOD = "glance-direct"


class GlanceV2:
    """The dialect `glance-v2`; see `relproxy.filters.base.Dialect` for each method."""

    name = "glance-v2"
    probe_target = "/versions"
    guarded_target = "/v2/images?limit=1"
    image_method = "GET"
    makes_images_in_steps = False
    created_status = 201
    takes_chosen_ids = True
    selects_by_id = True
    links_next_page = True
    # An admin is shown all but the hidden ones, or these alone (glance/api/v2/images.py, index).
    list_parts: tuple[str, ...] = ("false", "true")

    def operation(self, method: str, target: Target, headers: Headers) -> Operation:
        """Classify a request on its canonical path.

        Raises `BadRequestError` where the query would make Glance take another method.
        """
        refuse_overridden_method(target.query)
        segments = versioned(target.segments, headers, _VERSION, "v2")
        # Glance redirects /v2 to /v2/, and has nothing there: the two must not become one.
        is_redirected = segments == ("v2",) and target.has_trailing_slash
        rows = () if is_redirected else matching_rows(TABLE, segments)
        path = canonical_path(as_sent(target.segments, segments))
        for row in rows:
            if row.method == method:
                return row_operation(row, segments, path)
        if rows and is_preflight(method, headers):
            return Operation("preflight", Treatment.PASS, Access.ANYONE, path)
        allowed = tuple(row.method for row in rows)
        return Operation(UNKNOWN, Treatment.PASS, Access.REFUSED, path, allowed=allowed)

    def neutral_headers(self, headers: Headers) -> Headers:
        """Take out what makes Glance see another version or another method."""
        return neutral_headers(headers, body_type="application/json")

    def read_create(self, headers: Headers, body: bytes) -> CreateBody:
        """Read the JSON of `POST /v2/images`."""
        document = request_document(body, dict)
        metadata = BodyMetadata(
            document.get(_INSTALLATION), document.get(_INSTANCE), document.get("instance_uuid")
        )
        chosen_id, owner, name = (document.get(key) for key in ("id", "owner", "name"))
        return CreateBody(
            metadata=metadata,
            headers=headers,
            stripped=_stripped(body, document),
            chosen_id=chosen_id if chosen_id is None else str(chosen_id),
            has_id="id" in document,
            name=name if isinstance(name, str) and len(name) <= _LONGEST_NAME else None,
            owner=owner if owner is None else str(owner),
            effect=_create_effect(document),
        )

    def with_image_id(self, said: CreateBody, image_id: str) -> CreateBody:
        """Put `id` before the other members, which keep their bytes."""
        members = {"id": msgspec.json.encode(image_id), **shallow_object(said.stripped)}
        return replace(said, stripped=render_object(members))

    def effect(self, operation: Operation, _: Headers, body: bytes) -> BodyEffect | None:
        """Read the effect of a PATCH of an image, or of an import."""
        if operation.name == "image-update":
            return _update_effect(request_document(body, list))
        if operation.name == "image-import":
            return _import_effect(request_document(body, dict))
        return None

    def created_image(self, body: bytes) -> CreatedImage:
        """Read the image that a 201 shows."""
        return created_from(_image_in(body))

    def image_facts(self, _: Headers, body: bytes) -> ImageFacts:
        """Read the members of one image that the rule looks at."""
        return _image_in(body)

    def particulars(self, _: Headers, body: bytes) -> dict[str, object]:
        """Return what else keeps an image out of lists, and whether it can be used."""
        document = decoded_value(body)
        return {name: document.get(name) for name in ("status", "os_hidden")}

    def is_image_id(self, text: str) -> bool:
        """Tell whether an image may have this id."""
        return is_image_id(text)

    def is_recordable_id(self, text: str) -> bool:
        """Tell whether this is a UUID in lower case: MariaDB compares without case."""
        return is_canonical_uuid(text)

    def image_path(self, image_id: str) -> str:
        """Return the path of one image."""
        return canonical_path(("v2", "images", image_id))

    def named_images_target(self, name: str, marker: str | None = None) -> str:
        """Ask by name, in the quotes that keep Glance from reading an operator in it."""
        quoted = quote(f'in:"{name}"', safe="")
        further = "" if marker is None else f"&marker={quote(marker, safe='')}"
        return f"{canonical_path(('v2', 'images'))}?name={quoted}&visibility=all{further}"

    def shares_target(self, _: str) -> str | None:
        """Return none: an image's visibility says it."""
        return None

    def shared_ids(self, _: bytes) -> frozenset[str]:
        """Read no such answer."""
        raise RegistryGarbageError("This registry isn't asked what is shared.")

    def list_path(self, operation: Operation) -> str:
        """Return the list's own path: every list says all of each image."""
        return operation.path

    def unnarrowed(self, query: ListQuery) -> ListQuery:
        """Return the query as it is: it lists what its filters say, to an admin."""
        return query

    def part_target(self, part: str, *, limit: int, marker: str | None) -> str:
        """Sort by when images were created, by which they keep their places."""
        query = f"visibility=all&os_hidden={part}&sort=created_at:asc&limit={limit}"
        behind = "" if marker is None else f"&marker={quote(marker, safe='')}"
        return f"{canonical_path(('v2', 'images'))}?{query}{behind}"

    def listed_metadata(self, raw: bytes) -> BodyMetadata:
        """Read the two properties of the tuple, and the one that an unmodified Nova sends."""
        members = shallow_object(raw)
        names = (_INSTALLATION, _INSTANCE, "instance_uuid")
        return BodyMetadata(*(decoded_value(members[n]) if n in members else None for n in names))

    def page(self, body: bytes, _: str = "image-list") -> Page:
        """Read a list response, each image as its own bytes."""
        return read_page(body)

    def render_page(
        self, page: Page, rows: tuple[Row, ...], *, query: ListQuery, next_marker: str | None
    ) -> bytes:
        """Write the envelope again, with these images and the client's query in its links."""
        return write_page(page, rows, query=query, next_marker=next_marker)

    def is_unknown_marker(self, status: int, body: bytes) -> bool:
        """Glance answers 400 for a marker that doesn't exist and 403 for one that is foreign."""
        return status == HTTPStatus.FORBIDDEN or (
            status == HTTPStatus.BAD_REQUEST and b"No image found with ID" in body
        )

    def render_versions(self, body: bytes, prefix: str, host: str | None = None) -> bytes:
        """Put `prefix` before the path of every absolute `href`, on `host` if that is given."""
        return render_versions(body, prefix, host)

    def absent_image(self, image_id: str) -> str:
        """Return Glance's own sentence (glance/db/__init__.py, ImageRepo.get)."""
        return f"No image found with ID {image_id}"

    def refusal(self, status: int, sentence: str, accept: str) -> tuple[str, bytes]:
        """Render an error as Glance does."""
        return error_page(status, sentence, accept)


def _image_in(body: bytes) -> ImageFacts:
    facts = read_facts(body)
    if facts.id is None:
        raise RegistryGarbageError("The registry's answer is not an image.")
    return facts


def _stripped(body: bytes, document: dict[str, Any]) -> bytes:
    if _RESERVED.isdisjoint(document):
        return body
    members = shallow_object(body)
    return render_object({k: v for k, v in members.items() if k not in _RESERVED})


def _create_effect(document: dict[str, Any]) -> BodyEffect | None:
    if document.get("visibility") not in _PRIVATE:
        return BodyEffect("publish an image")
    if "locations" in document:
        return BodyEffect("set the locations of an image")
    return None


def _update_effect(changes: list[Any]) -> BodyEffect | None:
    touched = {attribute for change in changes for attribute in _touched(change)}
    changes_owner = "owner" in touched
    for attribute in sorted(touched):
        if attribute in _NOBODYS_ATTRIBUTES or attribute.startswith("_"):
            deed = f"change '{attribute}' of an image"
            return BodyEffect(deed, is_for_nobody=True, changes_owner=changes_owner)
    admin_only = sorted(touched & _ADMIN_ATTRIBUTES)
    if not admin_only:
        return None
    return BodyEffect(f"change the {admin_only[0]} of an image", changes_owner=changes_owner)


def _touched(change: object) -> Iterator[str]:
    """Yield every attribute that a change may touch, by either JSON patch media type's reading."""
    if not isinstance(change, dict):
        raise BadRequestError("Operations must be JSON objects.")
    for key in ("path", "add", "remove", "replace"):
        pointer = change.get(key)
        if isinstance(pointer, str):
            root = pointer.lstrip("/").split("/")[0]
            yield root.replace("~1", "/").replace("~0", "~").strip()


def _import_effect(document: dict[str, Any]) -> BodyEffect | None:
    method = document.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    if name == _OWN_IMPORT_METHOD:
        return None
    return BodyEffect(f"import by any method but '{_OWN_IMPORT_METHOD}'")
