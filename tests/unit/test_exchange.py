from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relproxy.errors import (
    BadRequestError,
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    UnauthenticatedError,
)
from relproxy.exchange import Exchange, Own, exchange_for, needs_caller, shadow_exchange
from relproxy.filters.source import Fronts
from relproxy.filters.visibility import Viewer
from relproxy.filters.way import Way
from relproxy.identity.base import NoCaller
from relproxy.model import AccessRule, Caller, Service, Tenancy
from relproxy.routing import match
from tests.unit.given import request, request_head, routes

OWN = Own(("X-Nova-Installation-UUID", "X-Nova-Instance-ID"), Way(Fronts()))
MEMBER = Caller("p1", "u1", frozenset({"member"}))
ADMIN = Caller("p2", None, frozenset({"admin"}), is_admin=True)
NOBODY = NoCaller("Who are you?", "Token")
TRUSTING = {"tenancy": "registry", "upstream_identity": "headers"}
UNSCOPED = NoCaller("You are no project's.", None)
VND = "application/vnd.openstack.images-v2"


def exchanged(
    target: str = "/v2/images",
    *pairs: tuple[str, str],
    caller: Caller | NoCaller | None = MEMBER,
    method: str = "GET",
    **registry: Any,
) -> Exchange:
    head = request_head(target, *pairs, method=method)
    found = match(routes({}, registry=registry), head)
    return exchange_for(request(head), found, caller or NOBODY, own=OWN)


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


@pytest.mark.parametrize(
    ("registry", "target", "is_asked"),
    [
        pytest.param({"tenancy": "relproxy"}, "/v2/images/a", True, id="the only wall"),
        pytest.param({"tenancy": "relproxy"}, "/versions", False, id="the only wall: versions"),
        pytest.param(TRUSTING, "/v2/images/a", True, id="a registry that trusts its front"),
        pytest.param(TRUSTING, "/versions", False, id="one that trusts its front: versions"),
        pytest.param(TRUSTING, "/v2", True, id="one that trusts its front: its redirect"),
        pytest.param({"tenancy": "registry"}, "/v2/images", True, id="a list to be filtered"),
        pytest.param({"tenancy": "registry"}, "/v2/images/a", False, id="the registry's to judge"),
        pytest.param({"tenancy": "registry"}, "/v2/tasks", False, id="passed on"),
    ],
)
def test_it_is_asked_who_the_caller_is_only_where_that_matters(
    registry: dict[str, Any], target: str, *, is_asked: bool
) -> None:
    assert needs_caller(match(routes({}, registry=registry), request_head(target))) is is_asked


def test_whoever_creates_an_image_may_vouch_for_its_instance() -> None:
    found = match(routes({}, registry={"tenancy": "registry"}), request_head(method="POST"))

    assert needs_caller(found)


def test_a_stranger_is_refused_with_the_providers_own_challenge() -> None:
    with pytest.raises(UnauthenticatedError) as refusal:
        exchanged(caller=NOBODY)

    assert (refusal.value.sentence, refusal.value.challenge) == ("Who are you?", "Token")


def test_a_refusal_is_a_new_one_each_time() -> None:
    # One that is raised again and again would keep every traceback.
    assert NOBODY.refusal() is not NOBODY.refusal()


@pytest.mark.parametrize(
    "registry", [{"tenancy": "relproxy"}, TRUSTING], ids=["the only wall", "trusts its front"]
)
def test_whose_token_is_no_projects_is_refused_where_relproxy_speaks_for_callers(
    registry: dict[str, Any],
) -> None:
    with pytest.raises(ForbiddenError, match="no project's"):
        exchanged(caller=UNSCOPED, **registry)
    assert exchanged("/versions", caller=UNSCOPED, **registry).caller is None


def test_a_registry_that_validates_tokens_judges_one_that_is_no_projects() -> None:
    assert exchanged(caller=UNSCOPED, tenancy="registry").caller is None


@pytest.mark.parametrize(
    "registry", [{"tenancy": "relproxy"}, TRUSTING], ids=["the only wall", "trusts its front"]
)
def test_access_rules_hold_where_relproxy_speaks_for_callers(registry: dict[str, Any]) -> None:
    narrow = replace(MEMBER, access_rules=(AccessRule("image", "GET", "/v2/images/*"),))

    assert exchanged("/v2/images/a", caller=narrow, **registry).caller == narrow
    for target in ("/v2/images", "/v2/images/a/file"):
        with pytest.raises(ForbiddenError, match="access rules"):
            exchanged(target, caller=narrow, **registry)


def test_a_registry_that_validates_tokens_judges_access_rules_itself() -> None:
    narrow = replace(MEMBER, access_rules=())

    assert exchanged(caller=narrow, tenancy="registry").caller == narrow


def test_a_registry_that_trusts_its_front_hears_all_that_a_token_says() -> None:
    caller = replace(
        MEMBER,
        user_domain="d1",
        project_domain="d2",
        is_admin_project=False,
        service=Service("services", "nova", frozenset({"service"})),
    )
    outgoing = exchanged(caller=caller, **TRUSTING).outgoing

    assert {name.decode(): value.decode() for name, value in outgoing.pairs} == {
        "X-Identity-Status": "Confirmed",
        "X-Project-Id": "p1",
        "X-User-Id": "u1",
        "X-Roles": "member",
        "X-User-Domain-Id": "d1",
        "X-Project-Domain-Id": "d2",
        "X-Is-Admin-Project": "False",
        "X-Service-Identity-Status": "Confirmed",
        "X-Service-Project-Id": "services",
        "X-Service-User-Id": "nova",
        "X-Service-Roles": "service",
    }


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
    outgoing = shadow_exchange(request(head), found, None, own=OWN).outgoing

    assert outgoing.pairs == (
        (b"Accept", VND.encode()),
        (b"Content-Type", b"multipart/form-data"),
        (b"Host", b"images.example"),
    )


def test_in_shadow_a_registry_that_trusts_its_front_hears_relproxy() -> None:
    head = request_head("/v2/images", ("X-Project-Id", "evil"))
    registry = {"tenancy": "registry", "upstream_identity": "headers"}
    found = match(routes({"mode": "shadow"}, registry=registry), head)
    outgoing = shadow_exchange(request(head), found, MEMBER, own=OWN).outgoing

    assert outgoing.values("X-Project-Id") == ("p1",)
