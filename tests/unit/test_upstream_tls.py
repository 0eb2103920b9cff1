"""Settings of TLS towards registries and Keystone: every problem with its place, and warnings."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from relproxy.__main__ import main
from relproxy.certificates import certificate_warnings, read_proofs
from relproxy.config_file import load_configuration
from relproxy.config_warnings import warnings
from relproxy.errors import ConfigurationError
from relproxy.tls_failures import CAUSES, cause_of, is_refusal
from tests.authority import Authority, tls_with

HTTPS, HTTP = "https://192.0.2.1:9292", "http://192.0.2.2:9292"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relproxy.yaml"


def written(file: Path, *, endpoints: list[str], url: str = "", **tls: Any) -> Path:
    """Write a configuration whose registry has these settings; or its Keystone, at this address."""
    registry: dict[str, Any] = {"name": "main", "tenancy": "relproxy", "endpoints": endpoints}
    whole: dict[str, Any] = {
        "listeners": [{"name": "public", "bind": "127.0.0.1:9292"}],
        "store": {"path": "/var/lib/relproxy/relproxy.db"},
        "registries": [registry],
        "routes": [{"name": "all", "registry": "main"}],
        "trusted_sources": {"roles": ["nova"]},
        "identity": {"trusted_networks": ["192.0.2.0/24"]},
    }
    if url:
        application = {
            "application_credential_id": "x",
            "application_credential_secret_file": "/etc/relproxy/secret",
        }
        credentials = {"auth_url": url, "tls": tls, **application}
        registry["credentials"] = credentials
        whole["identity"] = {"keystone": {"credentials": credentials}}
    elif tls:
        registry["tls"] = tls
    file.write_text(yaml.safe_dump(whole))
    return file


def checked(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return what `relproxy check` ends with, and says, without the file's name."""
    status = main(["check", "--config", str(file)])
    lines = capsys.readouterr().out.splitlines()
    return status, [line.removeprefix(f"{file}:").lstrip() for line in lines]


def test_who_says_nothing_verifies_everything_by_the_systems_cas(
    monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    context = tls_with().context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509_ca"] == 1


def test_a_ca_file_is_instead_of_the_systems_cas(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path / "system").ca_file))
    context = tls_with(ca_file=authority.ca_file).context
    own = ssl.PEM_cert_to_DER_cert(authority.ca_file.read_text())
    assert context.get_ca_certs(binary_form=True) == [own]


@pytest.mark.parametrize("spelled", ["1.3", 1.3], ids=["a text", "a number, as YAML reads it"])
def test_the_oldest_version_may_be_raised(spelled: object) -> None:
    assert tls_with(minimum_version=spelled).context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_an_address_without_tls_is_asked_as_ever() -> None:
    tls = tls_with(server_name="glance.example")
    assert tls.options(HTTP) == tls.options("unix:/run/glance.sock") == {}
    assert tls.options(HTTPS)["server_hostname"] == "glance.example"


@pytest.mark.parametrize("value", ["yes", 1, "true", None])
def test_verification_is_not_turned_off_by_accident(file: Path, value: object) -> None:
    written(file, endpoints=[HTTPS], insecure_accept_any_certificate=value)
    with pytest.raises(ConfigurationError, match="insecure_accept_any_certificate"):
        load_configuration(file)


