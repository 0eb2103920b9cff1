from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relproxy.config_identity import Credentials, TokenValidation
from relproxy.errors import BadRequestError, KeystoneUnavailableError
from relproxy.identity.base import NoCaller
from relproxy.identity.keystone import KeystoneIdentity
from relproxy.metrics import Metrics
from relproxy.model import AccessRule, Caller, Service
from tests.unit.given import request_head

ALICE = {"user": {"id": "u1", "domain": {"id": "d1"}}, "project": {"id": "p1"}}
LATER = timedelta(hours=1)
ALICES = "t"


class FakeJudge:
    """A Keystone that knows some tokens, counts the questions, and may keep them waiting."""

    def __init__(self, **tokens: dict[str, Any]) -> None:
        self.tokens = tokens
        self.asked: list[tuple[str, bool]] = []
        self.failure: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def shown(self, token: str, *, allow_expired: bool) -> bytes | None:
        self.asked.append((token, allow_expired))
        await self.goes_on.wait()
        if self.failure is not None:
            raise self.failure
        said = self.tokens.get(token)
        if said is None:
            return None
        ends = datetime.now(UTC) + said.get("lasts", LATER)
        if ends <= datetime.now(UTC) and not allow_expired:
            return None
        roles = [{"name": name} for name in said.get("roles", ("member",))]
        more = {k: v for k, v in said.items() if k not in {"lasts", "roles"}}
        return json.dumps(
            {"token": {"roles": roles, "expires_at": ends.isoformat(), **more}}
        ).encode()


def provider(judge: FakeJudge, **settings: Any) -> KeystoneIdentity:
    credentials = Credentials(
        auth_url="http://127.0.0.1:5000/v3",
        username="relproxy",
        project="service",
        password_file=Path("/nowhere"),
    )
    validation = TokenValidation(credentials=credentials, **settings)
    return KeystoneIdentity(judge, validation, ["admin"], Metrics())


async def identified(
    identity: KeystoneIdentity, *pairs: tuple[str, str], token: str | None = ALICES
) -> Caller | NoCaller:
    own = () if token is None else (("X-Auth-Token", token),)
    return await identity.identify(request_head("/v2/images", *own, *pairs))


def refusal(found: Caller | NoCaller) -> tuple[int, str]:
    assert isinstance(found, NoCaller)
    refused = found.refusal()
    return refused.status, refused.sentence


async def test_a_token_says_who_the_caller_is() -> None:
    judge = FakeJudge(t={**ALICE, "roles": ("member", "reader"), "is_admin_project": True})

    assert await identified(provider(judge)) == Caller(
        "p1",
        "u1",
        frozenset({"member", "reader"}),
        user_domain="d1",
        is_admin_project=True,
    )


async def test_a_role_makes_an_admin() -> None:
    found = await identified(provider(FakeJudge(t={**ALICE, "roles": ("Admin",)})))

    assert isinstance(found, Caller)
    assert found.is_admin


async def test_an_admin_of_another_project_than_the_admins_own_is_none() -> None:
    token = {**ALICE, "roles": ("admin",), "is_admin_project": False}
    found = await identified(provider(FakeJudge(t=token)))

    assert isinstance(found, Caller)
    assert not found.is_admin


@pytest.mark.parametrize("token", [None, ""])
async def test_without_a_token_nobody_is_asked(token: str | None) -> None:
    judge = FakeJudge(t=ALICE)

    found = await identified(provider(judge), ("X-Project-Id", "p1"), token=token)

    assert refusal(found)[0] == 401
    assert isinstance(found, NoCaller)
    assert found.challenge == 'Keystone uri="http://127.0.0.1:5000/v3"'
    assert judge.asked == []


async def test_a_client_is_sent_where_the_configuration_says() -> None:
    identity = provider(FakeJudge(), www_authenticate_uri="https://keystone.example.org/v3")

    found = await identified(identity, token=None)

    assert isinstance(found, NoCaller)
    assert found.challenge == 'Keystone uri="https://keystone.example.org/v3"'


async def test_a_token_is_read_where_keystonemiddleware_reads_it() -> None:
    judge = FakeJudge(t=ALICE, other={**ALICE, "project": {"id": "p2"}})
    identity = provider(judge)
    storage = ("X-Storage-Token", "other")

    assert await identified(identity, storage) == await identified(identity)
    elsewhere = await identified(identity, storage, token=None)
    assert isinstance(elsewhere, Caller)
    assert elsewhere.project == "p2"
    # An empty one is one: it hides the other.
    assert refusal(await identified(identity, storage, token=""))[0] == 401


async def test_two_tokens_are_no_token() -> None:
    with pytest.raises(BadRequestError, match="more than once"):
        await identified(provider(FakeJudge(t=ALICE)), ("x-auth-token", "other"))
    with pytest.raises(BadRequestError, match="spelled with '_'"):
        await identified(provider(FakeJudge(t=ALICE)), ("X_Auth_Token", "t"), token=None)


