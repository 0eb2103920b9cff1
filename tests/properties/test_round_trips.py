"""What is taken apart and put together again means the same."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from hypothesis import given
from hypothesis import strategies as st

from relproxy.errors import BadRequestError
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.filters.query import parse_list_query, shown_query, upstream_query
from relproxy.filters.target import parse_target
from relproxy.messages import Headers
from relproxy.model import Treatment
from tests.unit.given import CREATED_AT

GLANCE = GlanceV2()
NO_FIELDS = Headers()
RESERVED = {"instance_id", "nova_installation_uuid"}

targets = st.text(st.sampled_from("/%2fFeE.4169v2images?&;=\\:@#* "), max_size=30).map(
    lambda text: f"/{text}"
)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
pairs = st.lists(st.tuples(words, words), max_size=8, unique_by=lambda pair: pair[0])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def as_wsgi_reads(path: str) -> list[bytes]:
    """Return the segments that Glance sees: decoded once, empty ones left out."""
    return [segment for segment in unquote_to_bytes(path).split(b"/") if segment]


@given(raw=targets)
def test_the_canonical_path_is_what_the_registry_reads_in_the_raw_one(raw: str) -> None:
    try:
        target = parse_target(raw)
    except BadRequestError:
        return

    assert as_wsgi_reads(target.path) == as_wsgi_reads(target.raw_path)
    assert parse_target(target.path).path == target.path
    assert parse_target(target.path).segments == target.segments
    assert "//" not in target.path


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """Draw a spelling of `/v2/images`: any letter escaped, any slash repeated or escaped."""
    spelled = "/"
    for character in draw(st.sampled_from(["/v2/images", "/v2.9/images", "/v2/images/"])):
        escape = f"%{ord(character):02x}"
        ways = [character, escape, escape.upper()]
        if character == "/":
            ways += ["//", "/%2F", "%2f/"]
        spelled += draw(st.sampled_from(ways))
    return spelled


@given(raw=spellings(), query=st.sampled_from(["", "?", "?limit=1"]))
def test_every_spelling_of_the_image_list_is_a_list(raw: str, query: str) -> None:
    operation = GLANCE.operation("GET", parse_target(raw + query), Headers())

    assert operation.treatment is Treatment.LIST
    assert operation.path in {"/v2/images", "/v2.9/images"}


def as_webob_reads(query: str) -> list[tuple[str, str]]:
    """Return the parameters that Glance sees: WebOb divides at `;` too."""
    return parse_qsl(query.replace(";", "&"), keep_blank_values=True)


@given(filters=pairs, limit=st.integers(0, 1000), marker=st.none() | words)
def test_a_query_reaches_the_registry_as_it_was_meant(
    filters: list[tuple[str, str]], limit: int, marker: str | None
) -> None:
    own = {"limit", "marker", *RESERVED}
    asked = [pair for pair in filters if pair[0] not in own]
    raw = urlencode(asked, quote_via=quote)

    sent = upstream_query(parse_list_query(raw), limit=limit, marker=marker)

    expected = [*asked, ("limit", str(limit))]
    assert as_webob_reads(sent) == (expected if marker is None else [*expected, ("marker", marker)])


@given(filters=pairs, marker=words)
def test_a_link_asks_for_what_the_client_asked_for(
    filters: list[tuple[str, str]], marker: str
) -> None:
    asked = [pair for pair in filters if pair[0] not in {"limit", "marker", *RESERVED}]
    query = parse_list_query(urlencode(asked))

    followed = parse_list_query(shown_query(query, marker=marker))

    assert followed.filters == query.filters
    assert followed.marker == marker


@given(
    document=st.dictionaries(words | st.sampled_from(sorted(RESERVED)), values, max_size=6),
    ensure_ascii=st.booleans(),
)
def test_stripping_a_create_takes_the_reserved_properties_and_nothing_else(
    document: dict[str, object], *, ensure_ascii: bool
) -> None:
    body = json.dumps(document, ensure_ascii=ensure_ascii).encode()

    stripped = GLANCE.read_create(NO_FIELDS, body).stripped

    kept = {name: value for name, value in document.items() if name not in RESERVED}
    assert json.loads(stripped) == kept
    assert list(json.loads(stripped)) == list(kept)
    for value in kept.values():
        assert json.dumps(value, ensure_ascii=ensure_ascii).encode() in stripped


@given(
    properties=st.dictionaries(words, values, max_size=5),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]),
    ensure_ascii=st.booleans(),
)
def test_an_image_of_a_page_keeps_its_bytes(
    properties: dict[str, object], separators: tuple[str, str], *, ensure_ascii: bool
) -> None:
    image = {**properties, "id": "i1", "visibility": "public", "created_at": CREATED_AT}
    image.pop("owner", None)
    raw = json.dumps(image, separators=separators, ensure_ascii=ensure_ascii).encode()
    page = GLANCE.page(b'{"images": [ ' + raw + b" ] }")

    rendered = GLANCE.render_page(page, page.rows, query=parse_list_query(""), next_marker=None)

    assert page.rows[0].facts.id == "i1"
    assert b'{"images": [' + raw + b"]," in rendered
    assert json.loads(rendered)["images"] == [image]
