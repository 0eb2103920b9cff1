from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relproxy.errors import BadRequestError, NotFoundError
from relproxy.filters.base import UNKNOWN
from relproxy.model import Treatment
from relproxy.networks import parse_address
from relproxy.routing import Match, match
from tests.unit.given import UUID, request_head, routes

Conditions = dict[str, Any]

EAST: Conditions = {"path_prefix": "/east"}
ANYTHING: Conditions = {}


def matched(
    raw: str, *conditions: Conditions, method: str = "GET", tenancy: str = "relproxy"
) -> Match:
    table = routes(*conditions, registry={"tenancy": tenancy})
    return match(table, request_head(raw, method=method))


def taken(raw: str, *pairs: tuple[str, str], among: tuple[Conditions, ...], **head: Any) -> str:
    """Return the name of the route that takes a request."""
    return match(routes(*among), request_head(raw, *pairs, **head)).route.name


# -- conditions


def test_a_route_without_conditions_takes_everything() -> None:
    assert taken("/v2/images", among=(ANYTHING,)) == "r0"
    assert taken("/v2/images", among=(ANYTHING,), peer=None) == "r0"


def test_a_route_knows_what_the_configuration_says() -> None:
    (route,) = routes({"path_prefix": "/east", "installation": "nova", "host": "a.example"})

    assert route.name == "r0"
    assert route.prefix == ("east",)
    assert route.path_prefix == "/east"
    assert route.installation == UUID
    assert route.registry.name == "main"
    assert route.dialect.name == "glance-v2"


def test_a_prefix_is_put_back_as_it_was_configured() -> None:
    (route,) = routes({"path_prefix": "/east/images"})

    assert route.path_prefix == "/east/images"
    assert routes({})[0].path_prefix == ""


def test_the_first_route_that_takes_a_request_is_its_route() -> None:
    among = ({"host": "a.example"}, EAST, ANYTHING)

    assert taken("/east/v2/images", ("Host", "a.example"), among=among) == "r0"
    assert taken("/east/v2/images", ("Host", "b.example"), among=among) == "r1"
    assert taken("/v2/images", ("Host", "b.example"), among=among) == "r2"


@pytest.mark.parametrize(
    "host",
    [
        "images.example",
        "images.example:9292",
        "Images.EXAMPLE",
        "images.example.",
        "IMAGES.example.:80",
        " images.example ",
    ],
)
def test_a_host_is_known_in_any_spelling(host: str) -> None:
    assert taken("/v2/images", ("Host", host), among=({"host": "images.example"},)) == "r0"


@pytest.mark.parametrize(
    "host",
    [
        "example",
        "other.images.example",
        "images.example.evil.example",
        "[::1]:80",
    ],
)
def test_another_host_is_another_host(host: str) -> None:
    with pytest.raises(NotFoundError):
        taken("/v2/images", ("Host", host), among=({"host": "images.example"},))


