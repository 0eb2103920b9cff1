from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from relproxy.config import Configuration, Registry, Route, Timeouts
from relproxy.config_admin import Admin
from relproxy.config_listeners import Listener
from relproxy.model import Tenancy
from tests.unit.given import OTHER_UUID, UUID

LEAST: dict[str, Any] = {
    "listeners": [{"name": "public", "bind": "127.0.0.1:9292"}],
    "store": {"path": "/var/lib/relproxy/relproxy.db"},
    "registries": [
        {"name": "main", "tenancy": "relproxy", "endpoints": ["http://127.0.0.1:9191"]},
        {"name": "other", "tenancy": "registry", "endpoints": ["http://127.0.0.1:9192"]},
    ],
    "installations": [{"name": "a", "uuid": UUID}, {"name": "b", "uuid": OTHER_UUID}],
    "routes": [
        {"name": "east", "path_prefix": "/east", "registry": "other", "installation": "b"},
        {"name": "all", "registry": "main"},
    ],
}


@pytest.fixture
def configuration() -> Configuration:
    return Configuration.model_validate(LEAST)


def test_the_least_that_can_be_said_is_enough(configuration: Configuration) -> None:
    assert configuration.admin.bind == "127.0.0.1:9393"
    assert configuration.identity.trusted_networks == ()
    assert configuration.trusted_sources.networks == ()
    assert configuration.metadata_headers.instance == "X-Nova-Instance-ID"
    assert configuration.metadata_headers.installation == "X-Nova-Installation-UUID"


def test_nobody_is_trusted_unless_the_file_says_so(configuration: Configuration) -> None:
    assert not configuration.identity.trusted_networks
    assert not configuration.trusted_sources.networks
    assert configuration.registries[0].chosen_image_ids == "refuse"
    assert configuration.registries[0].upstream_identity == "token"


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("limits", "max_page_bytes"),
        ("admin", "bind"),
        ("store", "path"),
        ("metadata_headers", "instance"),
        ("timeouts", "read_s"),
    ],
)
def test_nothing_changes_after_it_was_read(
    configuration: Configuration, section: str, setting: str
) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(getattr(configuration, section), setting, 1)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(configuration, section, None)


def test_lists_of_the_file_are_tuples(configuration: Configuration) -> None:
    for name in ("listeners", "registries", "installations", "routes"):
        assert isinstance(getattr(configuration, name), tuple)
    assert isinstance(configuration.registries[0].endpoints, tuple)


def test_a_route_leads_to_its_registry_and_installation(configuration: Configuration) -> None:
    east, everything = configuration.routes

    assert configuration.registry_of(east).name == "other"
    assert configuration.registry_of(east).tenancy is Tenancy.REGISTRY
    assert configuration.installation_of(east) == OTHER_UUID
    assert configuration.registry_of(everything).name == "main"
    assert configuration.installation_of(everything) is None


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:9292", "0.0.0.0:0", "[::]:9292", "[::1]:65535", "localhost:80"]
)
def test_an_address_to_listen_on_is_taken(bind: str) -> None:
    assert Listener(name="public", bind=bind).bind == bind