@pytest.mark.parametrize("token", ["with blank", "ümlaut", "x" * 8193, "\x7f"])
async def test_what_cannot_be_a_token_is_not_asked_for(token: str) -> None:
    judge = FakeJudge()

    assert refusal(await identified(provider(judge), token=token))[0] == 401
    assert judge.asked == []


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param({}, id="unscoped"),
        pytest.param({"domain": {"id": "default"}}, id="of a domain"),
        pytest.param({"system": {"all": True}, "roles": ("admin",)}, id="of the system"),
    ],
)
async def test_a_token_of_no_project_is_known_and_may_nothing(scope: dict[str, Any]) -> None:
    found = await identified(provider(FakeJudge(t={"user": {"id": "u1"}, **scope})))

    assert refusal(found) == (403, "X-Auth-Token is not of a project: log in to one.")


@pytest.mark.parametrize("project", ["a,b", "a b", "", "x" * 256])
async def test_a_project_that_no_header_could_carry_is_nobodys(project: str) -> None:
    found = await identified(provider(FakeJudge(t={**ALICE, "project": {"id": project}})))

    assert refusal(found)[0] == 401


@pytest.mark.parametrize(
    "binding", [{"bind": {"kerberos": "x"}}, {"oauth2_credential": {"x5t#S256": "x"}}]
)
async def test_a_token_that_is_bound_to_a_client_is_not_believed(binding: dict[str, Any]) -> None:
    found = await identified(provider(FakeJudge(t={**ALICE, **binding})))

    assert refusal(found)[0] == 401


# -- what is remembered


async def test_keystone_is_asked_once_for_what_it_has_said() -> None:
    judge = FakeJudge(t=ALICE)
    identity = provider(judge)

    found = {await identified(identity) for _ in range(3)}

    assert len(found) == 1
    assert judge.asked == [("t", False)]


async def test_a_revoked_token_is_believed_for_the_configured_time_and_no_longer() -> None:
    judge = FakeJudge(t=ALICE)
    identity = provider(judge, cache_s=0.05)
    assert isinstance(await identified(identity), Caller)
    del judge.tokens["t"]
    async with asyncio.timeout(10):
        while isinstance(await identified(identity), Caller):  # noqa: ASYNC110 - its age is the event
            await asyncio.sleep(0.01)
    assert refusal(await identified(identity))[0] == 401
    assert len(judge.asked) == 2


async def test_a_token_ends_though_it_is_remembered() -> None:
    judge = FakeJudge(t={**ALICE, "lasts": timedelta(seconds=0.05)})
    identity = provider(judge)
    assert isinstance(await identified(identity), Caller)
    async with asyncio.timeout(10):
        while isinstance(await identified(identity), Caller):  # noqa: ASYNC110 - its end is the event
            await asyncio.sleep(0.01)
    assert len(judge.asked) == 1


async def test_a_token_that_keystone_shows_though_it_has_ended_is_not_believed() -> None:
    class Lying(FakeJudge):
        async def shown(self, token: str, *, allow_expired: bool) -> bytes | None:
            assert not allow_expired
            return await super().shown(token, allow_expired=True)

    found = await identified(provider(Lying(t={**ALICE, "lasts": timedelta(seconds=-1)})))

    assert refusal(found)[0] == 401


async def test_an_unknown_token_is_remembered_too() -> None:
    judge = FakeJudge()
    identity = provider(judge)

    for _ in range(3):
        found = await identified(identity)
        assert refusal(found) == (
            401,
            "X-Auth-Token is not valid, or has ended: log in again.",
        )
    assert judge.asked == [("t", False)]


async def test_unknown_tokens_drive_no_known_one_out() -> None:
    judge = FakeJudge(t=ALICE)
    identity = provider(judge, cached_tokens=2)
    await identified(identity)
    for number in range(10):
        await identified(identity, token=f"made-up-{number}")
    judge.asked.clear()
    assert isinstance(await identified(identity), Caller)
    assert judge.asked == []


async def test_a_failure_is_not_remembered() -> None:
    judge = FakeJudge(t=ALICE)
    identity = provider(judge)
    judge.failure = KeystoneUnavailableError("Keystone can't be reached.")
    for _ in range(2):
        with pytest.raises(KeystoneUnavailableError) as failure:
            await identified(identity)
        assert (failure.value.status, failure.value.retry_after_s) == (503, 5)
    judge.failure = None
    assert isinstance(await identified(identity), Caller)


async def test_what_is_remembered_is_served_while_keystone_is_away() -> None:
    judge = FakeJudge(t=ALICE)
    identity = provider(judge)
    await identified(identity)
    judge.failure = KeystoneUnavailableError("Keystone can't be reached.")

    assert isinstance(await identified(identity), Caller)
    with pytest.raises(KeystoneUnavailableError):
        await identified(identity, token="another")


async def test_an_answer_that_is_none_is_not_remembered() -> None:
    class Garbled(FakeJudge):
        async def shown(self, token: str, *, allow_expired: bool) -> bytes | None:
            await super().shown(token, allow_expired=allow_expired)
            return b"<html>502</html>"

    judge = Garbled()
    identity = provider(judge)
    for _ in range(2):
        with pytest.raises(KeystoneUnavailableError, match="can't be understood"):
            await identified(identity)
    assert len(judge.asked) == 2


