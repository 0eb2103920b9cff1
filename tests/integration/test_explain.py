"""Why a project sees an image or not: on the admin listener, and as a command beside relproxy."""

from __future__ import annotations

import asyncio
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from lab.processes import free_port
from lab.relproxy import command
from lab.stand_in import StandIn
from relproxy.model import ImageRecord
from relproxy.store.sqlite import SqliteStore
from tests.integration.conftest import EAST, Client, Serve, Wall, eventually, registry
from tests.integration.test_store_away import broken, locked, unwritable

ABSENT = "11111111-2222-4333-8444-555555555555"
TUPLE = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "123"}
LATER = "2031-01-01T00:00:00Z"


async def explained(client: Client, image_id: str, project: str, *roles: str) -> dict[str, Any]:
    """Return the explanation for the one registry."""
    asked = [("project", project), ("image_id", image_id), *(("role", role) for role in roles)]
    answer = await client.get(f"/v1/explain?{urlencode(asked)}", url=client.admin_url)
    assert answer.status == 200, answer.body
    (found,) = answer.json()["registries"]
    return dict(found)


def verdict(answer: dict[str, Any]) -> tuple[bool | None, str | None]:
    return answer["is_visible"], answer["rule"]


async def undelivered(client: Client, image_id: str) -> int:
    """Return how much the journal still has for an image: it is marked after the 201."""
    found = await explained(client, image_id, "alice")
    return sum(len(record["pending"]) for record in found["records"])


async def made(client: Client, project: str, **fields: Any) -> str:
    created = await client.create("x", project, fields={"visibility": "private", **fields})
    assert created.status == 201, created.body
    return str(created.json()["id"])


async def test_the_only_wall_explains_by_record(only_wall: Client, noauth: StandIn) -> None:
    image_id = await made(only_wall, "alice", instance_id="123")
    await eventually(lambda: undelivered(only_wall, image_id), 0)
    mine = await explained(only_wall, image_id, "alice")
    assert verdict(mine["in_lists"]) == verdict(mine["by_id"]) == (True, "own by record")
    assert mine["is_own"] is True
    (record,) = mine["records"]
    assert (record["project"], record["instance_id"], record["grade"]) == (
        *("alice", "123", "claimed"),
    )
    assert record["nova_installation_uuid"] == EAST
    assert record["created_at"] == mine["image"]["created_at"]
    assert (record["pending"], record["is_of_the_image"], record["deleted_at"]) == ([], True, None)
    assert mine["image"]["status"] == "queued"
    theirs = await explained(only_wall, image_id, "bob")
    assert verdict(theirs["in_lists"]) == verdict(theirs["by_id"]) == (False, "foreign")
    assert theirs["is_own"] is False
    admins = await explained(only_wall, image_id, "ops", "member", "Admin")
    assert verdict(admins["by_id"]) == (True, "admin")
    public = noauth.add_image(visibility="public")["id"]
    seen = await explained(only_wall, public, "bob")
    assert (verdict(seen["by_id"]), seen["is_own"]) == ((True, "public"), False)
    unrecorded = await explained(only_wall, noauth.add_image(visibility="private")["id"], "bob")
    assert verdict(unrecorded["in_lists"]) == (False, "no record")
    assert unrecorded["records"] == []


async def test_the_second_wall_explains_lists_and_leaves_ids_to_the_registry(
    second_wall: Client, trusting: StandIn
) -> None:
    for fields, project, expected in (
        ({"owner": "alice", "visibility": "private"}, "alice", (True, "own by owner")),
        ({"owner": "alice", "visibility": "private"}, "bob", (False, "foreign")),
        ({"owner": "alice", "visibility": "shared"}, "bob", (True, "shared")),
        ({"owner": "alice", "visibility": "public"}, "bob", (True, "public")),
        ({"owner": "alice", "visibility": "community"}, "bob", (False, "community, not asked for")),
    ):
        found = await explained(second_wall, trusting.add_image(**fields)["id"], project)
        assert verdict(found["in_lists"]) == expected
        assert verdict(found["by_id"]) == (None, None)
        assert found["by_id"]["sentence"].startswith("The registry judges")
        assert found["unknown"] == []


