from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relproxy.filters.access_rules import allows
from relproxy.model import AccessRule


@pytest.mark.parametrize(
    ("pattern", "path", "is_allowed"),
    [
        pytest.param("/v2/images", "/v2/images", True, id="the very path"),
        pytest.param("/v2/images", "/v2/images/a", False, id="a longer path"),
        pytest.param("/v2/images", "/x/v2/images", False, id="a path that ends so"),
        pytest.param("/v2/images/*", "/v2/images/a", True, id="a star is one segment"),
        pytest.param("/v2/images/*", "/v2/images/", False, id="an empty segment is none"),
        pytest.param("/v2/images/*", "/v2/images/a/file", False, id="a star ends at a slash"),
        pytest.param("/v2/images/{id}/file", "/v2/images/a/file", True, id="a name is one segment"),
        pytest.param("/v2/images/{id}", "/v2/images/a/file", False, id="a name ends at a slash"),
        pytest.param("/v2/**", "/v2/images/a/file", True, id="two stars are anything"),
        pytest.param("/v2/**/file", "/v2/images/a/file", True, id="two stars in the middle"),
        pytest.param("**", "/v2/images", True, id="two stars alone"),
        pytest.param("/v2.0/images", "/v2x0/images", False, id="a dot is a dot"),
        pytest.param("/v2/(images|tasks)", "/v2/tasks", False, id="no regular expression"),
        pytest.param("/v2/images/{", "/v2/images/{", True, id="a brace that isn't closed"),
        pytest.param("", "/v2/images", False, id="an empty pattern"),
        pytest.param("/v2/images", "/v2/images\n", False, id="a line end is no end"),
    ],
)
def test_a_pattern_allows_the_paths_that_it_says(
    pattern: str, path: str, *, is_allowed: bool
) -> None:
    assert allows([AccessRule("image", "GET", pattern)], "GET", path) is is_allowed


def test_a_rule_is_for_its_own_method() -> None:
    rules = [AccessRule("image", "GET", "/a"), AccessRule("image", "POST", "/b")]

    assert allows(rules, "GET", "/a")
    assert allows(rules, "POST", "/b")
    assert not allows(rules, "POST", "/a")
    assert not allows([], "GET", "/a")


def reference(pattern: str) -> str:
    """Return a regular expression for a pattern: what is meant, if not how to find out."""
    stands_for = {"**": ".*", "*": "[^/]+"}
    parts = re.findall(r"\*\*|\*|\{[^}]*\}|[^*{]|\{", pattern)
    return "".join(
        stands_for.get(p, "[^/]+" if re.fullmatch(r"\{[^}]*\}", p) else re.escape(p)) for p in parts
    )


@given(pattern=st.text(alphabet="a/*b{}", max_size=9), path=st.text(alphabet="ab/{", max_size=9))
def test_a_pattern_is_what_its_signs_say(pattern: str, path: str) -> None:
    expected = re.fullmatch(reference(pattern), path) is not None

    assert allows([AccessRule("image", "GET", pattern)], "GET", path) is expected


def test_every_pattern_comes_to_an_end() -> None:
    # As a regular expression, each of these stars takes ten times as long as the one before: such a
    # rule held a worker up for as long as it liked.
    rules = [AccessRule("image", "GET", "/v2/images/" + "**a" * 70 + "b")] * 200
    path = "/v2/images/" + "a" * 8000

    assert not allows(rules, "GET", path)


def test_more_rules_than_anybody_writes_allow_nothing() -> None:
    rules = [AccessRule("image", "GET", "/a")]

    assert allows(rules * 200, "GET", "/a")
    assert not allows(rules * 201, "GET", "/a")
