"""What a dialect has to know: one image API, its paths, its bodies and its errors.

`proxy.py` sees only this; a new image API is a new file beside `glance_v2.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from relproxy.errors import RegistryGarbageError
from relproxy.filters.capture import BodyMetadata
from relproxy.filters.query import ListQuery
from relproxy.filters.target import Target
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Headers
from relproxy.model import Access, CreatedImage, Treatment

# The name of an operation for which a dialect's table has no row.
UNKNOWN = "other"

_IMAGE_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_image_id(text: str) -> bool:
    """Tell whether a registry may have this id; anything else could be another path."""
    return _IMAGE_ID.fullmatch(text) is not None


def is_canonical_uuid(text: str) -> bool:
    """Tell whether an id is a UUID in the one spelling in which it is recorded."""
    return _CANONICAL_UUID.fullmatch(text) is not None


def check_named(found: str | None, asked: str | None) -> None:
    """Raise `RegistryGarbageError` if an answer is about another image than the one asked for.

    `asked` is None where the registry was to choose the id.
    """
    if asked is not None and (found or "").lower() != asked.lower():
        raise RegistryGarbageError("The registry answered with another image.")


def created_from(facts: ImageFacts) -> CreatedImage:
    """Return the image that an answer is about.

    Raises `RegistryGarbageError` if it doesn't say which, or when it was created.
    """
    if facts.id is None or facts.created_at is None:
        raise RegistryGarbageError("The registry's answer names no image.")
    return CreatedImage(facts.id, facts.created_at, facts.owner)


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of a dialect's table, matched by a request.

    `path` is the canonical path that the registry gets. `has_effect` says that the row's access
    depends on what the request does too, and `is_said_in_headers` that its headers say that: its
    body is data then, and streams. `moves_data` says that an image's data goes over this very
    request. `allowed` names the methods of the path where the request's own isn't one of them.
    """

    name: str
    treatment: Treatment
    access: Access
    path: str
    image_id: str | None = None
    has_effect: bool = False
    is_said_in_headers: bool = False
    moves_data: bool = False
    is_version_document: bool = False
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BodyEffect:
    """What a request does that not everyone may: `deed` completes the sentence "You may not …".

    An admin may, unless `is_for_nobody`. `changes_owner` says that a record has to follow.
    """

    deed: str
    is_for_nobody: bool = False
    changes_owner: bool = False


@dataclass(frozen=True, slots=True)
class CreateBody:
    """What a create says, as far as relproxy needs it.

    `headers` and `stripped` are its headers and its body without the reserved properties: the very
    fields and bytes that came in where they had none. `has_id` says that it names an id in any way,
    be it null; `name` is what it calls the image, None where no image can be called so; `effect` is
    what not everyone may do, or None.
    """

    metadata: BodyMetadata
    headers: Headers
    stripped: bytes
    chosen_id: str | None
    has_id: bool
    name: str | None
    owner: str | None
    effect: BodyEffect | None


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a page: what the rule looks at, and its bytes as they came."""

    facts: ImageFacts
    raw: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """One list response; `next_marker` is None on the last page, `envelope` the dialect's own."""

    rows: tuple[Row, ...]
    next_marker: str | None
    envelope: object


