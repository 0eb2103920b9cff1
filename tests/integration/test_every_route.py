"""Every route and every method of the image API, in both tenancies."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from lab.stand_in import StandIn
from relproxy.filters.glance_v2_table import TABLE
from relproxy.filters.route_table import TableRow
from relproxy.model import InstanceQuery, Ownership
from relproxy.store.overlay import Overlay
from tests.integration.conftest import Client

# What a member may do where relproxy is the only wall, written down a second time: by path, the
# methods. Of anyone, own and visible no caller or the image decides; all else is an admin's.
ANYONE = {"/": "GET", "/versions": "GET", "/v2": "GET"}
CALLER = {
    "/v2/images": "GET POST",
    "/v2/info/import": "GET",
    "/v2/info/stores": "GET",
    "/v2/schemas/{schema}": "GET",
    "/v2/schemas/metadefs/{schema}": "GET",
}
VISIBLE = {"/v2/images/{image_id}": "GET", "/v2/images/{image_id}/file": "GET"}
OWN = {
    "/v2/images/{image_id}": "PATCH DELETE",
    "/v2/images/{image_id}/file": "PUT",
    "/v2/images/{image_id}/stage": "PUT",
    "/v2/images/{image_id}/import": "POST",
    "/v2/images/{image_id}/tags/{tag}": "PUT DELETE",
}
NOBODY = {
    "/v2/images/{image_id}/members": "GET POST",
    "/v2/images/{image_id}/members/{member}": "GET PUT DELETE",
}
CHANGING = frozenset({"date", "x-openstack-request-id"})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
BODIES = {
    ("POST", "/v2/images"): b'{"name": "made"}',
    ("PATCH", "/v2/images/{image_id}"): b"[]",
    ("POST", "/v2/images/{image_id}/import"): b'{"method": {"name": "glance-direct"}}',
    ("PUT", "/v2/images/{image_id}/file"): b"data",
}


def path_of(row: TableRow) -> str:
    return "/" + "/".join(row.pattern)


def target_of(row: TableRow, image_id: str) -> str:
    pieces = (
        image_id if part == "{image_id}" else part.strip("{}").replace("**", "namespaces")
        for part in row.pattern
    )
    return "/" + "/".join(pieces)


def is_in(table: Mapping[str, str], row: TableRow) -> bool:
    return row.method in table.get(path_of(row), "").split()


def is_admins(row: TableRow) -> bool:
    return not any(is_in(table, row) for table in (ANYONE, CALLER, VISIBLE, OWN, NOBODY))


each_row = pytest.mark.parametrize("row", TABLE, ids=lambda r: f"{r.method} {path_of(r)}")


async def asked(client: Client, row: TableRow, image_id: str, **caller: Any) -> int:
    answer = await client.call(
        row.method, target_of(row, image_id), data=BODIES.get((row.method, path_of(row))), **caller
    )
    return answer.status


@each_row
async def test_where_relproxy_is_the_only_wall_the_table_says_who_may(
    row: TableRow, only_wall: Client, noauth: StandIn
) -> None:
    own = (await only_wall.create("mine", "alice")).json()["id"]
    noauth.requests.clear()

    nobody = await asked(only_wall, row, own)
    assert (nobody == 401) is not is_in(ANYONE, row)
    assert bool(noauth.requests) is is_in(ANYONE, row)

    noauth.requests.clear()
    member = await asked(only_wall, row, own, project="alice")
    may = not (is_admins(row) or is_in(NOBODY, row))
    assert (member != 403) is may
    assert bool(noauth.requests) is may

    noauth.requests.clear()
    admin = await asked(only_wall, row, own, project="ops", roles="admin")
    assert (admin != 403) is not is_in(NOBODY, row)
    assert bool(noauth.requests) is not is_in(NOBODY, row)


@each_row
async def test_where_relproxy_is_the_only_wall_an_image_of_others_does_not_exist(
    row: TableRow, only_wall: Client, noauth: StandIn
) -> None:
    foreign = (await only_wall.create("theirs", "bob", fields={"visibility": "private"})).json()
    before = dict(noauth.images[foreign["id"]])

    status = await asked(only_wall, row, foreign["id"], project="alice")

    if is_in(OWN, row) or is_in(VISIBLE, row):
        assert status == 404
    assert noauth.images[foreign["id"]] == before


class Recorder:
    """What the store is asked, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[object, ...]] = []
        owners, of_instance = Overlay.owners, Overlay.images_of_instance
        of_project = Overlay.images_of_project

        async def record_owners(
            overlay: Overlay, registry: str, image_ids: Collection[str]
        ) -> Mapping[str, Ownership]:
            self.asked.append(("owners", registry, tuple(image_ids)))
            return await owners(overlay, registry, image_ids)

        async def record_instance(overlay: Overlay, registry: str, query: InstanceQuery) -> Any:
            self.asked.append(("instance", registry, query))
            return await of_instance(overlay, registry, query)

        async def record_project(
            overlay: Overlay, registry: str, project: str, *, at_most: int
        ) -> Any:
            self.asked.append(("project", registry, project, at_most))
            return await of_project(overlay, registry, project, at_most=at_most)

        monkeypatch.setattr(Overlay, "owners", record_owners)
        monkeypatch.setattr(Overlay, "images_of_instance", record_instance)
        monkeypatch.setattr(Overlay, "images_of_project", record_project)

    def without(self, image_id: str) -> list[str]:
        return [repr(call).replace(image_id, "ID") for call in self.asked]