# -- many at the same time


async def test_requests_with_one_token_share_a_question_and_a_cancelled_one_ends_none() -> None:
    judge = FakeJudge(t=ALICE)
    identity = provider(judge)
    judge.goes_on.clear()
    waiting = [asyncio.create_task(identified(identity)) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # The one that asked goes away, and so do others.
    for task in waiting[:10]:
        task.cancel()
    await asyncio.gather(*waiting[:10], return_exceptions=True)
    judge.goes_on.set()

    answers = await asyncio.gather(*waiting[10:])

    assert all(isinstance(found, Caller) for found in answers)
    assert judge.asked == [("t", False)]


async def test_a_failure_is_everybodys_who_waited_for_it() -> None:
    judge = FakeJudge(t=ALICE)
    identity = provider(judge)
    judge.goes_on.clear()
    judge.failure = KeystoneUnavailableError("Keystone can't be reached.")
    waiting = [asyncio.create_task(identified(identity)) for _ in range(3)]
    await asyncio.sleep(0)
    judge.goes_on.set()

    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(answer) for answer in answers] == [KeystoneUnavailableError] * 3
    assert len(judge.asked) == 1


# -- services


NOVA = {"user": {"id": "nova"}, "project": {"id": "services"}, "roles": ("service",)}
BESIDE = ("X-Service-Token", "s")
ENDED = {**ALICE, "lasts": timedelta(seconds=-1)}


async def test_a_service_token_names_a_service_beside_the_caller() -> None:
    found = await identified(provider(FakeJudge(t=ALICE, s=NOVA)), BESIDE)

    assert isinstance(found, Caller)
    assert found.project == "p1"
    assert found.service == Service("services", "nova", frozenset({"service"}))
    # The service's roles are not the caller's.
    assert "service" not in found.roles


async def test_a_service_token_lets_an_ended_token_through_and_nothing_else_does() -> None:
    judge = FakeJudge(t=ENDED, s=NOVA, other={**NOVA, "roles": ("member",)})
    identity = provider(judge)

    assert refusal(await identified(identity))[0] == 401
    assert isinstance(await identified(identity, BESIDE), Caller)
    assert ("t", True) in judge.asked
    # What was learnt for the service is not for anybody else.
    assert refusal(await identified(identity))[0] == 401
    assert refusal(await identified(identity, ("X-Service-Token", "other")))[0] == 401


async def test_an_ended_service_token_is_no_service_token() -> None:
    judge = FakeJudge(t=ALICE, s={**NOVA, "lasts": timedelta(seconds=-1)})

    found = await identified(provider(judge), BESIDE)

    assert refusal(found) == (401, "X-Service-Token is not valid, or has ended.")
    assert ("s", True) not in judge.asked


async def test_a_service_token_alone_is_nobody() -> None:
    judge = FakeJudge(s=NOVA)

    assert refusal(await identified(provider(judge), BESIDE, token=None))[0] == 401


async def test_which_role_makes_a_service_is_configured() -> None:
    judge = FakeJudge(t=ALICE, s=NOVA)

    found = await identified(provider(judge, service_token_roles=("nova",)), BESIDE)

    assert isinstance(found, Caller)
    assert found.service is None


async def test_what_access_rules_narrow_is_not_widened_by_being_its_own_service() -> None:
    rules = [{"service": "image", "method": "GET", "path": "/v2/images"}]
    narrow = {**NOVA, "application_credential": {"access_rules": rules}}
    judge = FakeJudge(t=narrow, ended={**narrow, "lasts": timedelta(seconds=-1)})

    found = await identified(provider(judge), ("X-Service-Token", "t"))

    assert isinstance(found, Caller)
    assert found.service is None
    assert found.access_rules == (AccessRule("image", "GET", "/v2/images"),)
    assert (
        refusal(await identified(provider(judge), ("X-Service-Token", "t"), token="ended"))[0]
        == 401
    )


async def test_a_role_that_is_like_a_services_is_not_it() -> None:
    judge = FakeJudge(t=ENDED, s={**NOVA, "roles": ("SERVICE",)})

    assert refusal(await identified(provider(judge), BESIDE))[0] == 401


async def test_access_rules_are_those_for_this_service() -> None:
    rules = [
        {"service": "image", "method": "GET", "path": "/v2/images"},
        {"service": "compute", "method": "GET", "path": "/v2.1/servers"},
    ]
    narrow = {**ALICE, "application_credential": {"access_rules": rules}}
    judge = FakeJudge(t=narrow, s=NOVA)

    found = await identified(provider(judge))
    assert isinstance(found, Caller)
    assert found.access_rules == (AccessRule("image", "GET", "/v2/images"),)
    elsewhere = await identified(provider(judge, service_type="images-west"))
    assert isinstance(elsewhere, Caller)
    assert elsewhere.access_rules == ()
    # In a chain of requests it isn't the credential's own request that the rules are about.
    chained = await identified(provider(judge), BESIDE)
    assert isinstance(chained, Caller)
    assert chained.access_rules is None
