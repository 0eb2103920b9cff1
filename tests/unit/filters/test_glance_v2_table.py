from __future__ import annotations

import pytest

from relproxy.filters.glance_v2_table import TABLE
from relproxy.filters.route_table import IMAGE_ID, image_id_in, matching_rows
from relproxy.model import Access, Treatment

# Every route of Glance 33's own router (glance/api/v2/router.py), with its methods.
GLANCE = {
    "/cache": "DELETE GET",
    "/cache/clean": "POST",
    "/cache/nodes/{image_id}": "GET",
    "/cache/prune": "POST",
    "/cache/{image_id}": "DELETE PUT",
    "/images": "GET POST",
    "/images/{image_id}": "DELETE GET PATCH",
    "/images/{image_id}/actions/deactivate": "POST",
    "/images/{image_id}/actions/reactivate": "POST",
    "/images/{image_id}/file": "GET PUT",
    "/images/{image_id}/import": "POST",
    "/images/{image_id}/locations": "GET POST",
    "/images/{image_id}/members": "GET POST",
    "/images/{image_id}/members/{member_id}": "DELETE GET PUT",
    "/images/{image_id}/stage": "PUT",
    "/images/{image_id}/tags/{tag_value}": "DELETE PUT",
    "/images/{image_id}/tasks": "GET",
    "/info/import": "GET",
    "/info/stores": "GET",
    "/info/stores/detail": "GET",
    "/info/usage": "GET",
    "/metadefs/namespaces": "GET POST",
    "/metadefs/namespaces/{namespace}": "DELETE GET PUT",
    "/metadefs/namespaces/{namespace}/objects": "DELETE GET POST",
    "/metadefs/namespaces/{namespace}/objects/{object_name}": "DELETE GET PUT",
    "/metadefs/namespaces/{namespace}/properties": "DELETE GET POST",
    "/metadefs/namespaces/{namespace}/properties/{property_name}": "DELETE GET PUT",
    "/metadefs/namespaces/{namespace}/resource_types": "GET POST",
    "/metadefs/namespaces/{namespace}/resource_types/{resource_type}": "DELETE",
    "/metadefs/namespaces/{namespace}/tags": "DELETE GET POST",
    "/metadefs/namespaces/{namespace}/tags/{tag_name}": "DELETE GET POST PUT",
    "/metadefs/resource_types": "GET",
    "/schemas/image": "GET",
    "/schemas/images": "GET",
    "/schemas/member": "GET",
    "/schemas/members": "GET",
    "/schemas/metadefs/namespace": "GET",
    "/schemas/metadefs/namespaces": "GET",
    "/schemas/metadefs/object": "GET",
    "/schemas/metadefs/objects": "GET",
    "/schemas/metadefs/properties": "GET",
    "/schemas/metadefs/property": "GET",
    "/schemas/metadefs/resource_type": "GET",
    "/schemas/metadefs/resource_types": "GET",
    "/schemas/metadefs/tag": "GET",
    "/schemas/metadefs/tags": "GET",
    "/schemas/task": "GET",
    "/schemas/tasks": "GET",
    "/stores/{store_id}/{image_id}": "DELETE",
    "/tasks": "GET POST",
    "/tasks/{task_id}": "DELETE GET",
}
# What a caller may do without owning or seeing an image (DESIGN, section 4).
OPEN = {"/info/import", "/info/stores", "/images"} | {p for p in GLANCE if "/schemas/" in p}


def segments(path: str) -> tuple[str, ...]:
    """Return the path of a request: something in the place of each name in braces."""
    parts = path.strip("/").split("/")
    return ("v2", *(f"some-{part[1:-1]}" if part.startswith("{") else part for part in parts))


@pytest.mark.parametrize("path", list(GLANCE))
def test_every_route_of_glance_has_a_row_for_each_of_its_methods(path: str) -> None:
    assert {row.method for row in matching_rows(TABLE, segments(path))} >= set(GLANCE[path].split())


@pytest.mark.parametrize("path", sorted(set(GLANCE) - OPEN))
def test_no_route_is_open_to_every_caller_but_the_named_ones(path: str) -> None:
    accesses = {row.access for row in matching_rows(TABLE, segments(path))}

    assert accesses.isdisjoint({Access.ANYONE, Access.CALLER})


@pytest.mark.parametrize("path", sorted(p for p in GLANCE if p.startswith("/images/")))
def test_a_route_of_one_image_knows_its_image(path: str) -> None:
    for row in matching_rows(TABLE, segments(path)):
        assert row.treatment is Treatment.IMAGE
        assert image_id_in(row.pattern, segments(path)) == "some-image_id"


@pytest.mark.parametrize(
    "path",
    [
        "/tasks",
        "/tasks/{task_id}",
        "/cache",
        "/cache/{image_id}",
        "/cache/clean",
        "/stores/{store_id}/{image_id}",
        "/images/{image_id}/locations",
        "/images/{image_id}/tasks",
        "/images/{image_id}/actions/deactivate",
        "/images/{image_id}/actions/reactivate",
        "/info/stores/detail",
        "/info/usage",
        "/metadefs/namespaces",
        "/metadefs/namespaces/{namespace}",
        "/metadefs/namespaces/{namespace}/objects/{object_name}",
    ],
)
def test_what_reaches_around_a_list_is_for_administrators(path: str) -> None:
    assert {row.access for row in matching_rows(TABLE, segments(path))} == {Access.ADMIN}


@pytest.mark.parametrize(
    "path", ["/images/{image_id}/members", "/images/{image_id}/members/{member_id}"]
)
def test_members_are_refused_to_everyone(path: str) -> None:
    assert {row.access for row in matching_rows(TABLE, segments(path))} == {Access.REFUSED}


def test_what_changes_an_image_is_its_owners() -> None:
    changing = {
        row.access
        for row in TABLE
        if row.treatment is Treatment.IMAGE and row.method not in {"GET", "HEAD"}
    }

    assert changing <= {Access.OWN, Access.ADMIN, Access.REFUSED}


def test_only_what_has_a_body_has_an_effect() -> None:
    assert {(row.method, row.name) for row in TABLE if row.has_effect} == {
        ("POST", "image-create"),
        ("PATCH", "image-update"),
        ("POST", "image-import"),
    }


def test_no_method_of_a_path_has_two_rows() -> None:
    keys = [(row.method, row.pattern) for row in TABLE]

    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    "path",
    [
        "/v2/metadefs",
        "/v2/members",
        "/v2/images/1/file/2",
        "/v2/images/1/unknown",
        "/v2/images/1/actions",
        "/v2/images/1/actions/delete",
        "/v2/images/1/tags",
        "/v2/images/1/tags/a/b",
        "/v2/schemas",
        "/v2/schemas/a/b",
        "/v2/stores",
        "/v2/stores/a",
        "/v2/v2/images",
        "/v1/images",
        "/v3/images",
        "/images",
        "/V2/images",
        "/v2/Images",
        "/versions/x",
        "/healthcheck/x",
    ],
)
def test_what_has_no_row_has_no_row(path: str) -> None:
    assert matching_rows(TABLE, tuple(path.strip("/").split("/"))) == ()


def test_a_path_without_an_image_has_no_image_id() -> None:
    assert image_id_in(("v2", "images"), ("v2", "images")) is None
    assert image_id_in(("v2", "stores", "{store}", IMAGE_ID), ("v2", "stores", "a", "b")) == "b"
