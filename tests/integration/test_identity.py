from __future__ import annotations

import pytest

from lab.stand_in import StandIn
from tests.integration.conftest import Client, Serve, registry

SPELLINGS = ["X-Project-Id", "x-project-id", "X_Project_Id", "X_PROJECT-ID", "x_Project-id"]


@pytest.mark.parametrize("name", SPELLINGS)
async def test_identity_headers_of_a_client_that_is_not_trusted_count_for_nothing(
    serve: Serve, trusting: StandIn, name: str
) -> None:
    client = await serve(registries=[registry(trusting.url, "registry")], identity={})
    headers = {name: "bob", "X-Identity-Status": "Confirmed", "X-Roles": "admin"}
    answer = await client.get("/v2/images", headers=headers)
    assert answer.status == 401
    sent = {key.lower().replace(b"_", b"-") for key, _ in trusting.requests[-1].headers}
    assert not sent & {b"x-project-id", b"x-identity-status", b"x-roles"}


async def test_a_registry_that_trusts_its_front_is_told_the_caller_and_nothing_else(
    second_wall: Client, trusting: StandIn
) -> None:
    headers = {
        "X-Tenant-Id": "bob",
        "X-Is-Admin-Project": "True",
        "X-Service-Roles": "admin",
        "OpenStack-System-Scope": "all",
        "X-User-Id": "u1",
    }
    await second_wall.get("/v2/images", project="alice", roles="member,reader", headers=headers)
    (sent,) = trusting.requests
    told = {name.decode(): value.decode() for name, value in sent.headers}
    identity = {k: v for k, v in told.items() if k.startswith(("X-", "OpenStack-"))}
    assert identity == {
        "X-Identity-Status": "Confirmed",
        "X-Project-Id": "alice",
        "X-Roles": "member,reader",
        "X-User-Id": "u1",
        # Left out, it would be taken for True: a False has to arrive.
        "X-Is-Admin-Project": "True",
    }


async def test_a_token_passes_to_a_registry_that_validates_it_itself(
    serve: Serve, trusting: StandIn
) -> None:
    client = await serve(registries=[registry(trusting.url, "registry", upstream_identity="token")])
    await client.get("/v2/images", project="alice", headers={"X-Auth-Token": "gAAAA"})
    (sent,) = trusting.requests
    assert sent.values("X-Auth-Token") == ["gAAAA"]
    assert sent.values("X-Project-Id") == []


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("X-Project-Id", "alice"), ("X-Project-Id", "bob")], id="repeated"),
        pytest.param([("X-Project-Id", "alice"), ("x_project_id", "bob")], id="two-spellings"),
        pytest.param([("X-Project-Id", "alice,bob")], id="joined"),
        pytest.param(
            [("X-Project-Id", "alice"), ("Connection", "X-Project-Id")], id="hop-by-hop-project"
        ),
        pytest.param(
            [("X-Project-Id", "alice"), ("Connection", "close, x_roles")], id="hop-by-hop-roles"
        ),
    ],
)
async def test_a_request_that_says_two_things_of_its_caller_is_refused(
    second_wall: Client, trusting: StandIn, headers: list[tuple[str, str]]
) -> None:
    url = f"{second_wall.url}/v2/images"
    async with second_wall.session.get(url, headers=headers) as answer:
        assert answer.status == 400
    assert trusting.requests == []


async def test_an_unconfirmed_identity_is_none(only_wall: Client) -> None:
    headers = {"X-Identity-Status": "Invalid"}
    assert (await only_wall.get("/v2/images", project="alice", headers=headers)).status == 401