async def test_who_makes_an_admin_is_said(second_wall: Client, trusting: StandIn) -> None:
    image_id = trusting.add_image(owner="alice")["id"]
    query = f"/v1/explain?project=ops&image_id={image_id}&role=reader&role=ADMIN"
    whole = (await second_wall.get(query, url=second_wall.admin_url)).json()
    assert (whole["provider"], whole["admin_roles"]) == ("headers", ["admin"])
    assert (whole["roles"], whole["is_admin"]) == (["ADMIN", "reader"], True)
    (found,) = whole["registries"]
    assert (found["tenancy"], found["upstream_identity"]) == ("registry", "headers")
    assert "sees what the registry lists for it" in found["in_lists"]["sentence"]


async def test_an_image_that_only_some_lists_hold_is_said_to_be_one(
    second_wall: Client, trusting: StandIn
) -> None:
    image_id = trusting.add_image(owner="alice", os_hidden=True)["id"]
    found = await explained(second_wall, image_id, "alice")
    assert found["image"]["os_hidden"] is True
    assert found["in_lists"]["sentence"].endswith("os_hidden=true holds it.")


async def test_every_record_under_an_id_that_was_created_anew_is_shown(
    only_wall: Client, noauth: StandIn
) -> None:
    image_id = await made(only_wall, "alice")
    noauth.images.pop(image_id)
    noauth.add_image(id=image_id, visibility="private", created_at=LATER)
    anew = await explained(only_wall, image_id, "alice")
    assert verdict(anew["in_lists"]) == (False, "record of another image of this id")
    assert [record["is_of_the_image"] for record in anew["records"]] == [False]
    at = datetime(2031, 1, 1, tzinfo=UTC)
    await put(only_wall.store, ImageRecord("glance", image_id, LATER, "bob", None, at))
    assert verdict((await explained(only_wall, image_id, "bob"))["in_lists"]) == (
        *(True, "own by record"),
    )
    hidden = await explained(only_wall, image_id.upper(), "alice")
    assert [(r["project"], r["is_of_the_image"]) for r in hidden["records"]] == [
        ("bob", False),  # The registry has no image whose id is in capitals.
        ("alice", False),
    ]
    foreign = await explained(only_wall, image_id, "alice")
    assert verdict(foreign["in_lists"]) == (False, "foreign")
    assert [(r["project"], r["is_of_the_image"]) for r in foreign["records"]] == [
        *(("bob", True), ("alice", False)),
    ]


async def put(store: Path, record: ImageRecord) -> None:
    opened = SqliteStore(store)
    await opened.open()
    await opened.put([record])
    await opened.close()


async def test_an_image_that_is_gone_leaves_its_record_to_be_shown(wall: Wall) -> None:
    image_id = await made(wall.client, "alice", instance_id="123")
    gone = await wall.client.call("DELETE", f"/v2/images/{image_id}", project="alice")
    assert gone.status == 204
    found = await explained(wall.client, image_id, "alice")
    is_sure = wall.name == "only_wall"
    assert verdict(found["in_lists"]) == (False if is_sure else None, None)
    assert "no image with this id" in found["in_lists"]["sentence"]
    assert found["records"][0]["deleted_at"] is not None
    assert (found["image"], found["is_own"], found["unknown"]) == (None, None, [])


async def test_a_registry_that_is_away_hides_no_records(serve: Serve, noauth: StandIn) -> None:
    client = await serve(registries=[registry(noauth.url, "relproxy")])
    image_id = await made(client, "alice")
    noauth.faults.drop = True
    found = await explained(client, image_id, "alice")
    assert verdict(found["in_lists"]) == verdict(found["by_id"]) == (None, None)
    assert [record["project"] for record in found["records"]] == ["alice"]
    assert found["unknown"] == ["The image: The registry can't be reached."]


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_a_registry_that_tells_relproxy_nothing_is_named(wall: Wall, status: int) -> None:
    wall.glance.faults.status = (status, b"no")
    found = await explained(wall.client, ABSENT, "alice")
    assert verdict(found["in_lists"]) == (None, None)
    assert found["unknown"] == [
        f"The image: the registry answers {status} to relproxy's own question."
    ]


async def test_a_registry_that_is_silent_is_not_waited_for(serve: Serve, noauth: StandIn) -> None:
    noauth.faults.delay = asyncio.Event()
    client = await serve(
        registries=[registry(noauth.url, "relproxy")], timeouts={"shutdown_s": 1, "probe_s": 0.05}
    )
    found = await explained(client, ABSENT, "alice")
    assert found["unknown"] == ["The image: the registry did not answer in time."]


