"""Targets: what was classified is what reaches the registry, in every reader's eyes."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from relproxy.errors import BadRequestError, NotFoundError
from relproxy.filters.base import UNKNOWN
from relproxy.filters.target import parse_target
from relproxy.model import Treatment
from relproxy.routing import Match, match
from tests.fuzz import words
from tests.fuzz.conftest import Inputs
from tests.unit.given import request_head, routes

ROUTES = {tenancy: routes(registry={"tenancy": tenancy}) for tenancy in ("relproxy", "registry")}
PREFIXED = routes({"path_prefix": "/west/image"}, {})


def read(raw: str) -> tuple[list[bytes], bytes]:
    """Read a target as a WSGI server does: its segments, decoded once, and its raw query."""
    origin = re.sub(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", "", raw)
    path, _, query = origin.partition("#")[0].partition("?")
    return [part for part in unquote_to_bytes(path).split(b"/") if part], query.encode()


def overrides_method(query: bytes) -> bool:
    """Tell whether any reader finds the parameter `_method` in a query."""
    parts = re.split(rb"[&;]", query)
    names = {unquote_to_bytes(part.partition(b"=")[0].replace(b"+", b" ")) for part in parts}
    return b"_method" in names


def resource(method: str, segments: list[bytes], accept: str) -> tuple[str, bytes | None] | None:
    """Say which images a request reaches in a Glance: its list, or one by id; None for others."""
    version = re.compile(rb"v2(\.[0-9]+)?")
    if not accept.lower().startswith(words.VENDOR):
        if not (segments and version.fullmatch(segments[0])):
            return None
        segments = segments[1:]
    if segments[:1] != [b"images"] or (
        len(segments) == 2 and method not in {"GET", "PATCH", "DELETE"}
    ):
        return None
    if len(segments) == 1:
        return {"GET": ("list", None), "POST": ("create", None)}.get(method)
    return "image", segments[1]


def test_what_is_sent_has_the_segments_that_were_classified(inputs: Inputs) -> None:
    seen: dict[str, int] = {}
    for choose in inputs(4_000, 1_000_000):
        raw, method, accept = (
            words.target(choose),
            choose.choice(words.METHODS),
            choose.choice(words.ACCEPTS),
        )
        tenancy = choose.choice(("relproxy", "registry"))
        head = request_head(raw, ("Host", "a"), ("Accept", accept), method=method)
        try:
            matched = match(ROUTES[tenancy], head)
        except (BadRequestError, NotFoundError) as refusal:
            seen[type(refusal).__name__] = seen.get(type(refusal).__name__, 0) + 1
            continue
        seen[matched.operation.name] = seen.get(matched.operation.name, 0) + 1
        check(matched, raw, method, accept, tenancy)
    assert {"image-list", "image-show", "image-download", "other", "BadRequestError"} <= set(seen)
    assert len(seen) > 20, seen
    print(seen)  # noqa: T201 - shown by -s


def check(matched: Match, raw: str, method: str, accept: str, tenancy: str) -> None:
    came, query = read(raw)
    sent, sent_query = read(matched.target)
    about = (raw, method, accept, matched)
    assert re.fullmatch(r"/[\x21\x22\x24-\x7e]*", matched.target), about
    assert sent in (came, [b"v2", *came]), about
    assert sent_query == query, about
    assert not overrides_method(query), about
    assert not {b".", b".."} & set(sent), about
    # Nothing that is decoded a second time, or with slashes collapsed, becomes another path.
    assert read(parse_target(matched.target).path)[0] == sent, about
    # What is sent says its version in the path: its Accept is made neutral.
    assert_classified(matched, resource(method, sent, ""), about)
    if tenancy == "relproxy" and matched.operation.name == UNKNOWN:
        assert matched.treatment is Treatment.REFUSE, about


def assert_classified(
    matched: Match, reached: tuple[str, bytes | None] | None, about: object
) -> None:
    operation = matched.operation
    if reached is None:
        assert operation.name not in {"image-list", "image-create"}, about
        return
    kind, image_id = reached
    if kind == "image":
        assert image_id is not None
        known = operation.image_id == image_id.decode("latin-1")
        assert known or operation.name == UNKNOWN, about
    else:
        assert operation.name == f"image-{kind}", about


def test_a_prefix_comes_off_every_spelling_of_it(inputs: Inputs) -> None:
    taken = 0
    for choose in inputs(2_000, 300_000):
        prefix = "".join(
            choose.choice(words.SEPARATORS[:8]) + words.spelled(choose, part)
            for part in ("west", "image")
        )
        raw = prefix + words.target(choose)
        try:
            matched = match(PREFIXED, request_head(raw, ("Host", "a")))
        except (BadRequestError, NotFoundError):
            continue
        came, sent = read(raw)[0], read(matched.target)[0]
        expected = came[2:] if matched.route.name == "r0" else came
        assert (came[:2] == [b"west", b"image"]) is (matched.route.name == "r0"), raw
        assert sent == expected, (raw, matched.target)
        taken += matched.route.name == "r0"
    assert taken
