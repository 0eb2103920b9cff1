from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from relproxy.config import Configuration
from relproxy.config_admin import Admin
from relproxy.config_file import parse_configuration
from relproxy.config_identity import TrustedSources
from relproxy.config_listeners import Listener
from relproxy.config_tls import ServerTls
from relproxy.config_warnings import warnings
from relproxy.errors import ConfigurationError
from tests.unit.test_config import LEAST

FILES = {"certificate_file": "/a.pem", "key_file": "/b.pem"}
ASKING = FILES | {"client_ca_file": "/c.pem", "client_certificates": "optional"}


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("dns:Nova.Example.org", "dns:nova.example.org"),
        ("dns:host", "dns:host"),
        ("uri:spiffe://Example.org/Nova", "uri:spiffe://Example.org/Nova"),
        ("sha256:" + "AB:" * 31 + "AB", "sha256:" + "ab" * 32),
    ],
)
def test_a_name_is_kept_as_certificates_are_known_by_it(name: str, canonical: str) -> None:
    assert TrustedSources(certificates=(name,)).certificates == (canonical,)


@pytest.mark.parametrize(
    "name",
    [
        *("", "nova.example.org", "dns:", "dns:*.example.org", "dns:nova.example.org."),
        *("dns:nova..example.org", "dns:nova example.org", "dns:nova\0", "dns:nova.example.org\n"),
        *("dns:b\u00fccher.example", "uri:", "uri:nova", "uri:spiffe://a\n", "cn:nova"),
        *(
            "sha256:" + "ab" * 31,
            "sha256:" + "zz" * 32,
            "sha1:" + "ab" * 20,
            "DNS:nova.example.org",
        ),
    ],
)
def test_what_names_no_certificate_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="whole and without wildcards"):
        TrustedSources(certificates=(name,))


@pytest.mark.parametrize("version", ["1.2", 1.2, "1.3", 1.3])
def test_a_version_may_be_written_as_a_number(version: object) -> None:
    assert ServerTls.model_validate(FILES | {"minimum_version": version}).minimum_version == str(
        version
    )


@pytest.mark.parametrize("version", ["1.0", 1.1, "1", "tls1.2", True])
def test_no_version_before_1_2_is_spoken(version: object) -> None:
    with pytest.raises(ValidationError):
        ServerTls.model_validate(FILES | {"minimum_version": version})


@pytest.mark.parametrize(
    "tls",
    [
        pytest.param({"client_ca_file": "/c.pem"}, id="an authority that nobody is asked for"),
        pytest.param({"client_certificates": "required"}, id="certificates of no authority"),
    ],
)
def test_client_certificates_need_both_halves(tls: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="should have both client_ca_file and"):
        ServerTls.model_validate(FILES | tls)


@pytest.mark.parametrize(
    ("settings", "is_taken"),
    [
        pytest.param({}, False, id="nothing"),
        pytest.param({"tls": FILES}, False, id="TLS that asks nobody"),
        pytest.param({"tls": ASKING}, True, id="client certificates"),
        pytest.param({"tokens_file": "/tokens"}, True, id="tokens"),
    ],
)
def test_the_admin_listener_is_for_others_only_if_it_asks_who_they_are(
    settings: dict[str, Any], *, is_taken: bool
) -> None:
    settings = settings | {"bind": "0.0.0.0:9393"}
    if is_taken:
        assert Admin.model_validate(settings).bind == "0.0.0.0:9393"
        return
    with pytest.raises(ValidationError, match="has to be a loopback address"):
        Admin.model_validate(settings)


def test_the_admin_listener_may_be_a_socket() -> None:
    assert Admin(bind="unix:/run/relproxy/admin.sock").socket_mode == "0660"


@pytest.mark.parametrize(("mode", "kept"), [("0660", "0660"), (0o660, "0660"), (0o600, "0600")])
def test_a_mode_may_be_written_as_yaml_takes_it(mode: object, kept: str) -> None:
    listener = {"name": "public", "bind": "unix:/s", "socket_mode": mode}
    assert Listener.model_validate(listener).socket_mode == kept


@pytest.mark.parametrize("mode", [660, "660", "0777", "0000", "u=rw", True, -1])
def test_a_mode_that_is_not_meant_is_refused(mode: object) -> None:
    with pytest.raises(ValidationError, match="0600"):
        Listener.model_validate({"name": "public", "bind": "unix:/s", "socket_mode": mode})


@pytest.mark.parametrize(
    "bind",
    ["unix:", "unix:relative.sock", "unix:/" + "a" * 107, "unix:/" + "\u00e4" * 54, "unix:/a\0b"],
)
def test_a_socket_has_a_path_that_the_system_has_room_for(bind: str) -> None:
    with pytest.raises(ValidationError, match="absolute and of 107 bytes at most"):
        Listener(name="public", bind=bind)


def test_an_address_of_the_network_is_not_fronted() -> None:
    with pytest.raises(ValidationError, match="fronted is for unix:/PATH only"):
        Listener(name="public", bind="127.0.0.1:9292", fronted=True)
    assert Listener(name="public", bind="unix:/s", fronted=True).fronted


@pytest.mark.parametrize(
    ("admin", "warns"),
    [
        pytest.param({"tokens_file": "/t"}, True, id="tokens in the clear"),
        pytest.param({"tokens_file": "/t", "tls": FILES}, False, id="tokens within TLS"),
        pytest.param({"tls": ASKING}, False, id="certificates"),
    ],
)
def test_tokens_that_everybody_on_the_network_can_read_are_warned_of(
    admin: dict[str, Any], *, warns: bool
) -> None:
    settings = LEAST | {"admin": admin | {"bind": "192.0.2.1:9393"}}
    said = [*warnings(Configuration.model_validate(settings))]
    assert any("without admin.tls: tokens" in warning for warning in said) is warns


def test_names_of_certificates_that_nobody_is_asked_for_are_a_problem() -> None:
    text = yaml.safe_dump(LEAST | {"trusted_sources": {"certificates": ["dns:nova.example.org"]}})
    with pytest.raises(ConfigurationError, match=r"trusted_sources\.certificates: has a meaning"):
        parse_configuration(text, "relproxy.yaml")


def test_a_front_on_a_socket_may_use_a_header_without_networks() -> None:
    listener = {"name": "public", "bind": "unix:/s", "fronted": True}
    fronts = {"header": "x-forwarded-for"}
    whole = LEAST | {"listeners": [listener], "fronts": fronts}
    assert parse_configuration(yaml.safe_dump(whole), "a").fronts.header == "x-forwarded-for"
    with pytest.raises(ConfigurationError, match=r"fronts\.networks or a fronted listener only"):
        parse_configuration(yaml.safe_dump(LEAST | {"fronts": fronts}), "a")