@pytest.mark.parametrize(
    "bind",
    ["", "9292", ":9292", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:http", "h:-1"],
)
def test_an_address_that_is_none_is_refused(bind: str) -> None:
    with pytest.raises(ValidationError, match="HOST:PORT"):
        Listener(name="public", bind=bind)


@pytest.mark.parametrize("bind", ["127.0.0.1:9393", "127.9.9.9:1", "[::1]:9393", "localhost:0"])
def test_the_admin_listener_may_be_on_loopback(bind: str) -> None:
    assert Admin(bind=bind).bind == bind


@pytest.mark.parametrize(
    "bind",
    ["0.0.0.0:9393", "[::]:9393", "192.0.2.1:9393", "admin.example:9393", "127.0.0.1.evil:1"],
)
def test_the_admin_listener_is_elsewhere_only_for_those_with_tokens(bind: str) -> None:
    with pytest.raises(ValidationError, match="loopback"):
        Admin(bind=bind)
    assert Admin(bind=bind, tokens_file=Path("/etc/relproxy/tokens.yaml")).bind == bind


def registry(**settings: Any) -> Registry:
    return Registry.model_validate(
        {"name": "main", "tenancy": "relproxy", "endpoints": ["http://g:9292"], **settings}
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:9292", "http://127.0.0.1:9292"),
        ("https://images.example", "https://images.example"),
        ("http://g:9292/", "http://g:9292"),
        ("http://[::1]:9292", "http://[::1]:9292"),
        ("unix:/run/glance/api.sock", "unix:/run/glance/api.sock"),
    ],
)
def test_an_endpoint_is_kept_without_a_slash(given: str, kept: str) -> None:
    assert registry(endpoints=[given]).endpoints == (kept,)


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param("", id="nothing"),
        pytest.param("127.0.0.1:9292", id="no scheme"),
        pytest.param("ftp://g", id="another scheme"),
        pytest.param("http://", id="no host"),
        pytest.param("http://:9292", id="only a port"),
        pytest.param("http://g/v2", id="a path"),
        pytest.param("http://g?a=b", id="a query"),
        pytest.param("http://g:9292?", id="an empty query"),
        pytest.param("http://g#a", id="a fragment"),
        pytest.param("http://g:9292#", id="an empty fragment"),
        pytest.param("http://me:secret@g", id="a password"),
        pytest.param("http://me@g", id="a user"),
        pytest.param("http://g:99999", id="a port that is none"),
        pytest.param("http://g:92g2", id="a port that is no number"),
        pytest.param("http://g :9292", id="a blank in the host"),
        pytest.param("http://g:9292 ", id="a blank behind it"),
        pytest.param("http://[::1", id="half a bracket"),
        pytest.param("unix:glance.sock", id="a socket by a relative path"),
        pytest.param("unix:/" + "x" * 107, id="a socket by a path that is too long"),
        pytest.param("http://2f78.unix.invalid", id="a host that stands for a socket"),
    ],
)
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        registry(endpoints=[endpoint])


def route(**settings: Any) -> Route:
    return Route.model_validate({"name": "east", "registry": "main", **settings})


@pytest.mark.parametrize("prefix", ["/east", "/east/images", "/a-b_c.d~e", "/%20"])
def test_a_prefix_is_a_canonical_path(prefix: str) -> None:
    assert route(path_prefix=prefix).path_prefix == prefix


@pytest.mark.parametrize(
    "prefix",
    [
        pytest.param("", id="nothing"),
        pytest.param("/", id="the root"),
        pytest.param("//", id="two slashes"),
        pytest.param("east", id="no slash"),
        pytest.param("/east/", id="a slash at the end"),
        pytest.param("//east", id="two slashes in front"),
        pytest.param("/east//images", id="two slashes within"),
        pytest.param("/%65ast", id="an escape that is not needed"),
        pytest.param("/east?a=b", id="a query"),
        pytest.param("/east?", id="an empty query"),
        pytest.param("/east#a", id="a fragment"),
        pytest.param("/..", id="dots"),
        pytest.param("/east/../west", id="dots within"),
        pytest.param("/ea st", id="a blank"),
        pytest.param("/öst", id="a letter outside ASCII"),
        pytest.param("http://g/east", id="a URL"),
    ],
)
def test_a_prefix_that_is_no_canonical_path_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError):
        route(path_prefix=prefix)


@pytest.mark.parametrize("host", ["Glance.example", "glance.example:9292", "a b", "http://g", ""])
def test_a_host_that_no_request_can_name_is_refused(host: str) -> None:
    with pytest.raises(ValidationError):
        route(host=host)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "a/b", "é", "a" * 65, "a\n"])
def test_a_name_is_short_and_plain(name: str) -> None:
    with pytest.raises(ValidationError):
        Listener(name=name, bind="127.0.0.1:0")


@pytest.mark.parametrize("seconds", [0, -1, 86_401, float("nan"), float("inf")])
def test_a_timeout_is_within_a_day(seconds: float) -> None:
    with pytest.raises(ValidationError):
        Timeouts(connect_s=seconds)


@pytest.mark.parametrize("setting", ["default_limit", "max_limit"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True])
def test_a_number_of_images_is_a_whole_number_over_zero(setting: str, value: object) -> None:
    with pytest.raises(ValidationError):
        registry(**{setting: value})


@pytest.mark.parametrize("name", ["X_Nova", "X Nova", "X-Nova:", "", "X-", "-X", "X--Y", "Xé"])
def test_a_header_name_has_letters_digits_and_hyphens(name: str) -> None:
    with pytest.raises(ValidationError):
        Configuration.model_validate({**LEAST, "metadata_headers": {"instance": name}})


def test_one_header_cannot_carry_both_halves_of_the_tuple() -> None:
    names = {"instance": "X-Nova", "installation": "x-nova"}

    with pytest.raises(ValidationError):
        Configuration.model_validate({**LEAST, "metadata_headers": names})