async def test_an_answer_that_can_not_be_read_is_hidden_from_everyone(
    only_wall: Client, noauth: StandIn
) -> None:
    noauth.faults.status = (200, b'{"id": "a", "id": "b"}')
    found = await explained(only_wall, ABSENT, "alice")
    assert verdict(found["in_lists"]) == verdict(found["by_id"]) == (False, "unreadable")


async def test_without_the_store_what_does_not_hang_on_it_is_explained(
    only_wall: Client, noauth: StandIn
) -> None:
    image_id = await made(only_wall, "alice")
    await eventually(lambda: undelivered(only_wall, image_id), 0)
    public = noauth.add_image(visibility="public")["id"]
    with broken(only_wall):
        unsure = await explained(only_wall, image_id, "alice")
        assert verdict(unsure["in_lists"]) == verdict(unsure["by_id"]) == (None, None)
        assert "hangs on the image's record" in unsure["in_lists"]["sentence"]
        assert (unsure["is_own"], unsure["records"]) == (None, [])
        assert unsure["unknown"] == ["What the store has: The store can't be read or written now."]
        assert verdict((await explained(only_wall, public, "bob"))["in_lists"]) == (True, "public")
        admins = await explained(only_wall, image_id, "ops", "admin")
        assert verdict(admins["in_lists"]) == (True, "admin")


async def test_a_record_that_is_still_in_the_journal_is_said_to_be_there(
    only_wall: Client,
) -> None:
    with locked(only_wall):
        image_id = await made(only_wall, "alice")
        found = await explained(only_wall, image_id, "alice")
        assert verdict(found["in_lists"]) == (True, "own by record")
        assert [record["pending"] for record in found["records"]] == [["create"]]
        gone = await only_wall.call("DELETE", f"/v2/images/{image_id}", project="alice")
        assert gone.status == 204
        (record,) = (await explained(only_wall, image_id, "alice"))["records"]
        assert record["deleted_at"] is not None
        assert record["pending"] == ["create", "burial"]


async def test_with_the_store_away_the_journal_is_still_read(only_wall: Client) -> None:
    with broken(only_wall):
        image_id = await made(only_wall, "alice")
        found = await explained(only_wall, image_id, "alice")
    assert [(r["project"], r["pending"]) for r in found["records"]] == [("alice", ["create"])]


async def test_a_create_in_doubt_is_shown(only_wall: Client, noauth: StandIn) -> None:
    noauth.faults.drop_after_create = True
    assert (await only_wall.create("x", "alice")).status == 502
    noauth.faults.status = (500, b"")
    (entry,) = await only_wall.in_doubt()
    found = await explained(only_wall, entry["image_id"], "alice")
    assert [(e["entry"], e["project"]) for e in found["in_doubt"]] == [(entry["entry"], "alice")]
    assert found["records"] == []


async def test_what_is_explained_is_what_is_listed(wall: Wall) -> None:
    for project in ("alice", "bob"):
        for visibility in ("private", "public"):
            roles = "admin" if visibility == "public" else "member"
            fields = {"visibility": visibility, "owner": project}
            created = await wall.client.create("x", project, fields=fields, roles=roles)
            assert created.status == 201
    wall.glance.add_image(visibility="private", owner="carol")
    for project, role in (("alice", "member"), ("bob", "member"), ("ops", "admin")):
        listed = await wall.client.get("/v2/images", project=project, roles=role)
        shown = {image["id"] for image in listed.json()["images"]}
        for image_id in wall.glance.images:
            found = await explained(wall.client, image_id, project, role)
            assert found["in_lists"]["is_visible"] is (image_id in shown), found


@pytest.mark.parametrize(
    "image_id", ["../tasks", "a/b", "a%2Fb", "a\0", "a?b", "a b", "", "x" * 65, "\u00e9", "."]
)
async def test_an_id_that_could_be_another_path_is_refused(wall: Wall, image_id: str) -> None:
    query = urlencode({"project": "alice", "image_id": image_id})
    answer = await wall.client.get(f"/v1/explain?{query}", url=wall.client.admin_url)
    assert answer.status == 400
    assert answer.json()["message"].endswith(".")
    assert wall.glance.requests == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("project=a", 400),
        (f"image_id={ABSENT}", 400),
        (f"project=&image_id={ABSENT}", 400),
        (f"project=a&project=b&image_id={ABSENT}", 400),
        (f"project=a&image_id={ABSENT}&roles=admin", 400),
        (f"project=a&image_id={ABSENT}&role=x&role=", 400),
        (f"project=a&image_id={ABSENT}&registry=nope", 404),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_with_a_sentence(
    second_wall: Client, query: str, status: int
) -> None:
    answer = await second_wall.get(f"/v1/explain?{query}", url=second_wall.admin_url)
    assert answer.status == status
    assert answer.json()["message"].endswith(".")


