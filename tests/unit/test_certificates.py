from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from relproxy.certificates import (
    Proof,
    certificate_warnings,
    from_text,
    read_proofs,
    to_text,
)
from relproxy.config import Configuration
from relproxy.errors import ConfigurationError
from relproxy.tls_contexts import listener_context
from tests.authority import Authority
from tests.unit.test_config import LEAST

PUBLIC = "listeners[0].tls"
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


def configured(tls: dict[str, Any], **settings: Any) -> Configuration:
    listener = {"name": "public", "bind": "127.0.0.1:9292", "tls": tls}
    return Configuration.model_validate(LEAST | {"listeners": [listener]} | settings)


def problems(configuration: Configuration) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        read_proofs(configuration)
    return refused.value.problems


def test_files_are_read_and_survive_being_handed_on(authority: Authority) -> None:
    tls = authority.server()
    configuration = configured(tls, admin={"tls": authority.server("admin")})
    proofs = read_proofs(configuration)

    assert from_text(to_text(proofs)) == proofs
    assert set(proofs) == {PUBLIC, "admin.tls"}
    assert proofs[PUBLIC].certificate == Path(tls["certificate_file"]).read_text()
    assert [*certificate_warnings(proofs)] == []
    Path(tls["key_file"]).unlink()
    assert configuration.listeners[0].tls is not None
    assert listener_context(proofs[PUBLIC], configuration.listeners[0].tls).cert_store_stats()


def test_a_key_is_shown_nowhere(authority: Authority) -> None:
    proof = read_proofs(configured(authority.server()))[PUBLIC]
    assert "PRIVATE" not in repr(proof)


def encrypted() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x"))


