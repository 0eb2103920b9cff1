from __future__ import annotations

import pytest

from relproxy.filters.glance_registry import GlanceRegistry
from relproxy.filters.glance_registry_table import TABLE
from relproxy.filters.route_table import image_id_in, matching_rows
from relproxy.filters.target import parse_target
from relproxy.model import Access, Treatment
from tests.unit.given import fields

# Every route that the router of Glance 2011.3 names and its controller answers, with its methods;
# `*` where the route has no condition. Source: glance/registry/server.py, class API, at the tag
# 2011.3 (commit 84e5d7fa0); the first four are what Routes makes of `mapper.resource`.
GLANCE = {
    "/images": "GET POST",
    "/images/detail": "GET",
    "/images/{id}": "GET PUT DELETE",
    "/": "*",
    "/shared-images/{member}": "*",
    "/images/{image_id}/members": "GET PUT",
    "/images/{image_id}/members/{member}": "PUT DELETE",
}
# What Routes makes of `mapper.resource` besides: the same again, or what no controller answers.
FURTHER = (
    *("/images.json", "/images/detail.json", "/images/17.json", "/images/new", "/images/new.xml"),
    *("/images/17/edit", "/images/17/edit.json"),
)
OPEN = {"/", "/images", "/images/detail"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DIALECT = GlanceRegistry()


def segments(path: str) -> tuple[str, ...]:
    parts = [part for part in path.split("/") if part]
    return tuple("17" if part.startswith("{") else part for part in parts)


@pytest.mark.parametrize("path", list(GLANCE))
def test_every_route_of_the_registry_has_a_row_for_each_of_its_methods(path: str) -> None:
    known = {row.method for row in matching_rows(TABLE, segments(path))}
    assert known >= ({"GET"} if GLANCE[path] == "*" else set(GLANCE[path].split()))


@pytest.mark.parametrize("path", sorted(set(GLANCE) - OPEN))
def test_no_route_is_open_to_every_caller_but_the_named_ones(path: str) -> None:
    accesses = {row.access for row in matching_rows(TABLE, segments(path))}
    assert accesses.isdisjoint({Access.ANYONE, Access.CALLER})


@pytest.mark.parametrize("path", sorted(p for p in GLANCE if p.startswith("/images/{")))
def test_a_route_of_one_image_knows_its_image(path: str) -> None:
    for row in matching_rows(TABLE, segments(path)):
        assert row.treatment is Treatment.IMAGE
        assert image_id_in(row.pattern, segments(path)) == "17"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", FURTHER)
def test_what_the_router_makes_besides_is_refused_in_both_tenancies(path: str, method: str) -> None:
    operation = DIALECT.operation(method, parse_target(path), fields())
    assert (operation.treatment, operation.access) == (Treatment.REFUSE, Access.REFUSED)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"GET"}))
@pytest.mark.parametrize("path", [path for path in GLANCE if GLANCE[path] == "*"])
def test_route_without_a_condition_is_open_by_get_alone(path: str, method: str) -> None:
    target = parse_target("/" + "/".join(segments(path)))
    operation = DIALECT.operation(method, target, fields())
    assert operation.treatment is Treatment.REFUSE


@pytest.mark.parametrize("path", sorted(p for p in GLANCE if "members" in p or "shared" in p))
def test_members_are_refused_to_everyone(path: str) -> None:
    assert {row.access for row in matching_rows(TABLE, segments(path))} == {Access.REFUSED}


@pytest.mark.parametrize(
    "text",
    ["", "017", "+17", "-1", "17.0", "1e3", "17x", " 17", "\uff11\uff17", "9" * 19, "a-uuid"],
)
def test_only_the_registrys_own_spelling_of_a_number_is_an_id(text: str) -> None:
    assert not DIALECT.is_image_id(text)
    assert DIALECT.is_image_id("17")