async def test_each_registry_is_asked_or_the_one_that_is_named(
    serve: Serve, noauth: StandIn
) -> None:
    away = registry(f"http://127.0.0.1:{free_port()}", "registry") | {"name": "away"}
    client = await serve(registries=[registry(noauth.url, "relproxy"), away])
    image_id = await made(client, "alice")
    query = f"/v1/explain?project=alice&image_id={image_id}"
    both = (await client.get(query, url=client.admin_url)).json()["registries"]
    assert [(r["registry"], len(r["records"])) for r in both] == [("glance", 1), ("away", 0)]
    one = (await client.get(f"{query}&registry=away", url=client.admin_url)).json()["registries"]
    assert [r["registry"] for r in one] == ["away"]


# -- the command


def configured(home: Path, client: Client | None, **section: Any) -> Path:
    """Write a configuration that names the files of a running relproxy, or files that aren't."""
    store = client.store if client else home / "none.db"
    journal = client.journal if client else home / "no-journal"
    settings = {
        "listeners": [{"name": "public", "bind": "127.0.0.1:0"}],
        "journal": {"directory": str(journal)},
        "store": {"path": str(store)},
        "routes": [{"name": "all", "registry": "glance"}],
        **section,
    }
    file = home / "explain.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


async def ran(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(command, "explain", "--config", str(file), *arguments)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_the_command_says_what_the_admin_listener_says(wall: Wall, tmp_path: Path) -> None:
    """And takes no place among the journals, and writes nothing, beside a running relproxy."""
    image_id = await made(wall.client, "alice", instance_id="123")
    await eventually(lambda: undelivered(wall.client, image_id), 0)
    tenancy = "relproxy" if wall.name == "only_wall" else "registry"
    file = configured(tmp_path, wall.client, registries=[registry(wall.glance.url, tenancy)])
    before = names_in(wall.client.journal)
    question = ("--project", "alice", "--image", image_id)
    told = await ran(file, *question, "--role", "member", "reader", "--json")
    assert (told.returncode, told.stderr) == (0, "")
    query = f"/v1/explain?project=alice&image_id={image_id}&role=member&role=reader"
    listener = await wall.client.get(query, url=wall.client.admin_url)
    assert json.loads(told.stdout) == listener.json()
    plain = await ran(file, *question, "--registry", "glance")
    rule = "own by record" if wall.name == "only_wall" else "own by owner"
    assert f"in lists: shown ({rule})" in plain.stdout
    assert "instance_id: 123" in plain.stdout
    assert "delivered to the store" in plain.stdout
    assert names_in(wall.client.journal) == before


async def test_the_command_reads_what_a_running_relproxy_has_not_delivered(
    only_wall: Client, noauth: StandIn, tmp_path: Path
) -> None:
    file = configured(tmp_path, only_wall, registries=[registry(noauth.url, "relproxy")])
    with unwritable(only_wall):
        image_id = await made(only_wall, "alice")
        told = await ran(file, "--project", "alice", "--image", image_id)
    assert "in lists: shown (own by record)" in told.stdout
    assert "this host's journal still has: create" in told.stdout


async def test_the_command_works_without_a_relproxy_and_makes_nothing(tmp_path: Path) -> None:
    away = registry(f"http://127.0.0.1:{free_port()}", "relproxy")
    file = configured(tmp_path, None, registries=[away])
    told = await ran(file, "--project", "alice", "--image", ABSENT)
    assert told.returncode == 0
    assert "not learned: What the store has: The store" in told.stdout
    assert "not learned: The image: The registry can't be reached." in told.stdout
    assert names_in(tmp_path) == ["explain.yaml"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--image", "../x"), "That is no image's id"),
        (("--image", ABSENT, "--registry", "nope"), "No registry is named 'nope'; known: glance."),
    ],
)
async def test_the_command_ends_with_1_where_nothing_is_explained(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    file = configured(tmp_path, None, registries=[registry("http://127.0.0.1:1", "relproxy")])
    refused = await ran(file, "--project", "alice", *arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(sentence)
    broken_file = configured(tmp_path, None, registries=[])
    assert (await ran(broken_file, "--project", "a", "--image", ABSENT)).returncode == 1
