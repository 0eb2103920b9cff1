"""List queries: what the registry reads of the rebuilt one is what the client's own one meant."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import unquote_to_bytes

from relproxy.errors import BadRequestError
from relproxy.filters.query import ListQuery, parse_list_query, shown_query, upstream_query
from tests.fuzz import words
from tests.fuzz.conftest import Inputs

Pairs = list[tuple[str, str]]
OWN = {"limit", "marker", "instance_id", "nova_installation_uuid"}
MAY_REPEAT = {"tag", "sort_key", "sort_dir"}


def read(raw: str, separators: str) -> Pairs | None:
    """Read a query: its pairs, decoded once; None where they are not UTF-8."""
    parts = [part for part in re.split(separators, raw.replace("+", " ")) if part]
    try:
        return [
            (unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode())
            for name, _, value in (part.partition("=") for part in parts)
        ]
    except UnicodeDecodeError:
        return None


def by_the_client(raw: str) -> Pairs | None:
    return read(raw, "&")


def by_the_registry(raw: str) -> Pairs | None:
    """Read a query as WebOb does, which divides at `;` too."""
    return read(raw, "[&;]")


def test_the_registry_reads_what_the_client_meant(inputs: Inputs) -> None:
    accepted = 0
    for choose in inputs(10_000, 1_000_000):
        raw = words.query(choose)
        limit, marker = choose.randint(0, 1000), choose.choice((None, words.IMAGE_ID, "a&b;c=d"))
        try:
            query = parse_list_query(raw)
        except BadRequestError:
            continue
        accepted += 1
        meant = by_the_client(raw)
        assert meant is not None, raw
        check_parsed(query, meant, raw)
        sent = by_the_registry(upstream_query(query, limit=limit, marker=marker))
        asked = [pair for pair in meant if pair[0] not in OWN]
        paging = [("limit", str(limit)), *([("marker", marker)] if marker else [])]
        assert sent == [*asked, *paging], raw
        linked = by_the_registry(shown_query(query, marker=marker))
        shown = [pair for pair in meant if pair[0] != "marker"]
        assert linked == [*shown, *paging[1:]], raw
    assert accepted > 1000


def check_parsed(query: ListQuery, meant: Pairs, raw: str) -> None:
    """Check that nothing is there twice, and that what relproxy takes out it has understood."""
    counted = Counter(name for name, _ in meant)
    assert all(count == 1 or name in MAY_REPEAT for name, count in counted.items()), raw
    given = dict(meant)
    assert query.marker == given.get("marker"), raw
    assert query.instance_id == given.get("instance_id"), raw
    assert (query.limit is None) is ("limit" not in given), raw
    if query.limit is not None:
        assert query.limit == int(given["limit"]), raw
        assert given["limit"].isascii(), raw
    for name in ("visibility", "id", "owner"):
        assert query.filter(name) == given.get(name), raw
