"""One page of a list of Glance's image API v1, or of the registry that was behind it.

The list in short (`/images`) doesn't say whose an image is. So the registry is always asked for the
list in detail, which knows the same filters and has the same order, and of each image the members
of the short one are shown (glance/registry/api/v1/images.py, DISPLAY_FIELDS_IN_INDEX, of Glance
15). Either way an image's members keep their bytes, and in detail the image does.
"""

from __future__ import annotations

import msgspec

from relproxy.errors import RegistryGarbageError
from relproxy.filters.base import Page, Row
from relproxy.filters.capture import BodyMetadata
from relproxy.filters.json_edit import (
    NotJSONError,
    Raw,
    decoded_value,
    document_without_repeats,
    render_object,
    shallow_object,
)
from relproxy.filters.query import ListQuery
from relproxy.filters.visibility import ImageFacts

_IN_SHORT = ("id", "name", "size", "disk_format", "container_format", "checksum")


class _ListedImage(msgspec.Struct):
    """The members of an image that the rule looks at."""

    id: str | int
    is_public: bool
    created_at: str
    owner: str | None = None


class _Membership(msgspec.Struct):
    """One image that is shared with a project."""

    image_id: str | int


class _Memberships(msgspec.Struct):
    shared_images: list[_Membership]


_LISTED_IMAGE = msgspec.json.Decoder(_ListedImage)
_MEMBERSHIPS = msgspec.json.Decoder(_Memberships)
_ROWS = msgspec.json.Decoder(list[Raw])
_HIDDEN = ImageFacts(None, None, None, None)


def read_page(body: bytes, *, in_short: bool) -> Page:
    """Read a list in detail, each image as its own bytes, or those of its short form.

    Raises `RegistryGarbageError`. There is no link: what follows the last image may be nothing.
    """
    try:
        # What stays raw is not decoded below, and a lenient reader may find a quote in it.
        body.decode("utf-8", "strict")
        raws = [bytes(raw) for raw in _ROWS.decode(shallow_object(body)["images"])]
    except (NotJSONError, KeyError, ValueError, RecursionError) as failure:
        raise RegistryGarbageError("The registry's answer is not an image list.") from failure
    facts = [read_facts(raw) for raw in raws]
    if facts and facts[-1].id is None:
        # A short list ends so, too: it doesn't say whose its images are.
        raise RegistryGarbageError("The registry's list ends with an image that says too little.")
    rows = tuple(
        Row(fact, _shortened(raw) if in_short and fact.id is not None else raw)
        for fact, raw in zip(facts, raws, strict=True)
    )
    return Page(rows, rows[-1].facts.id if rows else None, None)


def with_private(query: ListQuery) -> ListQuery:
    """Ask for private images too, unless the client says which it wants.

    Left out, an admin gets what is public (glance/registry/api/v1/images.py, _get_is_public); and
    an admin is what everyone is to a registry without customers.
    """
    if query.filter("is_public") is not None:
        return query
    return query.within("is_public", "None")


def write_page(rows: tuple[Row, ...]) -> bytes:
    """Write a list; what else the registry said beside it may count, or name, what is hidden."""
    return b'{"images": [' + b", ".join(row.raw for row in rows) + b"]}"


def read_facts(raw: bytes) -> ImageFacts:
    """Read what the rule looks at of an image; one that two may read differently is hidden.

    What isn't public is private, as far as the image itself says.
    """
    try:
        image = _LISTED_IMAGE.decode(raw)
        document_without_repeats(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _HIDDEN
    visibility = "public" if image.is_public else "private"
    return ImageFacts(str(image.id), image.owner, visibility, image.created_at)


def read_listed_metadata(raw: bytes) -> BodyMetadata:
    """Read what the properties of an image say of its instance; raises `RegistryGarbageError`."""
    properties = decoded_value(raw).get("properties")
    if not isinstance(properties, dict):
        return BodyMetadata()
    names = ("nova_installation_uuid", "instance_id", "instance_uuid")
    return BodyMetadata(*(properties.get(name) for name in names))


def read_image(body: bytes) -> ImageFacts:
    """Read the image that the answer to a create or an update shows.

    Raises `RegistryGarbageError` if it shows none.
    """
    try:
        body.decode("utf-8", "strict")
        document_without_repeats(body)
        facts = read_facts(bytes(shallow_object(body)["image"]))
    except (NotJSONError, KeyError, ValueError, RecursionError) as failure:
        raise RegistryGarbageError("The registry's answer is not an image.") from failure
    if facts.id is None:
        raise RegistryGarbageError("The registry's answer is not an image.")
    return facts


def read_shared_ids(body: bytes) -> frozenset[str]:
    """Read which images are shared with a project; raises `RegistryGarbageError`."""
    try:
        document_without_repeats(body)
        return frozenset(str(m.image_id) for m in _MEMBERSHIPS.decode(body).shared_images)
    except (msgspec.DecodeError, ValueError, RecursionError) as failure:
        raise RegistryGarbageError("The registry failed to say what is shared.") from failure


def _shortened(raw: bytes) -> bytes:
    members = shallow_object(raw)
    return render_object({name: members[name] for name in members if name in _IN_SHORT})
