"""Callers by token: a Keystone that is there, away, slow, lying, or forgetful."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.stand_in import StandIn
from lab.stand_in_keystone import PASSWORD, StandInKeystone
from relproxy.keystone import KeystoneApi, open_keystone_session
from tests.integration.conftest import LOOPBACK, Answer, Client, Serve, registry
from tests.integration.recorder import OK, Recorder

TIMEOUT_S = 0.5


@pytest.fixture
async def keystone() -> AsyncIterator[StandInKeystone]:
    async with StandInKeystone() as started:
        started.add("alice-1", "alice", "member", "reader")
        started.add("bob-1", "bob", "member", "reader")
        started.add("root-1", "ops", "admin")
        yield started


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"{PASSWORD}\n")
    return file


@pytest.fixture
def settings(keystone: StandInKeystone, secret: Path) -> dict[str, Any]:
    return {
        "credentials": {
            "auth_url": keystone.auth_url,
            "username": "relproxy",
            "project": "service",
            "password_file": str(secret),
        },
        "timeout_s": TIMEOUT_S,
    }


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    return {"provider": "keystone", "keystone": settings}


@pytest.fixture
async def only_wall(serve: Serve, noauth: StandIn, settings: dict[str, Any]) -> Client:
    return await serve(
        registries=[registry(noauth.url, "relproxy")],
        identity=identity(settings),
        trusted_sources={"service_roles": ["service"]},
    )


@pytest.fixture
async def speaking(serve: Serve, trusting: StandIn, settings: dict[str, Any]) -> Client:
    return await serve(
        registries=[registry(trusting.url, "registry")],
        identity=identity(settings),
        trusted_sources={"roles": ["nova"]},
    )


@pytest.fixture
async def beside(serve: Serve, trusting: StandIn, settings: dict[str, Any]) -> Client:
    """A relproxy in front of a registry that validates the tokens itself."""
    return await serve(
        registries=[registry(trusting.url, "registry", upstream_identity="token")],
        identity=identity(settings),
    )


async def listed(client: Client, token: str | None, target: str = "/v2/images") -> Answer:
    headers = {} if token is None else {"X-Auth-Token": token}
    return await client.get(target, headers=headers)


async def create(client: Client, token: str, name: str, **headers: str) -> Answer:
    return await client.post(
        "/v2/images", json={"name": name}, headers={"X-Auth-Token": token, **headers}
    )


async def test_a_token_says_whose_the_images_are(only_wall: Client) -> None:
    made = await create(only_wall, "alice-1", "of-alice")
    assert made.status == 201

    assert (await listed(only_wall, "alice-1")).names == ["of-alice"]
    assert (await listed(only_wall, "bob-1")).names == []
    assert (await listed(only_wall, "root-1")).names == ["of-alice"]
    path = f"/v2/images/{made.json()['id']}"
    assert (await listed(only_wall, "alice-1", path)).status == 200
    assert (await listed(only_wall, "bob-1", path)).status == 404


async def test_a_registry_that_trusts_its_front_hears_what_the_token_says(
    speaking: Client, trusting: StandIn
) -> None:
    made = await speaking.post(
        "/v2/images",
        json={"name": "of-alice"},
        headers={"X-Auth-Token": "alice-1", "X-Project-Id": "bob", "X-Roles": "admin"},
    )
    assert made.status == 201
    assert made.json()["owner"] == "alice"
    heard = {name.decode().lower(): value.decode() for name, value in trusting.requests[-1].headers}
    assert heard["x-project-id"] == "alice"
    assert heard["x-roles"] == "member,reader"
    assert heard["x-user-domain-id"] == "default"
    assert (await listed(speaking, "bob-1")).names == []


async def test_identity_headers_of_a_client_count_for_nothing(only_wall: Client) -> None:
    claimed = {"X-Project-Id": "alice", "X-Roles": "admin", "X-Identity-Status": "Confirmed"}

    answer = await only_wall.get("/v2/images", headers=claimed)

    assert answer.status == 401


@pytest.mark.parametrize("token", [None, "made-up", "alice-1x"])
async def test_without_a_good_token_the_challenge_is_keystones(
    token: str | None, only_wall: Client, keystone: StandInKeystone, noauth: StandIn
) -> None:
    answer = await listed(only_wall, token)

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == f'Keystone uri="{keystone.auth_url}"'
    assert noauth.requests == []
    assert (await listed(only_wall, token, "/versions")).status == 200


async def test_a_registry_refuses_a_stranger_in_its_own_words(
    speaking: Client, trusting: StandIn
) -> None:
    answer = await listed(speaking, "made-up")

    assert answer.status == 401
    assert len(trusting.requests) == 1
    assert not any(name.lower() == b"x-project-id" for name, _ in trusting.requests[0].headers)


async def test_whose_token_is_no_projects_is_told_so(
    only_wall: Client, speaking: Client, keystone: StandInKeystone
) -> None:
    keystone.add("unscoped", None)
    keystone.add("system", None, "admin", system={"all": True})
    for client in (only_wall, speaking):
        for token in ("unscoped", "system"):
            answer = await listed(client, token)
            assert answer.status == 403
            assert b"not of a project" in answer.body


async def test_a_registry_that_takes_tokens_gets_them_and_is_asked_what_needs_no_list(
    beside: Client, trusting: StandIn, keystone: StandInKeystone
) -> None:
    image = trusting.add_image(name="public", owner="ops", visibility="public")
    answer = await listed(beside, "alice-1", f"/v2/images/{image['id']}")
    assert answer.status == 401  # of the registry: this one takes no tokens
    assert (b"X-Auth-Token", b"alice-1") in trusting.requests[-1].headers
    assert keystone.shown == []


# -- asked once


async def test_keystone_is_asked_once_for_many_requests_at_once(
    only_wall: Client, keystone: StandInKeystone
) -> None:
    answers = await asyncio.gather(*(listed(only_wall, "alice-1") for _ in range(30)))

    assert {answer.status for answer in answers} == {200}
    assert [subject for subject, _ in keystone.shown] == ["alice-1"]
    assert len(keystone.log_ins) == 1
    assert keystone.shown[0][1] == "nocatalog"


async def test_relproxy_logs_in_anew_when_its_own_token_is_not_taken_any_more(
    only_wall: Client, keystone: StandInKeystone
) -> None:
    assert (await listed(only_wall, "alice-1")).status == 200
    keystone.forget_own()

    answers = await asyncio.gather(*(listed(only_wall, t) for t in ("bob-1", "root-1", "made-up")))

    assert [answer.status for answer in answers] == [200, 200, 401]
    assert len(keystone.log_ins) == 2


async def test_relproxy_renews_its_own_token_before_it_ends(
    only_wall: Client, keystone: StandInKeystone
) -> None:
    keystone.own_lasts = timedelta(seconds=30)  # less than what is kept in hand
    assert (await listed(only_wall, "alice-1")).status == 200
    keystone.own_lasts = timedelta(hours=1)
    answers = await asyncio.gather(*(listed(only_wall, t) for t in ("bob-1", "root-1")))

    assert {answer.status for answer in answers} == {200}
    assert len(keystone.log_ins) == 2
    assert (await listed(only_wall, "made-up")).status == 401
    assert len(keystone.log_ins) == 2


async def test_an_application_credential_logs_in_too(
    serve: Serve,
    noauth: StandIn,
    keystone: StandInKeystone,
    settings: dict[str, Any],
    secret: Path,
) -> None:
    credentials = {
        "auth_url": keystone.auth_url,
        "application_credential_id": "an-id",
        "application_credential_secret_file": str(secret),
    }
    client = await serve(
        registries=[registry(noauth.url, "relproxy")],
        identity=identity({**settings, "credentials": credentials}),
    )

    assert (await listed(client, "alice-1")).status == 200
    assert keystone.log_ins[0]["auth"] == {
        "identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": "an-id", "secret": PASSWORD},
        }
    }


# -- away, slow, lying


async def is_unavailable(answer: Answer) -> None:
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert b"Keystone" in answer.body


async def test_while_keystone_is_away_only_what_is_known_is_served(
    only_wall: Client, keystone: StandInKeystone
) -> None:
    assert (await create(only_wall, "alice-1", "of-alice")).status == 201
    await keystone.stop()

    assert (await listed(only_wall, "alice-1")).names == ["of-alice"]
    await is_unavailable(await listed(only_wall, "bob-1"))
    # What needs nobody goes on.
    assert (await listed(only_wall, None)).status == 401
    assert (await listed(only_wall, "bob-1", "/versions")).status == 200


async def test_a_registry_that_takes_tokens_goes_on_without_keystone_where_it_judges(
    beside: Client, trusting: StandIn, keystone: StandInKeystone
) -> None:
    await keystone.stop()
    image = trusting.add_image(name="public", owner="ops", visibility="public")

    await is_unavailable(await listed(beside, "alice-1"))
    assert (await listed(beside, "alice-1", f"/v2/images/{image['id']}")).status == 401


async def test_a_slow_keystone_costs_its_time_and_no_more(
    only_wall: Client, keystone: StandInKeystone
) -> None:
    assert (await listed(only_wall, "alice-1")).status == 200
    goes_on = asyncio.Event()
    keystone.faults.before_showing = goes_on.wait  # type: ignore[assignment]

    waiting = asyncio.create_task(listed(only_wall, "bob-1"))
    # Others don't wait with it.
    assert (await listed(only_wall, "alice-1")).status == 200
    await is_unavailable(await waiting)
    goes_on.set()
    keystone.faults.before_showing = None
    assert (await listed(only_wall, "bob-1")).status == 200


async def test_made_up_tokens_ask_keystone_no_more_at_a_time_than_configured(
    serve: Serve, noauth: StandIn, keystone: StandInKeystone, settings: dict[str, Any]
) -> None:
    client = await serve(
        registries=[registry(noauth.url, "relproxy")],
        identity=identity({**settings, "connections": 3, "timeout_s": 20.0}),
    )
    assert (await listed(client, "alice-1")).status == 200
    at_once, most, goes_on = 0, 0, asyncio.Event()

    async def counted() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 3:
            goes_on.set()
        await goes_on.wait()
        at_once -= 1

    keystone.faults.before_showing = counted
    answers = await asyncio.gather(*(listed(client, f"made-up-{n}") for n in range(30)))

    assert {answer.status for answer in answers} == {401}
    assert most == 3


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, b"", id="nothing"),
        pytest.param(200, b"<html>hello</html>", id="a page"),
        pytest.param(200, b'{"token": {}}', id="a token of nobody"),
        pytest.param(200, b"[" * 200_000, id="too deep"),
        pytest.param(200, b" " * (2 * 1024**2), id="too long"),
        pytest.param(204, b"", id="204"),
        pytest.param(302, b"", id="a redirect"),
        pytest.param(401, b"", id="401, whatever relproxy does"),
        pytest.param(403, b"", id="403: relproxy may not ask"),
        pytest.param(429, b"", id="429"),
        pytest.param(500, b"", id="500"),
        pytest.param(503, b"", id="503"),
    ],
)
async def test_a_keystone_that_answers_garbage_vouches_for_nobody(
    status: int, body: bytes, only_wall: Client, keystone: StandInKeystone, noauth: StandIn
) -> None:
    noauth.add_image(name="secret", visibility="private")
    keystone.faults.status, keystone.faults.body = status, body

    await is_unavailable(await listed(only_wall, "alice-1"))
    assert noauth.requests == []
    keystone.faults.status = keystone.faults.body = None
    assert (await listed(only_wall, "alice-1")).status == 200


@pytest.mark.parametrize(
    "echo",
    [
        pytest.param("root-1", id="a cache between, that looks at X-Auth-Token alone"),
        pytest.param("", id="no token is named"),
    ],
)
async def test_an_answer_about_another_token_is_nobodys(
    only_wall: Client, keystone: StandInKeystone, echo: str
) -> None:
    keystone.faults.echo = echo

    await is_unavailable(await listed(only_wall, "alice-1"))
    keystone.faults.echo = "alice-1"
    assert (await listed(only_wall, "alice-1")).status == 200


async def test_what_keystone_sends_unasked_answers_no_question(recorder: Recorder) -> None:
    """It would be believed of the next token."""
    async with open_keystone_session(1) as session:
        api = KeystoneApi(recorder.url, session, timeout_s=5)
        for later in (OK.replace(b"ok", b"no"), b"HTTP/1.1 408 Request Timeout\r\n\r\n"):
            assert (await api.ask("GET", "", {})).body == b"ok"
            recorder.writers[-1].write(later)
            assert (await api.ask("GET", "", {})).body == b"ok"


@pytest.mark.parametrize("status", [400, 404, 431])
async def test_a_token_that_keystone_cannot_read_is_not_known(
    status: int, only_wall: Client, keystone: StandInKeystone
) -> None:
    keystone.faults.status = status

    assert (await listed(only_wall, "alice-1")).status == 401


async def test_a_keystone_that_breaks_off_is_away(
    only_wall: Client, keystone: StandInKeystone
) -> None:
    keystone.faults.drop = True
    await is_unavailable(await listed(only_wall, "alice-1"))
    # A question is asked again once: the connection may have been an old one.
    assert len(keystone.shown) == 2
    keystone.faults.drop = False
    assert (await listed(only_wall, "alice-1")).status == 200


async def test_a_wrong_password_is_nobodys_but_relproxys(
    serve: Serve,
    noauth: StandIn,
    settings: dict[str, Any],
    secret: Path,
    keystone: StandInKeystone,
) -> None:
    await asyncio.to_thread(secret.write_text, "wrong")
    client = await serve(registries=[registry(noauth.url, "relproxy")], identity=identity(settings))

    answer = await listed(client, "alice-1")

    await is_unavailable(answer)
    assert b"wrong" not in answer.body
    assert keystone.shown == []
    await asyncio.to_thread(secret.write_text, PASSWORD)
    assert (await listed(client, "alice-1")).status == 200


async def test_what_keystone_was_asked_is_counted(
    only_wall: Client, keystone: StandInKeystone
) -> None:
    for token in ("alice-1", "alice-1", "made-up"):
        await listed(only_wall, token)
    keystone.faults.status = 500
    await listed(only_wall, "bob-1")

    for result, count in (("valid", 1), ("unknown", 1), ("unavailable", 1)):
        line = f'relproxy_token_validations_total{{result="{result}"}}'
        assert await only_wall.metric(line) == count, result
    assert await only_wall.metric("relproxy_keystone_seconds_count") == 3


# -- services and roles that vouch


async def grades(client: Client, instance: str) -> list[str]:
    return [record["grade"] for record in await client.relations(f"instance_id={instance}")]


async def test_a_service_token_lets_a_long_snapshot_finish(
    only_wall: Client, keystone: StandInKeystone
) -> None:
    keystone.add("ended", "alice", "member", lasts=timedelta(seconds=-5))
    keystone.add("nova", "services", "service")

    assert (await listed(only_wall, "ended")).status == 401
    made = await create(only_wall, "ended", "late", **{"X-Service-Token": "nova"})
    assert made.status == 201
    assert ("ended", "nocatalog&allow_expired=1") in keystone.shown
    assert (await listed(only_wall, "ended")).status == 401
    assert (await listed(only_wall, "alice-1")).names == ["late"]


async def test_a_service_token_vouches_for_an_instance_where_that_is_configured(
    only_wall: Client, keystone: StandInKeystone
) -> None:
    keystone.add("nova", "services", "service")
    keystone.add("cinder", "services", "volume")
    about = {"X-Nova-Instance-ID": "i-1"}

    vouched = await create(only_wall, "alice-1", "a", **about, **{"X-Service-Token": "nova"})
    other = await create(only_wall, "alice-1", "b", **about, **{"X-Service-Token": "cinder"})
    alone = await create(only_wall, "alice-1", "c", **about)

    assert [answer.status for answer in (vouched, other, alone)] == [201] * 3
    found = await only_wall.relations("instance_id=i-1")
    assert [(r["image_id"], r["grade"]) for r in found] == [(vouched.json()["id"], "vouched")]


async def test_a_role_vouches_for_an_instance_where_that_is_configured(
    speaking: Client, keystone: StandInKeystone
) -> None:
    keystone.add("robot", "alice", "member", "reader", "nova")
    about = {"X-Nova-Instance-ID": "i-1"}

    assert (await create(speaking, "alice-1", "a", **about)).status == 201
    assert await grades(speaking, "i-1") == []
    assert (await create(speaking, "robot", "b", **about)).status == 201
    assert await grades(speaking, "i-1") == ["vouched"]


async def test_a_network_is_not_trusted_because_a_role_is(speaking: Client) -> None:
    """Everything here comes from loopback: what vouches is the role alone."""
    assert LOOPBACK
    about = {"X-Nova-Instance-ID": "bad id", "X-Nova-Installation-UUID": "none"}

    # From an untrusted source they count for nothing, and never make an error.
    assert (await create(speaking, "alice-1", "a", **about)).status == 201


# -- application credentials


async def test_access_rules_hold_at_relproxy(only_wall: Client, keystone: StandInKeystone) -> None:
    rules = [{"service": "image", "method": "GET", "path": "/v2/images/*"}]
    keystone.add("narrow", "alice", "member", application_credential={"access_rules": rules})
    made = (await create(only_wall, "alice-1", "of-alice")).json()

    assert (await listed(only_wall, "narrow", f"/v2/images/{made['id']}")).status == 200
    for target in ("/v2/images", f"/v2/images/{made['id']}/file", "/v2/schemas/image"):
        refused = await listed(only_wall, "narrow", target)
        assert refused.status == 403
        assert b"access rules" in refused.body
    # A path in another spelling is the same path.
    assert (await listed(only_wall, "narrow", f"/v2//images/{made['id']}")).status == 200
    assert (await listed(only_wall, "narrow", "/v2/%69mages")).status == 403


# -- the log


async def test_no_token_is_ever_in_the_log(
    only_wall: Client, keystone: StandInKeystone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    keystone.faults.status = 500
    for token in ("alice-1", "made-up-secret"):
        await listed(only_wall, token)
    keystone.faults.status = None
    for token in ("alice-1", "made-up-secret"):
        await listed(only_wall, token)

    said = [json.dumps(record.__dict__, default=repr) for record in caplog.records]
    assert said
    for secret in ("alice-1", "made-up-secret", PASSWORD, "own-1"):
        assert not [line for line in said if secret in line], secret