@pytest.mark.parametrize("name", ["verify", "insecure", "verify_ssl"])
def test_what_is_no_setting_turns_nothing_off(file: Path, name: str) -> None:
    file.write_text(written(file, endpoints=[HTTPS], x=0).read_text().replace("x:", f"{name}:"))
    with pytest.raises(ConfigurationError, match=rf"registries\[0\].tls.{name}: is not a setting"):
        load_configuration(file)


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        ({"certificate_file": "/c.pem"}, "should have certificate_file and key_file, or neither"),
        ({"key_file": "/k.pem"}, "should have certificate_file and key_file, or neither"),
        (
            {"ca_file": "/ca.pem", "insecure_accept_any_certificate": True},
            "should have ca_file or insecure_accept_any_certificate, and not both",
        ),
        ({"minimum_version": "1.1"}, "should be '1.2' or '1.3'"),
        ({"server_name": "https://glance"}, "server_name"),
    ],
    ids=["no key", "no certificate", "both", "an old version", "an address for a name"],
)
def test_settings_without_a_meaning_are_a_problem(
    file: Path, tls: dict[str, Any], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, (line,) = checked(written(file, endpoints=[HTTPS], **tls), capsys)
    assert status == 1
    assert "registries[0].tls" in line
    assert problem in line


@pytest.mark.parametrize("url", [HTTP, "unix:/run/glance.sock"])
def test_tls_without_an_https_endpoint_is_a_problem(
    file: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, (line,) = checked(written(file, endpoints=[url], minimum_version="1.3"), capsys)
    assert status == 1
    assert line.endswith("registries[0].tls: has a meaning with an https address only.")


def test_tls_with_a_keystone_that_is_asked_without_is_a_problem(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "http://192.0.2.9:5000/v3"
    _, lines = checked(written(file, endpoints=[HTTP], url=url, server_name="k"), capsys)
    assert {line.partition(": ")[2] for line in lines} == {
        "identity.keystone.credentials.tls: has a meaning with an https address only.",
        "registries[0].credentials.tls: has a meaning with an https address only.",
    }


def test_every_file_that_can_not_be_used_is_a_problem_with_its_place(
    file: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "https://192.0.2.9:5000/v3"
    certificate, key = authority.files()
    key.write_text("")
    tls = {
        "ca_file": "/nowhere/ca.pem",
        "certificate_file": str(certificate),
        "key_file": str(key),
    }
    status, lines = checked(written(file, endpoints=[HTTP], url=url, **tls), capsys)
    assert status == 1
    assert lines == [
        f"{place}.{problem}"
        for place in ("registries[0].credentials.tls", "identity.keystone.credentials.tls")
        for problem in (
            "ca_file: /nowhere/ca.pem can't be read: No such file or directory.",
            f"key_file: {key} holds no private key in PEM.",
        )
    ]


def told(file: Path) -> Iterator[str]:
    configuration = load_configuration(file)
    yield from warnings(configuration)
    yield from certificate_warnings(read_proofs(configuration))


def test_what_works_and_is_probably_not_meant_is_a_warning(
    file: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = datetime.now(UTC) - timedelta(days=1)
    certificate, key = authority.files(ends=ended)
    key.chmod(0o644)
    own = {"certificate_file": str(certificate), "key_file": str(key)}
    written(file, endpoints=[HTTP, HTTPS], insecure_accept_any_certificate=True, **own)
    plain, insecure, expired, readable = told(file)
    assert plain.startswith(f"registries[0].endpoints: {HTTP} is http beside https")
    assert "registries[0].tls.insecure_accept_any_certificate is true: NOTHING IS" in insecure
    assert expired == (
        f"registries[0].tls.certificate_file: {certificate} has expired on {ended:%Y-%m-%d}."
    )
    assert readable.startswith(
        f"registries[0].tls.key_file: {key} can be read or written by everyone"
    )
    status, lines = checked(file, capsys)
    assert status == 0
    assert len([line for line in lines if line.startswith("warning: ")]) == 4


def test_https_alone_needs_no_warning(file: Path, authority: Authority) -> None:
    certificate, key = authority.files()
    own = {"certificate_file": str(certificate), "key_file": str(key)}
    assert list(told(written(file, endpoints=[HTTPS], ca_file=str(authority.ca_file), **own))) == []


# -- why TLS has failed


def with_reason(reason: str) -> ssl.SSLError:
    failure = ssl.SSLError(1, reason)
    failure.reason = reason
    return failure


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "own_certificate"),
        ("TLSV1_ALERT_UNKNOWN_CA", "own_certificate"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "own_certificate"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "own_certificate"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "version"),
        ("UNSUPPORTED_PROTOCOL", "version"),
        ("WRONG_VERSION_NUMBER", "not_tls"),
        ("HTTP_REQUEST", "not_tls"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "other"),
        ("BAD_RECORD_MAC", "other"),
    ],
)
def test_a_failure_has_one_cause(reason: str, cause: str) -> None:
    failure = with_reason(reason)
    assert cause_of(failure) == cause
    assert cause in CAUSES
    # What is no refusal may have been read: who takes it for one would send a create twice.
    assert is_refusal(failure) is (cause == "own_certificate")


@pytest.mark.parametrize("failure", [None, ConnectionResetError(), ValueError("x")])
def test_what_is_no_failure_of_tls_is_no_refusal(failure: BaseException | None) -> None:
    assert cause_of(failure) == "other"
    assert not is_refusal(failure)
