"""One page of a list of Glance's image API v2: how it is read, and written again.

Source: glance/api/v2/images.py (`ResponseSerializer.index`) of Glance 33. Each image keeps its
bytes (docs/decisions/0002-two-stage-rewriting.md).
"""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import msgspec

from relproxy.errors import RegistryGarbageError
from relproxy.filters.base import Page, Row
from relproxy.filters.json_edit import (
    NotJSONError,
    Raw,
    decoded_value,
    document_without_repeats,
    render_object,
    shallow_object,
)
from relproxy.filters.query import ListQuery, shown_query
from relproxy.filters.visibility import ImageFacts

_IMAGES = "/v2/images"

# What else there is may count, or name, what is hidden.
_SHOWN = ("images", "first", "next", "schema")


class _ListedImage(msgspec.Struct):
    """The members of an image that the rule looks at."""

    id: str
    visibility: str
    created_at: str
    owner: str | None = None


_LISTED_IMAGE = msgspec.json.Decoder(_ListedImage)
_ROWS = msgspec.json.Decoder(list[Raw])
_HIDDEN = ImageFacts(None, None, None, None)


def read_page(body: bytes) -> Page:
    """Read a list response, each image as its own bytes; raises `RegistryGarbageError`."""
    try:
        # What stays raw is not decoded below, and a lenient reader may find a quote in it.
        body.decode("utf-8", "strict")
        envelope = shallow_object(body)
        raws = _ROWS.decode(envelope["images"])
        following = decoded_value(envelope["next"]) if "next" in envelope else None
    except (NotJSONError, KeyError, ValueError, RecursionError) as failure:
        raise RegistryGarbageError("The registry's answer is not an image list.") from failure
    rows = tuple(Row(read_facts(bytes(raw)), bytes(raw)) for raw in raws)
    return Page(rows, _marker_in(following), envelope)


def write_page(
    page: Page, rows: tuple[Row, ...], *, query: ListQuery, next_marker: str | None
) -> bytes:
    """Write the envelope again, with these images and the client's query in its links.

    The links stay relative to the endpoint, whatever prefix a route has: that is how every client
    of Glance reads them (docs/decisions/0003-links-behind-a-prefix.md).
    """
    members = {name: raw for name, raw in _envelope(page).items() if name in _SHOWN}
    members["images"] = Raw(b"[" + b", ".join(row.raw for row in rows) + b"]")
    members["first"] = _link(shown_query(query, marker=None))
    members.pop("next", None)
    if next_marker is not None:
        members["next"] = _link(shown_query(query, marker=next_marker))
    return render_object(members)


def read_facts(raw: bytes) -> ImageFacts:
    """Read what the rule looks at of an image; one that two may read differently is hidden."""
    try:
        image = _LISTED_IMAGE.decode(raw)
        if not _is_unambiguous(raw):
            document_without_repeats(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _HIDDEN
    return ImageFacts(image.id, image.owner, image.visibility, image.created_at)


def _is_unambiguous(raw: bytes) -> bool:
    """Tell cheaply that no key the rule looks at can be there twice; False means: not sure."""
    if b"\\" in raw:
        return False
    return all(
        raw.count(key) <= 1 for key in (b'"id"', b'"owner"', b'"visibility"', b'"created_at"')
    )


def _envelope(page: Page) -> dict[str, Raw]:
    if not isinstance(page.envelope, dict):
        raise TypeError("the page was not read by this dialect")
    return page.envelope


def _link(query: str) -> Raw:
    return Raw(json.dumps(f"{_IMAGES}?{query}" if query else _IMAGES).encode())


def _marker_in(following: object) -> str | None:
    if following is None:
        return None
    try:
        markers = (
            parse_qs(urlsplit(following).query)["marker"] if isinstance(following, str) else []
        )
        return markers[-1]
    except (ValueError, LookupError) as failure:
        raise RegistryGarbageError(
            "The registry's link to the next page names no image."
        ) from failure
