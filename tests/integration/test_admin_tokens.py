"""The admin listener with tokens, as one who has the wrong one, or none, or one for a part."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.relproxy import command
from lab.stand_in import StandIn
from relproxy.admin.gate import NEEDS
from tests.integration.conftest import EAST, WEST, Answer, Client, Serve, registry
from tests.test_docs import admin_paths

SECRETS = {
    name: name[0] * 32 for name in ("operator", "prometheus", "alices", "both", "easts", "zones")
}
TOKENS: list[dict[str, Any]] = [
    {"name": "operator", "token": SECRETS["operator"], "scope": "all"},
    {"name": "prometheus", "token": SECRETS["prometheus"], "scope": "metrics"},
    {"name": "alices", "token": SECRETS["alices"], "projects": ["alice"]},
    {"name": "both", "token": SECRETS["both"], "projects": ["alice", "carol"]},
    {"name": "easts", "token": SECRETS["easts"], "installations": [EAST]},
    {"name": "zones", "token": SECRETS["zones"], "installations": [EAST, WEST]},
]
ABSENT = "ffffffff-0000-4000-8000-000000000000"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.yaml"
    write(path, yaml.safe_dump(TOKENS))
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.fixture
async def guarded_wall(serve: Serve, trusting: StandIn, file: Path) -> Client:
    """A relproxy whose admin listener has tokens; alice and bob have images of two Novas."""
    client = await serve(
        registries=[registry(trusting.url, "registry")],
        admin={"bind": "127.0.0.1:0", "tokens_file": file},
    )
    for project, installation in itertools.product(("alice", "bob"), (EAST, WEST)):
        for number in range(3):
            headers = {"X-Nova-Installation-UUID": installation, "X-Nova-Instance-ID": "123"}
            created = await client.create(f"{project}{number}", project, headers=headers)
            assert created.status == 201
    return client


async def ask(client: Client, target: str, who: str | None = None, **headers: str) -> Answer:
    shown = {"Authorization": f"Bearer {SECRETS[who]}"} if who else {}
    return await client.get(target, url=client.admin_url, headers={**shown, **headers})


def seen(answer: Answer) -> list[tuple[str, str]]:
    assert answer.status == 200, answer.body
    return [(r["project"], r["nova_installation_uuid"]) for r in answer.json()["relations"]]


def alike(answer: Answer) -> tuple[int, bytes, Mapping[str, str]]:
    """Return all that tells one answer from another."""
    return answer.status, answer.body, {k: v for k, v in answer.headers.items() if k != "Date"}


GUARDED = ["/metrics", "/v1/relations?project=alice", "/v1/journal", "/v1/explain", "/nothing"]
QUERIED_PROBES = ["/readyz?registry=glance", "/readyz?registry=nope", "/healthz?x"]


@pytest.mark.parametrize("target", [*GUARDED, *QUERIED_PROBES])
async def test_without_a_token_everything_has_one_answer(guarded_wall: Client, target: str) -> None:
    answer = await ask(guarded_wall, target)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="relproxy"'
    assert alike(answer) == alike(await ask(guarded_wall, "/v1/journal"))
    posted = await guarded_wall.post(target, url=guarded_wall.admin_url)
    assert alike(posted) == alike(answer)


@pytest.mark.parametrize(
    "shown",
    [
        {"Authorization": f"Bearer {'o' * 31}"},
        {"Authorization": f"Basic {SECRETS['operator']}"},
        {"Authorization": SECRETS["operator"]},
        {"X-Auth-Token": SECRETS["operator"]},
        {"Cookie": f"token={SECRETS['operator']}"},
        {"X-Roles": "admin", "X-Project-Id": "alice", "X-Forwarded-For": "127.0.0.1"},
    ],
    ids=lambda shown: next(iter(shown)),
)
async def test_what_is_no_token_opens_nothing(guarded_wall: Client, shown: dict[str, str]) -> None:
    none = await ask(guarded_wall, "/v1/journal")
    answer = await guarded_wall.get("/v1/journal", url=guarded_wall.admin_url, headers=shown)
    assert alike(answer) == alike(none)


async def test_two_tokens_are_none(guarded_wall: Client) -> None:
    shown = [("Authorization", f"Bearer {SECRETS['operator']}")] * 2
    url = f"{guarded_wall.admin_url}/v1/journal"
    async with guarded_wall.session.get(url, headers=shown) as answer:
        assert answer.status == 401
    in_the_query = f"/v1/journal?access_token={SECRETS['operator']}"
    assert (await ask(guarded_wall, in_the_query)).status == 401


MAY: Mapping[str, set[str]] = {
    "operator": set(),
    "prometheus": {"/metrics"},
    "alices": {"/v1/relations?project=alice"},
    "both": {"/v1/relations?project=alice"},
    "easts": {"/v1/relations?project=alice"},
    "zones": {"/v1/relations?project=alice"},
}


@pytest.mark.parametrize("who", SECRETS)
async def test_a_token_opens_what_it_is_for_and_nothing_else(
    guarded_wall: Client, who: str
) -> None:
    explain = f"/v1/explain?project=alice&image_id={ABSENT}"
    for target in ("/metrics", "/v1/relations?project=alice", "/v1/journal", explain):
        expected = 200 if target in MAY[who] or who == "operator" else 403
        if target.startswith("/v1/relations") and who == "zones":
            expected = 400  # It has to say of which installation.
        answer = await ask(guarded_wall, target, who)
        assert answer.status == expected, (who, target, answer.body)
        assert answer.headers["Cache-Control"] == "no-store"
    unknown = await ask(guarded_wall, "/nothing", who)
    assert unknown.status == (404 if who == "operator" else 403)


@pytest.mark.parametrize("who", [None, *SECRETS])
async def test_probes_are_open_and_say_no_more_than_whether_it_is_ready(
    guarded_wall: Client, who: str | None
) -> None:
    alive, ready = await ask(guarded_wall, "/healthz", who), await ask(guarded_wall, "/readyz", who)
    assert (alive.status, alive.json()) == (200, {"status": "alive"})
    if who == "operator":
        assert ready.json()["registries"]["glance"]["ready"]
    else:
        assert (ready.status, ready.json()) == (200, {"status": "ready"})
    named = await ask(guarded_wall, "/readyz?registry=nope", who)
    assert named.status == {None: 401, "operator": 404}.get(who, 403)


async def test_a_probe_with_a_wrong_token_is_answered(guarded_wall: Client) -> None:
    answer = await ask(guarded_wall, "/readyz", Authorization="Bearer wrong")
    assert (answer.status, answer.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize(
    ("who", "query", "expected"),
    [
        ("operator", "instance_id=123", {("alice", EAST), ("alice", WEST), ("bob", EAST),
                                         ("bob", WEST)}),
        ("alices", "instance_id=123", {("alice", EAST), ("alice", WEST)}),
        ("alices", "project=alice", {("alice", EAST), ("alice", WEST)}),
        ("alices", f"instance_id=123&nova_installation_uuid={EAST}", {("alice", EAST)}),
        ("both", "instance_id=123&project=alice", {("alice", EAST), ("alice", WEST)}),
        ("both", "project=carol", set()),
        ("easts", "instance_id=123", {("alice", EAST), ("bob", EAST)}),
        ("easts", "project=bob", {("bob", EAST)}),
        ("zones", f"instance_id=123&nova_installation_uuid={WEST}", {("alice", WEST),
                                                                     ("bob", WEST)}),
    ],
)  # fmt: skip
async def test_a_scope_sees_all_of_its_own_and_nothing_else(
    guarded_wall: Client, who: str, query: str, expected: set[tuple[str, str]]
) -> None:
    whole = seen(await ask(guarded_wall, f"/v1/relations?{query}", who))
    assert set(whole) == expected
    assert len(whole) == 3 * len(expected)
    walked, cursor = [], ""
    while cursor is not None:
        page = await ask(guarded_wall, f"/v1/relations?{query}&limit=2{cursor}", who)
        walked += seen(page)
        found = page.json()["next_cursor"]
        # Full pages: one that is short before the last would tell of what was left out.
        assert found is None or len(seen(page)) == 2
        cursor = found and f"&cursor={found}"
    assert walked == whole


async def image_ids(client: Client, project: str) -> list[str]:
    answer = await ask(client, f"/v1/relations?project={project}", "operator")
    return [relation["image_id"] for relation in answer.json()["relations"]]


@pytest.mark.parametrize("who", ["alices", "easts"])
async def test_what_is_foreign_has_the_answer_of_what_is_absent(
    guarded_wall: Client, who: str
) -> None:
    client = guarded_wall
    headers = {"X-Nova-Installation-UUID": WEST, "X-Nova-Instance-ID": "bobs"}
    foreign = (await client.create("foreign", "bob", headers=headers)).json()["id"]
    pairs = [
        (f"image_id={foreign}", f"image_id={ABSENT}"),
        ("instance_id=bobs", "instance_id=nobodys"),
        (f"instance_id=123&image_id={foreign}", f"instance_id=123&image_id={ABSENT}"),
        (f"image_id={foreign}&limit=1", f"image_id={ABSENT}&limit=1"),
    ]
    if who == "alices":
        pairs += [("project=bob", "project=nobody"), ("project=bob&limit=1", "project=x&limit=1")]
    else:
        asked = "instance_id=123&nova_installation_uuid="
        pairs += [(f"{asked}{WEST}", f"{asked}{ABSENT}")]
    whole = await ask(client, "/v1/relations?project=bob&limit=1", "operator")
    cursor = whole.json()["next_cursor"]
    pairs += [(f"{a}&cursor={cursor}", f"{b}&cursor={cursor}") for a, b in pairs]
    for of_another, of_none in pairs:
        answers = [await ask(client, f"/v1/relations?{q}", who) for q in (of_another, of_none)]
        assert alike(answers[0]) == alike(answers[1]), of_another
        assert answers[0].json() == {"relations": [], "next_cursor": None}, of_another


async def test_an_image_that_was_given_away_is_its_new_projects_alone(
    guarded_wall: Client,
) -> None:
    image_id = (await image_ids(guarded_wall, "alice"))[0]
    change = [{"op": "replace", "path": "/owner", "value": "bob"}]
    media = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    answer = await guarded_wall.call(
        "PATCH", f"/v2/images/{image_id}", project="alice", roles="admin", json=change,
        headers=media,
    )  # fmt: skip
    assert answer.status == 200, answer.body
    gone = await ask(guarded_wall, f"/v1/relations?image_id={image_id}", "alices")
    absent = await ask(guarded_wall, f"/v1/relations?image_id={ABSENT}", "alices")
    assert alike(gone) == alike(absent)


async def test_a_token_of_several_has_to_say_which_is_meant(guarded_wall: Client) -> None:
    both = await ask(guarded_wall, "/v1/relations?instance_id=123", "both")
    assert (both.status, both.json()["message"]) == (
        400,
        "Your token is for several: say which by 'project'.",
    )
    zones = await ask(guarded_wall, "/v1/relations?instance_id=123", "zones")
    assert "'nova_installation_uuid'" in zones.json()["message"]


async def test_a_token_taken_out_of_the_file_opens_nothing_from_then_on(
    guarded_wall: Client, file: Path
) -> None:
    assert (await ask(guarded_wall, "/v1/journal", "operator")).status == 200
    write(file, yaml.safe_dump(TOKENS[1:]))
    assert (await ask(guarded_wall, "/v1/journal", "operator")).status == 401
    assert (await ask(guarded_wall, "/metrics", "prometheus")).status == 200
    write(file, "- name: half-writ")
    refused = await ask(guarded_wall, "/metrics", "prometheus")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    assert (await ask(guarded_wall, "/readyz")).json() == {"status": "ready"}
    write(file, yaml.safe_dump(TOKENS))
    assert (await ask(guarded_wall, "/v1/journal", "operator")).status == 200


async def test_refusals_are_counted_and_logged_without_the_token(
    guarded_wall: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await ask(guarded_wall, "/v1/journal")
    await ask(guarded_wall, "/v1/journal", Authorization="Bearer secret-of-mine")
    await ask(guarded_wall, "/v1/journal", "alices")
    told = [vars(r) for r in caplog.records if r.message == "admin request refused"]
    assert [(r["reason"], r["path"], r["token"]) for r in told] == [
        ("missing", "/v1/journal", None),
        ("unknown", "/v1/journal", None),
        ("scope", "/v1/journal", "alices"),
    ]
    assert "secret-of-mine" not in str(told)
    metrics = (await ask(guarded_wall, "/metrics", "prometheus")).body.decode()
    for reason in ("missing", "unknown", "scope"):
        assert f'relproxy_admin_refusals_total{{reason="{reason}"}} 1.0' in metrics


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9393", 200),
        ("localhost:9393", 200),
        ("[::1]:9393", 200),
        ("127.0.0.1", 200),
        ("evil.example:9393", 421),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
    ],
)
async def test_without_tokens_no_strangers_page_can_ask_through_a_browser(
    second_wall: Client, host: str, status: int
) -> None:
    """DNS rebinding: the page's own name leads to loopback, and the browser sends that name."""
    answer = await second_wall.get(
        "/v1/relations?project=alice", url=second_wall.admin_url, headers={"Host": host}
    )
    assert answer.status == status