BY_ID = [
    (row.method, target_of(row, "ID"), BODIES.get((row.method, path_of(row))))
    for row in TABLE
    if is_in(OWN, row) or is_in(VISIBLE, row)
]
LISTS = ["marker=ID", "id=ID", "id=in:ID", "id=in:ID&visibility=all&limit=3"]


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [*BY_ID, *(("GET", f"/v2/images?{query}", None) for query in LISTS)],
)
async def test_a_foreign_id_and_an_absent_one_are_looked_up_alike(
    method: str,
    target: str,
    body: bytes | None,
    only_wall: Client,
    noauth: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = (await only_wall.create("theirs", "bob", fields={"visibility": "private"})).json()
    recorder, seen = Recorder(monkeypatch), []
    for image_id in (theirs["id"], str(uuid.uuid4())):
        recorder.asked.clear()
        noauth.requests.clear()
        answer = await only_wall.call(
            method, target.replace("ID", image_id), project="alice", data=body
        )
        upstream = [(r.method, r.target.replace(image_id, "ID")) for r in noauth.requests]
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in CHANGING}
        text = answer.body.replace(image_id.encode(), b"ID")
        seen.append((answer.status, kept, text, recorder.without(image_id), upstream))

    assert seen[0] == seen[1]
    assert seen[0][3], "the store was asked"


@each_row
async def test_a_registry_that_has_callers_judges_every_route_itself(
    row: TableRow, second_wall: Client, trusting: StandIn
) -> None:
    theirs = trusting.add_image(owner="bob", visibility="private", name="secret")["id"]
    for caller in ({}, {"project": "alice"}, {"project": "ops", "roles": "admin"}):
        trusting.requests.clear()
        await asked(second_wall, row, theirs, **caller)
        *before, request = trusting.requests if row.name != "image-list" else trusting.requests[:1]
        # Which image it is that goes is asked with the caller's own eyes, as always.
        looked = [("GET", f"/v2/images/{theirs}")] if row.name == "image-delete" else []
        assert [(r.method, r.target) for r in before] == looked
        assert request.method == row.method
        if row.name != "image-list":
            assert request.target == target_of(row, theirs)


@pytest.mark.parametrize("path", sorted({path_of(row) for row in TABLE}))
async def test_a_method_without_a_row_is_405_at_the_only_wall_and_the_registrys_elsewhere(
    path: str, only_wall: Client, noauth: StandIn, second_wall: Client, trusting: StandIn
) -> None:
    rows = [row for row in TABLE if path_of(row) == path]
    target = target_of(rows[0], str(uuid.uuid4()))
    for method in sorted(set(METHODS) - {row.method for row in rows}):
        noauth.requests.clear()
        answer = await only_wall.call(method, target, project="alice")
        assert answer.status == 405, method
        assert answer.headers["Allow"] == ", ".join(row.method for row in rows)
        assert noauth.requests == []
        trusting.requests.clear()
        await second_wall.call(method, target, project="alice")
        assert [(r.method, r.target) for r in trusting.requests] == [(method, target)]