class Dialect(Protocol):
    """One image API. Every method is pure.

    `probe_target` needs no credentials and shows that a registry is there; `guarded_target` shows
    images, and a registry that knows its callers refuses it without credentials. `image_method` is
    that of the question for one image without its data. `created_status` is that of a create that
    was done, `makes_images_in_steps` says that one may be refused although its image was made, and
    `takes_chosen_ids` that relproxy can choose an id for it. `selects_by_id` says that a list can
    be asked for certain ids; `links_next_page` that a page says whether another one follows: where
    none does, clients go on behind the last image until a page is empty. `list_parts` name
    the lists that together hold every image there is.
    """

    name: str
    probe_target: str
    guarded_target: str
    image_method: str
    makes_images_in_steps: bool
    created_status: int
    takes_chosen_ids: bool
    selects_by_id: bool
    links_next_page: bool
    list_parts: tuple[str, ...]

    def operation(self, method: str, target: Target, headers: Headers) -> Operation:
        """Classify a request; one that isn't known is treated as the table's last row says."""
        ...

    def neutral_headers(self, headers: Headers) -> Headers:
        """Return the headers without anything that would make another operation of the path."""
        ...

    def read_create(self, headers: Headers, body: bytes) -> CreateBody:
        """Read a create; no body of one that is said in headers.

        Raises `BadRequestError` if it is malformed.
        """
        ...

    def with_image_id(self, said: CreateBody, image_id: str) -> CreateBody:
        """Return a create with an id that relproxy has chosen; it named none."""
        ...

    def effect(self, operation: Operation, headers: Headers, body: bytes) -> BodyEffect | None:
        """Say what not everyone may do with this request; None if there is nothing.

        Raises `BadRequestError` if it is malformed.
        """
        ...

    def created_image(self, body: bytes) -> CreatedImage:
        """Read a create's 201. Raises `RegistryGarbageError` if it names no image."""
        ...

    def image_facts(self, headers: Headers, body: bytes) -> ImageFacts:
        """Read the answer about one image. Raises `RegistryGarbageError` if it is no image."""
        ...

    def particulars(self, headers: Headers, body: bytes) -> Mapping[str, object]:
        """Return what only a person wants to know of one image that `image_facts` could read."""
        ...

    def is_image_id(self, text: str) -> bool:
        """Tell whether an image may have this id; else the registry might take it for another."""
        ...

    def is_recordable_id(self, text: str) -> bool:
        """Tell whether a chosen id is one under which an image is recorded before it is made."""
        ...

    def image_path(self, image_id: str) -> str:
        """Return the path of one image."""
        ...

    def named_images_target(self, name: str, marker: str | None = None) -> str:
        """Return the target of a list of the images of one name, of every visibility."""
        ...

    def shares_target(self, project: str) -> str | None:
        """Return the target that names the images shared with a project.

        None where each image of a list says itself whether it is shared; else those that aren't
        public are read as private.
        """
        ...

    def shared_ids(self, body: bytes) -> frozenset[str]:
        """Read the answer to that. Raises `RegistryGarbageError` if it is none."""
        ...

    def list_path(self, operation: Operation) -> str:
        """Return the path of the list that says of each image whose it is."""
        ...

    def unnarrowed(self, query: ListQuery) -> ListQuery:
        """Return the query by which a registry lists to its admin all that a project may see."""
        ...

    def part_target(self, part: str, *, limit: int, marker: str | None) -> str:
        """Return the target of a page of one of `list_parts`, the oldest images first.

        What is created meanwhile is then at the end, and none is passed over.
        """
        ...

    def listed_metadata(self, raw: bytes) -> BodyMetadata:
        """Return what the properties of a listed image say of its instance."""
        ...

    def page(self, body: bytes, operation: str = "image-list") -> Page:
        """Read a list response, its rows as the operation shows them.

        Raises `RegistryGarbageError` if it can't be proven understood. `next_marker` is behind the
        last row where the page doesn't say that nothing follows.
        """
        ...

    def render_page(
        self, page: Page, rows: tuple[Row, ...], *, query: ListQuery, next_marker: str | None
    ) -> bytes:
        """Write a list response with `rows`, the envelope of `page`, and links for the client."""
        ...

    def is_unknown_marker(self, status: int, body: bytes) -> bool:
        """Tell whether an error answer to a list says that there is no image with the marker."""
        ...

    def render_versions(self, body: bytes, prefix: str, host: str | None = None) -> bytes:
        """Put `prefix` before the paths of a version document's links, and these on `host`."""
        ...

    def absent_image(self, image_id: str) -> str:
        """Return the registry's own sentence for an image that doesn't exist."""
        ...

    def refusal(self, status: int, sentence: str, accept: str) -> tuple[str, bytes]:
        """Render an error in the registry's own style: its content type and its body."""
        ...
