from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from lab.stand_in import StandIn
from relproxy.store.sqlite import SqliteStore
from tests.integration.conftest import Client, Serve, Wall, registry

ABSENT = "11111111-2222-4333-8444-555555555555"
PATCH = "application/openstack-images-v2.1-json-patch"
OLD_PATCH = "application/openstack-images-v2.0-json-patch"

BY_ID = [
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("GET", "/file"),
    ("PUT", "/file"),
    ("PUT", "/stage"),
    ("POST", "/import"),
    ("PUT", "/tags/blue"),
    ("DELETE", "/tags/blue"),
]
BODIES: dict[tuple[str, str], Any] = {
    ("PATCH", ""): b"[]",
    ("POST", "/import"): b'{"method": {"name": "glance-direct"}}',
    ("PUT", "/file"): b"data",
}


async def private(client: Client, project: str) -> str:
    created = await client.create("secret", project, fields={"visibility": "private"})
    image_id: str = created.json()["id"]
    return image_id


@pytest.mark.parametrize(("method", "rest"), BY_ID)
async def test_a_foreign_id_and_an_absent_one_give_the_same_answer_after_the_same_calls(
    only_wall: Client, noauth: StandIn, method: str, rest: str
) -> None:
    foreign = await private(only_wall, "bob")
    seen = []
    for image_id in (foreign, ABSENT):
        noauth.requests.clear()
        target = f"/v2/images/{image_id}{rest}"
        answer = await only_wall.call(
            method, target, project="alice", data=BODIES.get((method, rest))
        )
        changing = {"Date", "X-Openstack-Request-Id"}
        kept = {k: v for k, v in answer.headers.items() if k not in changing}
        calls = [(r.method, r.target.replace(image_id, "ID")) for r in noauth.requests]
        seen.append((answer.status, kept, answer.body.replace(image_id.encode(), b"ID"), calls))
    assert seen[0] == seen[1]
    assert seen[0][0] == 404
    assert seen[0][3] == [("GET", "/v2/images/ID")]
    assert noauth.images[foreign]["status"] == "queued"


