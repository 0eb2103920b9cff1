from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from relproxy.errors import BadRequestError
from relproxy.identity.base import NoCaller
from relproxy.identity.headers import HeadersIdentity
from relproxy.model import Caller, Service
from relproxy.networks import parse_address
from tests.unit.given import request_head

FRONT = "192.0.2.7"
PROVIDER = HeadersIdentity((ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")), ("admin",))


async def identified(*pairs: tuple[str, str], peer: str | None = FRONT) -> Caller | None:
    found = await PROVIDER.identify(request_head("/v2/images", *pairs, peer=peer))
    if isinstance(found, NoCaller):
        assert found.refusal().status == 401
        return None
    return found


async def test_a_front_says_which_service_asks_for_the_caller() -> None:
    project = ("X-Project-Id", "p1")
    said = (("X-Service-Roles", "service, glance"), ("X-Service-User-Id", "nova"))

    caller = await identified(project, *said, ("X-Service-Identity-Status", "Confirmed"))

    assert caller == Caller("p1", service=Service(None, "nova", frozenset({"service", "glance"})))
    for status in ("Invalid", "confirmed", ""):
        assert await identified(project, *said, ("X-Service-Identity-Status", status)) == Caller(
            "p1"
        )
    assert await identified(project, *said) == Caller("p1")


@pytest.mark.parametrize(
    ("said", "is_admins", "is_admin"),
    [
        (None, None, True),
        ("True", True, True),
        ("true", True, True),
        ("False", False, False),
        ("", False, False),
    ],
)
async def test_an_admin_of_another_project_than_the_admins_own_is_none(
    said: str | None, *, is_admins: bool | None, is_admin: bool
) -> None:
    pairs = () if said is None else (("X-Is-Admin-Project", said),)

    caller = await identified(("X-Project-Id", "p1"), ("X-Roles", "admin"), *pairs)

    assert caller is not None
    assert (caller.is_admin_project, caller.is_admin) == (is_admins, is_admin)


async def test_a_front_says_of_which_domains_user_and_project_are() -> None:
    caller = await identified(
        ("X-Project-Id", "p1"), ("X-User-Domain-Id", "d1"), ("X-Project-Domain-Id", "d2")
    )

    assert caller == Caller("p1", user_domain="d1", project_domain="d2")


async def test_a_front_says_who_the_caller_is() -> None:
    caller = await identified(
        ("X-Identity-Status", "Confirmed"),
        ("X-Project-Id", "p1"),
        ("X-User-Id", "u1"),
        ("X-Roles", "member, reader"),
    )

    assert caller == Caller("p1", "u1", frozenset({"member", "reader"}), is_admin=False)


async def test_a_project_is_enough() -> None:
    assert await identified(("X-Project-Id", "p1")) == Caller("p1")


@pytest.mark.parametrize("spelling", ["x-project-id", "X-PROJECT-ID"])
async def test_a_front_may_write_its_headers_in_any_case(spelling: str) -> None:
    assert await identified((spelling, "p1")) == Caller("p1")


@pytest.mark.parametrize("spelling", ["X_Project_Id", "X_PROJECT-ID", "X_Roles", "x-user_id"])
async def test_a_header_with_an_underscore_is_not_the_fronts(spelling: str) -> None:
    # A front that replaces `X-Roles` may let a client's `X_Roles` pass.
    with pytest.raises(BadRequestError, match="spelled with '_'"):
        await identified(("X-Project-Id", "p1"), (spelling, "admin"))


@pytest.mark.parametrize("peer", ["192.0.3.1", "127.0.0.1", "::1", "2001:db9::1", None])
async def test_anyone_else_is_believed_nothing(peer: str | None) -> None:
    pairs = (("X-Identity-Status", "Confirmed"), ("X-Project-Id", "p1"), ("X-Roles", "admin"))

    assert await identified(*pairs, peer=peer) is None


async def test_anyone_else_makes_no_error_with_two_projects() -> None:
    pairs = (("X-Project-Id", "p1"), ("X-Project-Id", "p2"))

    assert await identified(*pairs, peer="198.51.100.1") is None


@pytest.mark.parametrize("source", [None, "198.51.100.1"])
async def test_a_peer_that_is_not_the_source_is_believed_nothing(source: str | None) -> None:
    address = parse_address(source) if source else None
    head = replace(request_head("/", ("X-Project-Id", "p1"), peer=FRONT), source=address)

    assert isinstance(await PROVIDER.identify(head), NoCaller)


async def test_a_front_on_a_dual_stack_socket_is_a_front() -> None:
    assert await identified(("X-Project-Id", "p1"), peer="::ffff:192.0.2.7") == Caller("p1")


@pytest.mark.parametrize("status", ["Invalid", "confirmed", "", "Confirmed, Confirmed"])
async def test_an_identity_that_is_not_confirmed_is_none(status: str) -> None:
    assert await identified(("X-Identity-Status", status), ("X-Project-Id", "p1")) is None


@pytest.mark.parametrize("project", ["", " ", "\t"])
async def test_an_empty_project_is_nobody(project: str) -> None:
    assert await identified(("X-Project-Id", project), ("X-Roles", "admin")) is None


async def test_a_role_without_a_project_is_nobody() -> None:
    assert await identified(("X-Roles", "admin"), ("X-User-Id", "u1")) is None


@pytest.mark.parametrize(
    "project",
    ["a b", "p1,p2", "p\x7f", "p\xe9", "p" * 256, "p1\x00"],
    ids=["a blank", "two in one field", "a DEL", "no ASCII", "too long", "a NUL"],
)
async def test_a_project_that_is_no_id_is_refused(project: str) -> None:
    with pytest.raises(BadRequestError, match="X-Project-Id"):
        await identified(("X-Project-Id", project))


@pytest.mark.parametrize("name", ["X-Project-Id", "X-User-Id", "X-Roles", "X-Identity-Status"])
async def test_a_repeated_identity_header_is_refused(name: str) -> None:
    pairs = (
        ("X-Project-Id", "p1"),
        ("X-User-Id", "u1"),
        ("X-Roles", "member"),
        ("X-Identity-Status", "Confirmed"),
    )

    with pytest.raises(BadRequestError, match="more than once"):
        await identified(*pairs, (name.lower(), "p2"))


@pytest.mark.parametrize(
    ("roles", "is_admin"),
    [
        pytest.param("admin", True, id="the role"),
        pytest.param("Admin", True, id="the role in capitals: Keystone compares without case"),
        pytest.param("member,admin", True, id="the role among others"),
        pytest.param("member , admin , ", True, id="with blanks and an empty member"),
        pytest.param("administrator", False, id="a longer role"),
        pytest.param("not-admin", False, id="a role that ends so"),
        pytest.param("admin;member", False, id="another separator"),
        pytest.param("", False, id="no role"),
    ],
)
async def test_an_admin_is_who_has_the_role(roles: str, *, is_admin: bool) -> None:
    caller = await identified(("X-Project-Id", "p1"), ("X-Roles", roles))

    assert caller is not None
    assert caller.is_admin is is_admin


async def test_nobody_is_an_admin_where_no_role_makes_one() -> None:
    provider = HeadersIdentity((ip_network("192.0.2.0/24"),), ())

    caller = await provider.identify(
        request_head("/", ("X-Project-Id", "p1"), ("X-Roles", "admin,"), peer=FRONT)
    )

    assert isinstance(caller, Caller)
    assert not caller.is_admin
    assert caller.roles == {"admin"}