@pytest.mark.parametrize(
    "host",
    [
        "images.example@evil.example",
        "images.example:80:80",
        "images.example:port",
        "images.example, evil.example",
        "images.example/v2/images?",
        "images.example#",
        "images example",
        'images.example"',
        "im\u0131ges.example".encode().decode("latin-1"),
        "[::1",
        "",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(BadRequestError, match="host"):
        taken("/v2/images", ("Host", host), among=({"host": "images.example"}, ANYTHING))


@pytest.mark.parametrize("version", [(0, 9), (1, 2), (2, 0)])
def test_another_version_of_http_is_refused(version: tuple[int, int]) -> None:
    head = replace(request_head(), version=version)
    with pytest.raises(BadRequestError, match="version"):
        match(routes(), head)


def test_a_request_without_a_host_has_none() -> None:
    among = ({"host": "images.example"}, ANYTHING)

    assert taken("/v2/images", among=among) == "r1"


def test_the_authority_of_the_target_overrules_the_host() -> None:
    among = ({"host": "images.example"}, ANYTHING)
    host = ("Host", "images.example")

    assert taken("http://other.example/v2/images", host, among=among) == "r1"
    assert taken("http://images.example:80/v2/images", ("Host", "x"), among=among) == "r0"


@pytest.mark.parametrize(
    ("raw", "route"),
    [
        pytest.param("/east/v2/images", "r0", id="below the prefix"),
        pytest.param("/east", "r0", id="the prefix itself"),
        pytest.param("/east/", "r0", id="the prefix and a slash"),
        pytest.param("//east//v2", "r0", id="with double slashes"),
        pytest.param("/%65ast/v2/images", "r0", id="encoded"),
        pytest.param("/east%2Fv2/images", "r0", id="with an encoded slash"),
        pytest.param("/eastern/v2/images", "r1", id="a longer name"),
        pytest.param("/eas/v2/images", "r1", id="a shorter name"),
        pytest.param("/East/v2/images", "r1", id="another case"),
        pytest.param("/east%252Fv2", "r1", id="a double-encoded slash"),
        pytest.param("/v2/east", "r1", id="elsewhere in the path"),
        pytest.param("/?/east", "r1", id="in the query"),
    ],
)
def test_a_prefix_is_whole_segments(raw: str, route: str) -> None:
    assert taken(raw, among=(EAST, {})) == route


def test_a_listener_has_routes_of_its_own() -> None:
    among = ({"listener": "nova"}, ANYTHING)

    assert taken("/", among=among, listener="nova") == "r0"
    assert taken("/", among=among, listener="public") == "r1"


def test_a_network_has_routes_of_its_own() -> None:
    among = ({"network": "192.0.2.0/24"}, {"network": "2001:db8::/32"}, ANYTHING)

    assert taken("/", among=among, peer="192.0.2.9") == "r0"
    assert taken("/", among=among, peer="::ffff:192.0.2.9") == "r0"
    assert taken("/", among=among, peer="2001:db8::1") == "r1"
    assert taken("/", among=among, peer="198.51.100.1") == "r2"
    assert taken("/", among=among, peer=None) == "r2"


@pytest.mark.parametrize("source", [None, "198.51.100.1"])
def test_a_network_is_that_of_the_source_and_not_of_the_peer(source: str | None) -> None:
    address = parse_address(source) if source else None
    head = replace(request_head("/", peer="192.0.2.9"), source=address)

    assert match(routes({"network": "192.0.2.0/24"}, {}), head).route.name == "r1"


def test_a_route_takes_only_what_meets_all_its_conditions() -> None:
    among = (
        {"host": "a.example", "path_prefix": "/east", "network": "192.0.2.0/24", "listener": "l"},
        ANYTHING,
    )
    meets: dict[str, Any] = {"peer": "192.0.2.9", "listener": "l"}
    host = ("Host", "a.example")

    assert taken("/east/v2", host, among=among, **meets) == "r0"
    assert taken("/west/v2", host, among=among, **meets) == "r1"
    assert taken("/east/v2", among=among, **meets) == "r1"
    assert taken("/east/v2", host, among=among, **{**meets, "peer": None}) == "r1"
    assert taken("/east/v2", host, among=among, **{**meets, "listener": "x"}) == "r1"


def test_what_no_route_takes_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="No route"):
        matched("/v2/images", EAST)


# -- what goes upstream


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        pytest.param("/v2/images", "/v2/images", id="the canonical form"),
        pytest.param("/v2/images?limit=1&x=%2F", "/v2/images?limit=1&x=%2F", id="its raw query"),
        pytest.param("/v2.9/images", "/v2.9/images", id="its own minor version"),
        pytest.param("/v2//images", "/v2/images", id="double slashes"),
        pytest.param("//v2/images", "/v2/images", id="double slashes in front"),
        pytest.param("/v2/%69mages?a=b", "/v2/images?a=b", id="an escape that is not needed"),
        pytest.param("/v2/images/", "/v2/images", id="a slash at the end"),
        pytest.param("/v2/images/a%2ffile", "/v2/images/a/file", id="an encoded slash"),
        pytest.param("/v2/images/a%252ffile", "/v2/images/a%252ffile", id="double encoding"),
        pytest.param("http://h/v2//images", "/v2/images", id="the absolute form"),
        pytest.param("/v2/images?", "/v2/images", id="an empty query"),
    ],
)
def test_a_known_path_goes_upstream_as_it_was_classified(raw: str, sent: str) -> None:
    assert matched(raw, {}).target == sent


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        pytest.param("/v2//new/", "/v2//new/", id="slashes"),
        pytest.param("/v2/new/%41%2f", "/v2/new/%41%2f", id="escapes"),
        pytest.param("//evil.example/x", "//evil.example/x", id="what looks like an authority"),
        pytest.param("http://h//x//y", "//x//y", id="the absolute form"),
        pytest.param("http://h", "/", id="the absolute form without a path"),
    ],
)
def test_an_unknown_path_goes_upstream_as_it_came(raw: str, sent: str) -> None:
    found = matched(raw, {}, tenancy="registry")

    assert found.operation.name in {UNKNOWN, "versions"}
    assert found.target == sent


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        pytest.param("/east/v2/images?limit=1", "/v2/images?limit=1", id="a known path"),
        pytest.param("/%65ast/v2/images", "/v2/images", id="an encoded prefix"),
        pytest.param("//east/v2//images", "/v2/images", id="double slashes"),
        pytest.param("/east%2fv2/images", "/v2/images", id="an encoded slash"),
        pytest.param("/east", "/", id="the prefix itself"),
        pytest.param("/east?a=b", "/?a=b", id="the prefix itself and a query"),
        pytest.param("/east/", "/", id="the prefix and a slash"),
        pytest.param("/east//new/", "//new/", id="an unknown path as it came"),
        pytest.param("/%65ast/new//x/", "/new/x", id="an unknown path behind an encoded prefix"),
        pytest.param("/east/east/new", "/east/new", id="the prefix only once"),
        pytest.param("http://h/east/v2/images", "/v2/images", id="the absolute form"),
    ],
)
def test_a_prefix_never_goes_upstream(raw: str, sent: str) -> None:
    assert matched(raw, EAST, tenancy="registry").target == sent