def test_every_path_says_what_it_needs() -> None:
    assert set(admin_paths()) == set(NEEDS)


def test_a_start_without_tokens_where_others_can_connect_is_a_sentence(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "listeners": [{"name": "public", "bind": "127.0.0.1:0"}],
        "admin": {"bind": "0.0.0.0:0"},
        "journal": {"directory": str(tmp_path / "journal"), "allow_volatile": True},
        "store": {"path": str(tmp_path / "r.db")},
        "registries": [
            {"name": "glance", "tenancy": "registry", "endpoints": ["http://127.0.0.1:1"]}
        ],
        "routes": [{"name": "all", "registry": "glance"}],
    }
    refused = served(tmp_path, settings)
    assert refused[0] == os.EX_CONFIG
    assert "admin.bind: has to be a loopback address, or admin.tokens_file has to say" in refused[1]
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text(yaml.safe_dump([{**TOKENS[0], "token": "guess-me"}]))
    settings["admin"] = {"bind": "0.0.0.0:0", "tokens_file": str(tokens)}
    status, said = served(tmp_path, settings)
    assert status == os.EX_CONFIG
    assert f"{tokens}: [0].token: " in said
    assert "guess-me" not in said


def served(home: Path, settings: dict[str, Any]) -> tuple[int, str]:
    file = home / "relproxy.yaml"
    file.write_text(yaml.safe_dump(settings))
    finished = command("serve", "--config", str(file))
    return finished.returncode, finished.stderr
