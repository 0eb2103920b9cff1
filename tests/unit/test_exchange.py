from __future__ import annotations

from typing import Any

import pytest

from relproxy.errors import (
    BadRequestError,
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    UnauthenticatedError,
)
from relproxy.exchange import Exchange, exchange_for, shadow_exchange
from relproxy.filters.visibility import Viewer
from relproxy.model import Caller, Tenancy
from relproxy.routing import match
from tests.unit.given import request, request_head, routes

OWN = ("X-Nova-Installation-UUID", "X-Nova-Instance-ID")
MEMBER = Caller("p1", "u1", frozenset({"member"}))
ADMIN = Caller("p2", None, frozenset({"admin"}), is_admin=True)
VND = "application/vnd.openstack.images-v2"


def exchanged(
    target: str = "/v2/images",
    *pairs: tuple[str, str],
    caller: Caller | None = MEMBER,
    method: str = "GET",
    **registry: Any,
) -> Exchange:
    head = request_head(target, *pairs, method=method)
    found = match(routes({}, registry=registry), head)
    return exchange_for(request(head), found, caller, own_headers=OWN)


def test_an_exchange_knows_where_it_belongs() -> None:
    exchange = exchanged()

    assert exchange.registry == "main"
    assert exchange.dialect.name == "glance-v2"
    assert exchange.is_only_wall
    assert not exchanged(tenancy="registry").is_only_wall


@pytest.mark.parametrize(
    ("caller", "is_admin"), [(None, False), (MEMBER, False), (ADMIN, True)], ids=str
)
def test_only_an_admin_is_an_admin(caller: Caller | None, *, is_admin: bool) -> None:
    assert exchanged(caller=caller, tenancy="registry").is_admin is is_admin


def test_the_viewer_is_the_caller_at_this_registry() -> None:
    assert exchanged().viewer() == Viewer(Tenancy.RELPROXY, MEMBER, asks_for_community=False)
    assert exchanged(tenancy="registry").viewer(asks_for_community=True) == Viewer(
        Tenancy.REGISTRY, MEMBER, asks_for_community=True
    )


def test_what_a_client_says_of_itself_never_goes_upstream() -> None:
    exchange = exchanged(
        "/v2/images",
        ("Host", "h"),
        ("X_Project_Id", "evil"),
        ("x-roles", "admin"),
        ("X-Identity-Status", "Confirmed"),
        ("X_Nova_Instance_ID", "i"),
        ("X-Auth-Token", "t"),
        ("Transfer-Encoding", "chunked"),
    )

    assert {name.lower() for name, _ in exchange.outgoing.pairs} == {b"host", b"x-auth-token"}


def test_a_registry_that_trusts_its_front_hears_relproxy_and_nobody_else() -> None:
    pairs = (("X_Project_Id", "evil"), ("X-Roles", "admin"), ("X-User-Id", "evil"))
    outgoing = exchanged(
        "/v2/images", *pairs, tenancy="registry", upstream_identity="headers"
    ).outgoing

    assert outgoing.values("X-Project-Id") == ("p1",)
    assert outgoing.values("X-User-Id") == ("u1",)
    assert outgoing.values("X-Roles") == ("member",)
    assert outgoing.values("X-Identity-Status") == ("Confirmed",)


def test_a_registry_that_trusts_its_front_hears_of_no_caller_where_there_is_none() -> None:
    outgoing = exchanged(
        "/v2/images",
        ("X-Project-Id", "evil"),
        caller=None,
        tenancy="registry",
        upstream_identity="headers",
    ).outgoing

    assert outgoing.pairs == ()


def test_a_registry_that_takes_tokens_hears_of_no_caller() -> None:
    assert exchanged(tenancy="registry").outgoing.pairs == ()


def test_the_authority_of_the_target_becomes_the_host() -> None:
    exchange = exchanged("http://images.example/v2/images", ("Accept", "*/*"), ("Host", "x"))

    assert exchange.outgoing.values("Host") == ("images.example",)


def test_the_host_of_the_client_goes_upstream() -> None:
    assert exchanged("/v2/images", ("Host", "images.example:1")).outgoing.first("Host") == (
        "images.example:1"
    )


def test_a_version_in_the_media_type_is_said_only_in_the_path() -> None:
    exchange = exchanged("/images", ("Accept", VND))

    assert exchange.outgoing.values("Accept") == ("*/*",)
    assert exchange.match.target == "/v2/images"


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize("tenancy", ["registry", "relproxy"])
def test_a_form_never_reaches_a_registry(content_type: str, tenancy: str) -> None:
    # Routes takes the method of a POST from its form: {"name": "&_method=GET&"} would be a list.
    try:
        exchange = exchanged(
            "/v2/images", ("Content_Type", content_type), method="POST", tenancy=tenancy
        )
    except BadRequestError:
        return

    assert not any("form" in value for value in exchange.outgoing.values("Content-Type"))


def test_connection_cannot_take_an_identity_away() -> None:
    with pytest.raises(BadRequestError):
        exchanged("/v2/images", ("Connection", "x_project_id"), tenancy="registry")


@pytest.mark.parametrize(
    ("method", "target", "caller", "refusal"),
    [
        pytest.param("GET", "/v2/images", None, UnauthenticatedError, id="a list for nobody"),
        pytest.param("GET", "/v2/tasks", MEMBER, ForbiddenError, id="tasks for a member"),
        pytest.param("GET", "/v2/images/a/members", ADMIN, ForbiddenError, id="members"),
        pytest.param("GET", "/v2/new", MEMBER, NotFoundError, id="an unknown path"),
        pytest.param("HEAD", "/v2/images", MEMBER, MethodNotAllowedError, id="another method"),
    ],
)
def test_where_relproxy_is_the_only_wall_it_says_who_may(
    method: str, target: str, caller: Caller | None, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        exchanged(target, caller=caller, method=method)


@pytest.mark.parametrize("target", ["/v2/images", "/v2/tasks", "/v2/images/a/members", "/v2/new"])
def test_a_registry_that_knows_its_callers_says_itself_who_may(target: str) -> None:
    assert exchanged(target, caller=None, tenancy="registry").caller is None


@pytest.mark.parametrize("target", ["/", "/versions", "/v2"])
def test_a_version_document_is_for_everyone(target: str) -> None:
    assert exchanged(target, caller=None).caller is None


def test_in_shadow_a_request_goes_on_as_it_came_whatever_speaks_against_it() -> None:
    pairs = (
        ("Accept", VND),
        ("Content-Type", "multipart/form-data"),
        ("Connection", "X-Project-Id"),
        ("X-Project-Id", "evil"),
        ("X-Nova-Instance-ID", "i"),
    )
    head = request_head("http://images.example/images", *pairs)
    found = match(routes({"mode": "shadow"}), head)
    outgoing = shadow_exchange(request(head), found, None, own_headers=OWN).outgoing

    assert outgoing.pairs == (
        (b"Accept", VND.encode()),
        (b"Content-Type", b"multipart/form-data"),
        (b"Host", b"images.example"),
    )


def test_in_shadow_a_registry_that_trusts_its_front_hears_relproxy() -> None:
    head = request_head("/v2/images", ("X-Project-Id", "evil"))
    registry = {"tenancy": "registry", "upstream_identity": "headers"}
    found = match(routes({"mode": "shadow"}, registry=registry), head)
    outgoing = shadow_exchange(request(head), found, MEMBER, own_headers=OWN).outgoing

    assert outgoing.values("X-Project-Id") == ("p1",)