async def test_a_foreign_id_whose_record_is_on_its_way_costs_the_calls_of_an_absent_one(
    only_wall: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store can be read and not written: a lock here, a full disk or a standby elsewhere."""
    calls: list[str] = []

    def count(name: str) -> None:
        asking = getattr(SqliteStore, name)

        def counted(store: SqliteStore, *given: Any) -> Any:
            calls.append(name)
            return asking(store, *given)

        monkeypatch.setattr(SqliteStore, name, counted)

    for name in ("owners", "changes", "records_of", "records"):
        count(name)
    with closing(sqlite3.connect(only_wall.store, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        foreign = await private(only_wall, "bob")
        seen = []
        for image_id in (foreign, ABSENT):
            calls.clear()
            answer = await only_wall.get(f"/v2/images/{image_id}", project="alice")
            seen.append((answer.status, list(calls)))
        lock.execute("ROLLBACK")
    assert seen == [(404, ["owners", "changes"])] * 2


async def test_a_public_image_may_be_read_and_not_changed(
    only_wall: Client, noauth: StandIn
) -> None:
    public = noauth.add_image(name="debian", visibility="public")["id"]
    shown = await only_wall.get(f"/v2/images/{public}", project="alice")
    assert (shown.status, shown.json()["name"]) == (200, "debian")
    assert (await only_wall.get(f"/v2/images/{public}/file", project="alice")).status == 204
    for method, rest in BY_ID:
        if method != "GET":
            answer = await only_wall.call(
                method,
                f"/v2/images/{public}{rest}",
                project="alice",
                data=BODIES.get((method, rest)),
            )
            assert answer.status == 404, (method, rest)
    assert public in noauth.images


async def test_an_own_image_may_be_used_in_every_way(only_wall: Client, noauth: StandIn) -> None:
    image_id = await private(only_wall, "alice")
    target = f"/v2/images/{image_id}"
    assert (await only_wall.get(target, project="alice")).status == 200
    uploaded = await only_wall.call("PUT", f"{target}/file", project="alice", data=b"12345")
    assert uploaded.status == 204
    assert len((await only_wall.get(f"{target}/file", project="alice")).body) == 5
    renamed = await only_wall.call(
        "PATCH",
        target,
        project="alice",
        data=json.dumps([{"op": "replace", "path": "/name", "value": "mine"}]),
        headers={"Content-Type": PATCH},
    )
    assert renamed.json()["name"] == "mine"
    assert (await only_wall.call("PUT", f"{target}/tags/x", project="alice")).status == 204
    assert (await only_wall.call("DELETE", target, project="alice")).status == 204
    assert image_id not in noauth.images


async def test_an_upper_case_id_is_the_same_image(only_wall: Client, noauth: StandIn) -> None:
    """MariaDB compares ids without case: what is asked in capitals may be a foreign image."""
    image_id = await private(only_wall, "bob")
    noauth.images[image_id.upper()] = noauth.images[image_id]
    answer = await only_wall.get(f"/v2/images/{image_id.upper()}", project="alice")
    assert answer.status == 404
    assert (await only_wall.get(f"/v2/images/{image_id.upper()}", project="bob")).status == 200


async def test_a_record_says_nothing_of_an_image_created_anew_under_its_id(
    only_wall: Client, noauth: StandIn
) -> None:
    image_id = await private(only_wall, "alice")
    noauth.images.pop(image_id)
    noauth.add_image(
        id=image_id, name="secret", visibility="private", created_at="2031-01-01T00:00:00Z"
    )
    assert (await only_wall.get(f"/v2/images/{image_id}", project="alice")).status == 404
    assert (await only_wall.get("/v2/images", project="alice")).names == []


@pytest.mark.parametrize("media_type", [PATCH, OLD_PATCH])
@pytest.mark.parametrize(
    "pointer",
    [
        "/owner",
        "/visibility",
        "/locations",
        "/locations/-",
        "//owner",
        "/ owner ",
        "/owner/x",
        # Glance sets any attribute of its image object: with this one it saves another image.
        "/image_id",
        "/ image_id ",
        "//image_id",
        "/extra_properties",
        "/__class__",
    ],
)
async def test_a_project_can_not_take_or_publish_an_image_by_any_spelling_of_a_patch(
    only_wall: Client, noauth: StandIn, media_type: str, pointer: str
) -> None:
    image_id = await private(only_wall, "alice")
    noauth.requests.clear()
    for operation in ("add", "replace", "remove"):
        change = {"op": operation, "path": pointer, "value": "x", operation: pointer}
        answer = await only_wall.call(
            "PATCH",
            f"/v2/images/{image_id}",
            project="alice",
            data=json.dumps([change]),
            headers={"Content-Type": media_type},
        )
        assert answer.status == 403
        assert b"You may not change" in answer.body
    assert noauth.requests == []


@pytest.mark.parametrize("pointer", ["/image_id", "/base"])
async def test_not_even_an_admin_changes_what_relproxys_records_rest_on(
    only_wall: Client, noauth: StandIn, pointer: str
) -> None:
    image_id = await private(only_wall, "alice")
    noauth.requests.clear()
    answer = await only_wall.call(
        "PATCH",
        f"/v2/images/{image_id}",
        project="ops",
        roles="admin",
        data=json.dumps([{"op": "replace", "path": pointer, "value": ABSENT}]),
        headers={"Content-Type": PATCH},
    )
    assert answer.status == 403
    assert noauth.requests == []


async def test_no_cache_may_show_an_image_to_another_project(only_wall: Client) -> None:
    image_id = await private(only_wall, "alice")
    shown = await only_wall.get(f"/v2/images/{image_id}", project="alice")
    assert shown.headers["Cache-Control"] == "private, no-store"
    assert "X-Auth-Token" in shown.headers["Vary"]


async def test_a_deleted_image_stays_a_relation_and_owns_nothing(wall: Wall) -> None:
    created = await wall.client.create("x", "alice", fields={"instance_id": "1"})
    image_id = created.json()["id"]
    foreign = await wall.client.call("DELETE", f"/v2/images/{image_id}", project="bob")
    assert foreign.status in {403, 404}
    (relation,) = await wall.client.relations("instance_id=1")
    assert relation["deleted_at"] is None
    gone = await wall.client.call("DELETE", f"/v2/images/{image_id.upper()}", project="alice")
    assert gone.status == 404
    gone = await wall.client.call("DELETE", f"/v2/images/{image_id}", project="alice")
    assert gone.status == 204
    (relation,) = await wall.client.relations("instance_id=1")
    assert relation["deleted_at"] is not None
    wall.glance.requests.clear()
    assert (await wall.client.get("/v2/images?instance_id=1", project="alice")).names == []
    assert image_id not in wall.glance.requests[-1].target


@pytest.mark.parametrize(
    "fields",
    [
        {"visibility": "public"},
        {"visibility": "community"},
        {"visibility": ["private"]},
        {"owner": "bob"},
        {"locations": []},
        {"id": ABSENT},
    ],
)
async def test_a_project_can_not_create_what_only_an_admin_may(
    only_wall: Client, noauth: StandIn, fields: dict[str, Any]
) -> None:
    assert (await only_wall.create("x", "alice", fields=fields)).status == 403
    assert noauth.requests == []


async def test_a_chosen_id_may_be_allowed(serve: Serve, noauth: StandIn) -> None:
    client = await serve(registries=[registry(noauth.url, "relproxy", chosen_image_ids="allow")])
    created = await client.create("x", "alice", fields={"id": ABSENT})
    assert (created.status, created.json()["id"]) == (201, ABSENT)
    assert (await client.get(f"/v2/images/{ABSENT}", project="alice")).status == 200


ADMIN_ONLY = [
    ("GET", "/v2/tasks"),
    ("GET", "/v2/tasks/x"),
    ("POST", "/v2/tasks"),
    ("GET", f"/v2/images/{ABSENT}/locations"),
    ("POST", f"/v2/images/{ABSENT}/locations"),
    ("GET", f"/v2/images/{ABSENT}/tasks"),
    ("POST", f"/v2/images/{ABSENT}/actions/deactivate"),
    ("POST", f"/v2/images/{ABSENT}/actions/reactivate"),
    ("DELETE", f"/v2/stores/file/{ABSENT}"),
    ("GET", "/v2/cache"),
    ("PUT", f"/v2/cache/{ABSENT}"),
    ("GET", "/v2/info/usage"),
    ("GET", "/v2/info/stores/detail"),
    ("POST", "/v2/metadefs/namespaces"),
    ("GET", "/v2/metadefs/namespaces"),
    ("GET", "/healthcheck"),
    ("GET", f"/v2/images/{ABSENT}/members"),
    ("POST", f"/v2/images/{ABSENT}/members"),
    ("PUT", f"/v2/images/{ABSENT}/members/bob"),
]


@pytest.mark.parametrize(("method", "target"), ADMIN_ONLY)
async def test_ways_around_a_list_filter_are_closed_to_projects(
    only_wall: Client, noauth: StandIn, method: str, target: str
) -> None:
    answer = await only_wall.call(method, target, project="alice")
    assert answer.status == 403
    assert noauth.requests == []


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v3/images", 404),
        ("GET", f"/v2/images/{ABSENT}/unheard-of", 404),
        ("HEAD", "/v2/images", 405),
        ("DELETE", "/v2/images", 405),
        ("POST", f"/v2/images/{ABSENT}", 405),
    ],
)
async def test_what_has_no_row_in_the_table_is_refused_by_the_only_wall(
    only_wall: Client, noauth: StandIn, method: str, target: str, status: int
) -> None:
    answer = await only_wall.call(method, target, project="alice")
    assert answer.status == status
    assert (status == 405) == ("Allow" in answer.headers)
    assert noauth.requests == []


async def test_versions_and_schemas_are_open(only_wall: Client) -> None:
    assert (await only_wall.get("/versions")).status == 200
    assert (await only_wall.get("/")).status == 300
    assert (await only_wall.get("/v2/schemas/image", project="alice")).status == 200
    assert (await only_wall.get("/v2/schemas/image")).status == 401


async def test_an_admin_may_do_everything(only_wall: Client, noauth: StandIn) -> None:
    image_id = await private(only_wall, "bob")
    shown = await only_wall.get(f"/v2/images/{image_id}", project="ops", roles="admin")
    assert shown.status == 200
    publish = json.dumps([{"op": "replace", "path": "/visibility", "value": "public"}])
    answer = await only_wall.call(
        "PATCH",
        f"/v2/images/{image_id}",
        project="ops",
        roles="Admin",
        data=publish,
        headers={"Content-Type": PATCH},
    )
    assert answer.status == 200
    assert noauth.images[image_id]["visibility"] == "public"
    assert (await only_wall.get("/v2/images", project="alice")).names == ["secret"]


async def test_by_id_requests_are_the_registrys_to_judge_where_it_has_callers(
    second_wall: Client, trusting: StandIn
) -> None:
    theirs = trusting.add_image(owner="bob", visibility="private", name="secret")["id"]
    community = trusting.add_image(owner="bob", visibility="community")["id"]
    assert (await second_wall.get(f"/v2/images/{theirs}", project="alice")).status == 404
    assert (await second_wall.get(f"/v2/images/{community}", project="alice")).status == 200
    assert (await second_wall.get("/v2/unheard-of", project="alice")).status == 404


async def test_a_repeated_key_in_a_patch_is_refused(wall: Wall) -> None:
    image_id = await private(wall.client, "alice")
    wall.glance.requests.clear()
    answer = await wall.client.call(
        "PATCH",
        f"/v2/images/{image_id}",
        project="alice",
        data=b'[{"op": "replace", "path": "/name", "path": "/owner", "value": "x"}]',
        headers={"Content-Type": PATCH},
    )
    assert answer.status == 400
    assert b"repeats a key" in answer.body
    assert wall.glance.requests == []


async def test_an_import_by_any_other_method_is_for_admins(
    only_wall: Client, noauth: StandIn
) -> None:
    image_id = await private(only_wall, "alice")
    noauth.requests.clear()
    for method in ("web-download", "copy-image", "glance-download", None):
        answer = await only_wall.post(
            f"/v2/images/{image_id}/import", project="alice", json={"method": {"name": method}}
        )
        assert answer.status == 403
    assert noauth.requests == []


async def test_a_registry_that_fails_to_say_what_an_image_is_makes_a_502_not_a_404(
    only_wall: Client, noauth: StandIn
) -> None:
    image_id = await private(only_wall, "alice")
    noauth.faults.status = (500, b"secret trace")
    answer = await only_wall.get(f"/v2/images/{image_id}", project="alice")
    assert answer.status == 502
    assert b"secret" not in answer.body


async def test_an_answer_about_another_image_is_not_shown(
    only_wall: Client, noauth: StandIn
) -> None:
    """Both were created in one second: nothing else would tell it from the caller's own."""
    mine = (await only_wall.create("mine", "mallory")).json()
    other = noauth.add_image(
        name="secret", visibility="private", owner=None, created_at=mine["created_at"]
    )
    noauth.faults.status = (200, json.dumps(other).encode())
    answer = await only_wall.get(f"/v2/images/{mine['id']}", project="mallory")
    assert answer.status == 502
    assert b"secret" not in answer.body


async def test_nobody_is_asked_for_what_can_be_no_images_id(
    only_wall: Client, noauth: StandIn
) -> None:
    """MariaDB finds an image under its id with a space behind it, and it has no such record."""
    image_id = await private(only_wall, "alice")
    noauth.requests.clear()
    for spelling in (f"{image_id}%20", f"{ABSENT}%20", "1" * 7000):
        answer = await only_wall.get(f"/v2/images/{spelling}", project="alice")
        assert answer.status == 404
    assert noauth.requests == []


# -- caches on the way


@pytest.mark.parametrize("project", ["bob", "admin"])
async def test_no_cache_may_keep_an_answer_by_id_for_somebody_else(
    only_wall: Client, noauth: StandIn, project: str
) -> None:
    """A cache keeps what says nothing for a while: Varnish for two minutes."""
    image_id = await private(only_wall, "bob")
    noauth.faults.extra_headers = [
        ("Cache-Control", "public"), ("Surrogate-Control", "max-age=9"), ("Expires", "never")
    ]  # fmt: skip
    for method, rest in BY_ID:
        if (method, rest) == ("DELETE", ""):
            continue
        answer = await only_wall.call(
            method,
            f"/v2/images/{image_id}{rest}",
            project=project,
            roles="admin" if project == "admin" else "member",
            data=BODIES.get((method, rest)),
        )
        assert answer.headers["Cache-Control"] == "private, no-store", (method, rest)
        assert "X-Auth-Token" in answer.headers["Vary"]
        assert not {"Surrogate-Control", "Expires"} & set(answer.headers)


async def test_no_cache_may_answer_an_owner_with_a_refusal_of_somebody_else(wall: Wall) -> None:
    foreign = await private(wall.client, "bob")
    for target in (f"/v2/images/{foreign}", "/v2/images?limit=x"):
        refused = await wall.client.get(target, project="alice")
        assert refused.status in {400, 404}
        if wall.name == "only_wall" or refused.status == 400:
            assert refused.headers["Cache-Control"] == "no-store"
