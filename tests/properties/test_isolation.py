"""Promise 2, for any page: nothing of an image that is not its viewer's to see is in the answer."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relproxy.errors import BadRequestError
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.filters.headers import IDENTITY_HEADERS, upstream_headers
from relproxy.filters.query import parse_list_query
from relproxy.filters.visibility import Viewer, may_see
from relproxy.messages import Headers
from relproxy.model import Caller, Ownership, Tenancy

GLANCE = GlanceV2()
PROJECTS = ("mine", "theirs")
CREATED = "2026-11-22T15:07:26Z"
EARLIER = "2025-01-01T00:00:00Z"


@st.composite
def images(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw images with a secret each; some lack members that the rule looks at."""
    drawn = []
    for number in range(draw(st.integers(0, 8))):
        image: dict[str, Any] = {
            "id": f"id-{number}",
            "secret": f"secret-of-id-{number}.",
            "owner": draw(st.sampled_from([*PROJECTS, None])),
            "visibility": draw(st.sampled_from(["public", "private", "shared", "community", None])),
            "created_at": draw(st.sampled_from([CREATED, None])),
        }
        for member in draw(
            st.sets(st.sampled_from(["id", "visibility", "created_at"]), max_size=1)
        ):
            del image[member]
        drawn.append(image)
    return drawn


ownerships = st.none() | st.builds(
    Ownership, st.sampled_from(PROJECTS), st.sampled_from([CREATED, EARLIER])
)


def is_certainly_mine_or_public(
    image: dict[str, Any], record: Ownership | None, tenancy: Tenancy
) -> bool:
    """Return what may be shown to a member of `mine`, decided from the document alone."""
    if not all(image.get(member) for member in ("id", "visibility", "created_at")):
        return False
    if image["visibility"] == "public":
        return True
    if tenancy is Tenancy.RELPROXY:
        return record == Ownership("mine", CREATED)
    return bool(image["owner"] == "mine" or image["visibility"] == "shared")


@given(listed=images(), records=st.lists(ownerships, min_size=8), tenancy=st.sampled_from(Tenancy))
def test_nothing_of_a_hidden_image_is_in_a_page(
    listed: list[dict[str, Any]], records: list[Ownership | None], tenancy: Tenancy
) -> None:
    viewer = Viewer(tenancy, Caller("mine"))
    page = GLANCE.page(json.dumps({"images": listed, "first": "/v2/images"}).encode())

    rows = tuple(
        row
        for row, record in zip(page.rows, records, strict=False)
        if may_see(viewer, row.facts, record)
    )
    body = GLANCE.render_page(page, rows, query=parse_list_query(""), next_marker=None)

    shown = [
        image
        for image, record in zip(listed, records, strict=False)
        if is_certainly_mine_or_public(image, record, tenancy)
    ]
    assert json.loads(body)["images"] == shown
    for image in listed:
        assert (image["secret"].encode() in body) is (image in shown)


@st.composite
def disguises(draw: st.DrawFn) -> str:
    """Draw an identity header in any mixture of case, `_` and `-`."""
    name = draw(st.sampled_from(IDENTITY_HEADERS))
    return "".join(
        draw(st.sampled_from("-_" if character == "-" else character.lower() + character.upper()))
        for character in name
    )


@given(names=st.lists(disguises(), max_size=4), connection=st.lists(disguises(), max_size=2))
def test_no_disguise_carries_an_identity_upstream(names: list[str], connection: list[str]) -> None:
    headers = Headers().with_added(
        ("Host", "h"),
        *((name, "evil") for name in names),
        *(("Connection", f"close, {name}") for name in connection),
    )
    try:
        sent = upstream_headers(headers, own=())
    except BadRequestError:
        assert connection
        return

    assert not connection
    assert sent.pairs == ((b"Host", b"h"),)