def encrypted_of_old() -> bytes:
    return b"""-----BEGIN RSA PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,00000000000000000000000000000000

AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
-----END RSA PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        pytest.param("certificate_file", None, "can't be read: No such file", id="no file"),
        pytest.param("certificate_file", b"", "holds no certificate in PEM", id="empty"),
        pytest.param("certificate_file", b"\xff\xfe", "holds no certificate in PEM", id="bytes"),
        pytest.param(
            "certificate_file", b"a" * (2**24 + 1), "is larger than 16 MiB", id="far too much"
        ),
        pytest.param(
            "certificate_file",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds a certificate that can't be read",
            id="broken",
        ),
        pytest.param("key_file", None, "can't be read: No such file", id="no key"),
        pytest.param("key_file", b"secret", "holds no private key in PEM", id="no PEM"),
        pytest.param("key_file", encrypted(), "is encrypted", id="encrypted"),
        pytest.param("key_file", encrypted_of_old(), "is encrypted", id="encrypted, as of old"),
        pytest.param("client_ca_file", None, "can't be read: No such file", id="no authority"),
        pytest.param(
            "client_ca_file", b"x", "holds no certificate in PEM", id="no authority in it"
        ),
    ],
)
def test_a_file_that_will_not_do_is_a_sentence_with_its_setting(
    authority: Authority, name: str, content: bytes | None, why: str
) -> None:
    tls = authority.asking("required")
    file = Path(tls[name])
    file.unlink()
    if content is not None:
        file.write_bytes(content)

    (problem,) = problems(configured(tls))

    assert problem.startswith(f"listeners[0].tls.{name}: {file} {why}")
    assert problem.endswith(".")
    assert "secret" not in problem


def test_a_directory_is_no_file(authority: Authority, tmp_path: Path) -> None:
    (problem,) = problems(configured(authority.server() | {"key_file": str(tmp_path)}))
    assert problem == f"listeners[0].tls.key_file: {tmp_path} can't be read: Is a directory."


def test_every_problem_of_every_listener_is_told_at_once(
    authority: Authority, tmp_path: Path
) -> None:
    missing = {"certificate_file": str(tmp_path / "a"), "key_file": str(tmp_path / "b")}
    configuration = configured(missing, admin={"tls": authority.server() | missing})
    assert [problem.partition(":")[0] for problem in problems(configuration)] == [
        "listeners[0].tls.certificate_file",
        "listeners[0].tls.key_file",
        "admin.tls.certificate_file",
        "admin.tls.key_file",
    ]


def test_a_key_of_another_certificate_is_a_sentence(authority: Authority) -> None:
    tls = authority.server() | {"key_file": authority.server("other")["key_file"]}
    (problem,) = problems(configured(tls))
    assert problem.endswith("isn't the key of the certificate in certificate_file.")


def test_a_chain_in_the_wrong_order_is_a_sentence(authority: Authority) -> None:
    tls = authority.server()
    certificate = Path(tls["certificate_file"])
    certificate.write_bytes(authority.ca.cert_pem.bytes() + certificate.read_bytes())
    (problem,) = problems(configured(tls))
    assert problem.endswith("a later certificate of certificate_file: its own has to come first.")


def test_what_openssl_refuses_is_a_sentence(authority: Authority) -> None:
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    tls = authority.server()
    Path(tls["certificate_file"]).write_bytes(made.public_bytes(PEM))
    Path(tls["key_file"]).write_bytes(key.private_bytes(PEM, PKCS8, serialization.NoEncryption()))
    (problem,) = problems(configured(tls))
    assert problem == "listeners[0].tls: OpenSSL refuses it: EE_KEY_TOO_SMALL."


def test_an_end_is_that_of_the_first_to_expire_and_one_in_the_past_a_warning(
    authority: Authority,
) -> None:
    tls = authority.server()
    past = datetime(2020, 2, 1, tzinfo=UTC)
    old = authority.ca.issue_cert("a", not_before=datetime(2020, 1, 1), not_after=past)  # noqa: DTZ001
    file = Path(tls["certificate_file"])
    file.write_bytes(file.read_bytes() + old.cert_chain_pems[0].bytes())

    proof = read_proofs(configured(tls))[PUBLIC]

    assert proof.expires_at == past.timestamp()
    (warning,) = proof.warnings
    assert warning == (
        f"listeners[0].tls.certificate_file: {file} has expired on 2020-02-01 (certificate 2 of 2)."
    )


def test_a_certificate_of_tomorrow_is_a_warning(authority: Authority) -> None:
    tls = authority.server()
    later = authority.ca.issue_cert("a", not_before=datetime(2120, 1, 1))  # noqa: DTZ001
    Path(tls["certificate_file"]).write_bytes(later.cert_chain_pems[0].bytes())
    Path(tls["key_file"]).write_bytes(later.private_key_pem.bytes())
    (warning,) = read_proofs(configured(tls))[PUBLIC].warnings
    assert warning.endswith(" isn't valid before 2120-01-01.")


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_key_that_everybody_can_read_is_a_warning(
    authority: Authority, mode: int, *, warns: bool
) -> None:
    tls = authority.server()
    Path(tls["key_file"]).chmod(mode)
    warned = read_proofs(configured(tls))[PUBLIC].warnings
    assert [
        "can be read or written by everyone on this host: chmod o= it." in each for each in warned
    ] == [True] * warns


def test_nothing_of_the_system_vouches_for_clients(authority: Authority) -> None:
    configuration = configured(authority.asking("required"))
    tls = configuration.listeners[0].tls
    assert tls is not None
    context = listener_context(read_proofs(configuration)[PUBLIC], tls)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.cert_store_stats()["x509_ca"] == 1


def test_no_descriptor_is_left_over(authority: Authority) -> None:
    configuration = configured(authority.server())
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(3):
        assert isinstance(read_proofs(configuration)[PUBLIC], Proof)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_two_authorities_vouch_side_by_side(authority: Authority) -> None:
    """So that one can follow the other without an hour without either."""
    tls = authority.asking("required")
    file = Path(tls["client_ca_file"])
    file.write_bytes(file.read_bytes() + b"# The next one:\n" + trustme.CA().cert_pem.bytes())
    configuration = configured(tls)
    assert configuration.listeners[0].tls is not None
    context = listener_context(read_proofs(configuration)[PUBLIC], configuration.listeners[0].tls)
    assert context.cert_store_stats()["x509_ca"] == 2