def test_a_version_in_the_media_type_goes_upstream_in_the_path() -> None:
    accept = ("Accept", "application/vnd.openstack.images-v2")
    found = match(routes(EAST), request_head("/east/images?limit=1", accept))

    assert found.treatment is Treatment.LIST
    assert found.target == "/v2/images?limit=1"


def test_the_query_is_kept_for_the_list() -> None:
    assert matched("/east/v2/images?limit=1&name=a%26b", EAST).query == "limit=1&name=a%26b"


@pytest.mark.parametrize(
    ("raw", "authority"),
    [
        ("/v2/images", None),
        ("http://images.example:9292/v2/images", "images.example:9292"),
    ],
)
def test_the_authority_of_the_target_is_kept(raw: str, authority: str | None) -> None:
    assert matched(raw, {}).authority == authority


# -- treatments


@pytest.mark.parametrize(
    ("method", "raw", "alone", "beside"),
    [
        ("GET", "/v2/images", Treatment.LIST, Treatment.LIST),
        ("POST", "/v2/images", Treatment.CREATE, Treatment.CREATE),
        ("GET", "/v2/images/a", Treatment.IMAGE, Treatment.IMAGE),
        ("GET", "/v2/schemas/image", Treatment.PASS, Treatment.PASS),
        ("GET", "/v2/tasks", Treatment.PASS, Treatment.PASS),
        ("GET", "/v2/images/a/members", Treatment.REFUSE, Treatment.IMAGE),
        ("GET", "/v2/new", Treatment.REFUSE, Treatment.PASS),
        ("HEAD", "/v2/images", Treatment.REFUSE, Treatment.PASS),
        ("OPTIONS", "/v2/images", Treatment.REFUSE, Treatment.PASS),
    ],
)
def test_what_has_no_place_is_refused_only_where_relproxy_is_the_only_wall(
    method: str, raw: str, alone: Treatment, beside: Treatment
) -> None:
    assert matched(raw, {}, method=method).treatment is alone
    assert matched(raw, {}, method=method, tenancy="registry").treatment is beside


# -- refused whatever the route


@pytest.mark.parametrize("raw", ["*", "images.example:443", "/v2/../x", "/v2/images#a", ""])
def test_a_target_that_is_none_is_refused_before_any_route(raw: str) -> None:
    with pytest.raises(BadRequestError):
        matched(raw, EAST)


@pytest.mark.parametrize("method", ["get", "Get", "G ET", "GET\r\n", "", "GÉT"])
def test_a_method_that_peers_may_read_differently_is_refused(method: str) -> None:
    with pytest.raises(BadRequestError):
        matched("/v2/images", {}, method=method)


@pytest.mark.parametrize("tenancy", ["registry", "relproxy"])
@pytest.mark.parametrize("raw", ["/v2/images", "/v2/new", "/v2/images/a", "/"])
def test_a_query_that_overrides_the_method_is_refused_on_every_path(raw: str, tenancy: str) -> None:
    with pytest.raises(BadRequestError, match="_method"):
        matched(f"{raw}?x=y;_method=GET", {}, method="POST", tenancy=tenancy)


# -- in shadow

SHADOW: Conditions = {"mode": "shadow"}


@pytest.mark.parametrize(
    "raw",
    ["/v2/images?limit=1&limit=2", "//v2//images", "/v2/%69mages", "/v2/nothing", "/v2/tasks"],
)
def test_a_target_goes_on_as_it_was_spelled(raw: str) -> None:
    assert matched(raw, SHADOW).target == raw


def test_a_prefix_comes_off_in_shadow_too() -> None:
    route = SHADOW | EAST
    assert matched("/east//v2/images?x=%2f", route).target == "//v2/images?x=%2f"
    assert matched("/%65ast/v2//images?x", route).target == "/v2/images?x"


def test_what_is_classified_does_not_hang_on_shadow() -> None:
    assert matched("/v2/%69mages", SHADOW).treatment is Treatment.LIST
    assert matched("/v2/nothing", SHADOW).treatment is Treatment.REFUSE
    assert matched("/v2/images", SHADOW).refusal is None


def test_another_method_is_refused_in_word_only() -> None:
    found = matched("/v2/images?_method=GET", SHADOW, method="POST")

    assert isinstance(found.refusal, BadRequestError)
    assert (found.target, found.operation.name) == ("/v2/images?_method=GET", UNKNOWN)
    with pytest.raises(BadRequestError):
        matched("/v2/images?_method=GET", ANYTHING, method="POST")


@pytest.mark.parametrize("raw", ["/v2/../images", "/v2/images%00", "nonsense"])
def test_what_no_route_can_be_found_for_is_refused_in_shadow_too(raw: str) -> None:
    with pytest.raises(BadRequestError):
        matched(raw, SHADOW)
