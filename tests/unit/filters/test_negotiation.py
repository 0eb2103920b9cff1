from __future__ import annotations

import pytest

from relproxy.filters.negotiation import preferred

HTML, JSON = "text/html", "application/json"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", HTML),
        ("text/html", HTML),
        ("application/json", JSON),
        ("APPLICATION/JSON", JSON),
        (" application/json ", JSON),
        ("application/*", JSON),
        ("text/*", HTML),
        ("application/json, text/html", HTML),
        ("application/json, */*", HTML),
        ("application/json;q=0.5, */*;q=0.5", HTML),
        ("application/json;q=0.5, text/html;q=0.4", JSON),
        ("application/json;q=1.0", JSON),
        ("application/json ; q=0.9, text/plain", JSON),
        ("text/html, application/json;q=0.1", HTML),
        ("text/*;q=0.3, application/json;q=0.2", HTML),
        ("*/*;q=0.1, application/json", JSON),
        ("application/*, text/html;q=0.9", JSON),
        ("text/html;q=0, */*", JSON),
        ("application/json;q=0", None),
        ("*/*;q=0", None),
        ("text/plain", None),
        ("text/plain, */*;q=0", None),
        ("application/octet-stream", None),
        ("application/vnd.api+json", None),
        ("application/json-patch+json", None),
        ("", None),
    ],
)
def test_a_client_is_answered_as_glance_answers_it(accept: str, media_type: str | None) -> None:
    # Each of them was asked of a Glance 33.
    assert preferred(accept, (HTML, JSON)) == media_type


@pytest.mark.parametrize(
    "accept",
    [",", ",,", ";", ";q=1", "q=1", "application/json;q", "application/json;q=", "a;q=x,b;q=1;c"],
)
def test_what_is_no_accept_header_is_no_error(accept: str) -> None:
    assert preferred(accept, (HTML, JSON)) in {HTML, JSON, None}


def test_what_stands_behind_a_hundred_media_types_counts_for_nothing() -> None:
    assert preferred("a," * 99 + JSON, (HTML, JSON)) == JSON
    assert preferred("a," * 100 + JSON, (HTML, JSON)) is None


@pytest.mark.parametrize("quality", ["nan", "inf", "-inf", "-1", "1e999", "0x1", "1_0"])
def test_a_quality_that_is_no_number_is_no_error(quality: str) -> None:
    assert preferred(f"application/json;q={quality}", (HTML, JSON)) in {JSON, None}
