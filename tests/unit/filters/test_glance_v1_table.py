from __future__ import annotations

import pytest

from relproxy.filters.glance_v1 import GlanceV1
from relproxy.filters.glance_v1_table import TABLE
from relproxy.filters.route_table import image_id_in, matching_rows
from relproxy.filters.target import parse_target
from relproxy.model import Access, Treatment
from tests.unit.given import fields

# Every route of Glance's repository at the tag pike-eol (Glance 15), with its methods; `*` where
# the route has no condition. Source: glance/api/v1/router.py, glance/api/middleware/cache_manage.py
GLANCE = {
    "/v1": "*",
    "/v1/images": "GET POST",
    "/v1/images/detail": "GET",  # HEAD is routed too, and refused by its handler
    "/v1/images/{id}": "HEAD GET PUT DELETE",
    "/v1/images/{image_id}/members": "GET PUT",
    "/v1/images/{image_id}/members/{id}": "GET PUT DELETE",
    "/v1/shared-images/{id}": "*",
    "/v1/cached_images": "GET DELETE",
    "/v1/cached_images/{image_id}": "DELETE",
    "/v1/queued_images": "GET DELETE",
    "/v1/queued_images/{image_id}": "PUT DELETE",
}
OPEN = {"/v1", "/v1/images", "/v1/images/detail"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DIALECT = GlanceV1()


def segments(path: str) -> tuple[str, ...]:
    parts = path.strip("/").split("/")
    return tuple("some-id" if part.startswith("{") else part for part in parts)


@pytest.mark.parametrize("path", list(GLANCE))
def test_every_route_of_glance_has_a_row_for_each_of_its_methods(path: str) -> None:
    known = {row.method for row in matching_rows(TABLE, segments(path))}
    assert known >= ({"GET"} if GLANCE[path] == "*" else set(GLANCE[path].split()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", [path for path in GLANCE if GLANCE[path] == "*"])
def test_route_without_a_condition_is_open_by_get_alone(path: str, method: str) -> None:
    target = parse_target("/" + "/".join(segments(path)))
    preflight = fields(("Origin", "https://example.org"), ("Access-Control-Request-Method", "GET"))

    operation = DIALECT.operation(method, target, preflight)

    is_list = path == "/v1" and method == "GET"
    assert (operation.treatment is Treatment.LIST) is is_list
    assert operation.access is (Access.CALLER if is_list else Access.REFUSED)
    assert (operation.treatment is Treatment.REFUSE) is (method != "GET")


@pytest.mark.parametrize("path", sorted(set(GLANCE) - OPEN))
def test_no_route_is_open_to_every_caller_but_the_named_ones(path: str) -> None:
    accesses = {row.access for row in matching_rows(TABLE, segments(path))}
    assert accesses.isdisjoint({Access.ANYONE, Access.CALLER})


@pytest.mark.parametrize("path", sorted(p for p in GLANCE if p.startswith("/v1/images/{")))
def test_a_route_of_one_image_knows_its_image(path: str) -> None:
    for row in matching_rows(TABLE, segments(path)):
        assert row.treatment is Treatment.IMAGE
        assert image_id_in(row.pattern, segments(path)) == "some-id"


@pytest.mark.parametrize("path", sorted(p for p in GLANCE if "ed_images" in p))
def test_cache_is_for_administrators(path: str) -> None:
    assert {row.access for row in matching_rows(TABLE, segments(path))} == {Access.ADMIN}


@pytest.mark.parametrize("path", sorted(p for p in GLANCE if "members" in p or "shared" in p))
def test_members_are_refused_to_everyone(path: str) -> None:
    assert {row.access for row in matching_rows(TABLE, segments(path))} == {Access.REFUSED}


def test_what_changes_an_image_is_its_owners() -> None:
    changing = [
        r for r in TABLE if r.treatment is Treatment.IMAGE and r.method in {"PUT", "DELETE"}
    ]
    assert {row.access for row in changing} == {Access.OWN, Access.REFUSED}


@pytest.mark.parametrize(
    ("method", "framing", "moves_data"),
    [
        ("POST", ("Content-Length", "10"), True),
        ("POST", ("Transfer-Encoding", "chunked"), True),
        ("POST", ("Content-Length", "0"), False),
        ("POST", ("X-Other", "1"), False),
    ],
)
def test_create_moves_data_if_it_has_a_body(
    method: str,
    framing: tuple[str, str],
    moves_data: bool,  # noqa: FBT001 - a table's column
) -> None:
    operation = DIALECT.operation(method, parse_target("/v1/images"), fields(framing))

    assert operation.moves_data is moves_data
    assert operation.is_said_in_headers


def test_download_moves_data_and_show_does_not() -> None:
    target = parse_target("/v1/images/a")
    assert DIALECT.operation("GET", target, fields()).moves_data
    assert not DIALECT.operation("HEAD", target, fields()).moves_data


@pytest.mark.parametrize(
    "target", ["/v1.1/images/detail", "/v1.0//images/detail/", "//v1/%69mages/detail"]
)
def test_every_spelling_of_a_list_is_that_list(target: str) -> None:
    operation = DIALECT.operation("GET", parse_target(target), fields())
    assert (operation.name, operation.treatment) == ("image-list", Treatment.LIST)


def test_version_may_be_said_by_accept() -> None:
    accept = ("Accept", "application/vnd.openstack.images-v1")
    operation = DIALECT.operation("GET", parse_target("/images"), fields(accept))

    assert (operation.name, operation.path) == ("image-index", "/v1/images")
    assert DIALECT.neutral_headers(fields(accept)).first("Accept") == "*/*"


@pytest.mark.parametrize("path", ["/v2", "/v2/images", "/v2.5/images/a/file", "/v2/nonsense"])
@pytest.mark.parametrize("method", METHODS)
def test_other_version_is_refused_in_both_tenancies(path: str, method: str) -> None:
    assert DIALECT.operation(method, parse_target(path), fields()).treatment is Treatment.REFUSE
