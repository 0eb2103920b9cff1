"""Files of certificates and keys, as people get them wrong."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from relproxy.certificate_files import (
    UnusableFileError,
    certificates_in,
    present,
    trust,
    warnings_about_certificates,
    warnings_about_key,
)
from tests.authority import Authority

NOW = datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def broken(text: str) -> str:
    """Return a certificate with letters in it that say nothing."""
    head, _, rest = text.partition("\n")
    return f"{head}\nAAAA{rest}"


WRONG: dict[str, tuple[Callable[[str], str | bytes | None], str]] = {
    "missing": (lambda _: None, "can't be read: No such file or directory"),
    "empty": (lambda _: "", "holds no certificate in PEM"),
    "words": (lambda _: "certificate\n", "holds no certificate in PEM"),
    "binary": (lambda _: b"\x30\x82\xff\x00", "holds no certificate in PEM"),
    "cut off": (lambda pem: pem[:-30], "holds no certificate in PEM"),
    "of another kind": (
        lambda pem: pem.replace("CERTIFICATE", "PRIVATE KEY"),
        "holds no certificate in PEM",
    ),
    "damaged": (broken, "holds a certificate that can't be read"),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG.values(), ids=WRONG)
def test_a_file_that_holds_no_certificate_is_said_to(
    authority: Authority,
    context: ssl.SSLContext,
    change: Callable[[str], str | bytes | None],
    sentence: str,
) -> None:
    changed = change(authority.ca_file.read_text())
    if changed is None:
        authority.ca_file.unlink()
    else:
        authority.ca_file.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    with pytest.raises(UnusableFileError) as failure:
        trust(context, authority.ca_file)
    assert str(failure.value) == sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_said_to(authority: Authority) -> None:
    authority.ca_file.chmod(0)
    with pytest.raises(UnusableFileError, match="can't be read: Permission denied"):
        certificates_in(authority.ca_file)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError, match="can't be read: Is a directory"):
        certificates_in(tmp_path)


def test_words_around_certificates_say_nothing(
    authority: Authority, context: ssl.SSLContext
) -> None:
    pem = authority.ca_file.read_text()
    authority.ca_file.write_text(
        f"# unsere Zertifizierungsstelle, für alle\n{pem}\n# noch eine\n{pem}"
    )
    trust(context, authority.ca_file)
    assert len(certificates_in(authority.ca_file)) == 2
    assert context.cert_store_stats()["x509_ca"] == 1


def test_a_certificate_and_its_key_are_presented(
    authority: Authority, context: ssl.SSLContext
) -> None:
    present(context, *authority.files())


def encrypted(key: Path) -> None:
    loaded = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )


def anothers(key: Path) -> None:
    _, other = Authority(key.parent / "another").files()
    key.write_bytes(other.read_bytes())


KEYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "can't be read: No such file or directory"),
    "empty": (lambda key: key.write_text(""), "holds no private key in PEM"),
    "encrypted": (encrypted, "is encrypted, and there is nobody to ask for its passphrase"),
    "of another certificate": (anothers, "is not the key of the certificate"),
    "damaged": (
        lambda key: key.write_text(broken(key.read_text())),
        "can't be used with the certificate: ",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), KEYS.values(), ids=KEYS)
def test_a_key_that_can_not_be_used_is_said_to(
    authority: Authority,
    context: ssl.SSLContext,
    change: Callable[[Path], object],
    sentence: str,
) -> None:
    certificate, key = authority.files()
    change(key)
    with pytest.raises(UnusableFileError) as failure:
        present(context, certificate, key)
    assert str(failure.value).startswith(sentence)


def test_an_expired_certificate_is_a_warning(authority: Authority) -> None:
    ends = NOW - timedelta(days=1)
    certificate, _ = authority.files(ends=ends)
    assert list(warnings_about_certificates(certificate)) == [f"has expired on {ends:%Y-%m-%d}"]


@pytest.mark.parametrize(
    "ends", [datetime(2049, 12, 31, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)]
)
def test_a_certificate_that_lasts_is_none_however_its_end_is_written(
    authority: Authority, ends: datetime
) -> None:
    """RFC 5280: two digits of the year up to 2049, four from then on."""
    certificate, _ = authority.files(ends=ends)
    assert list(warnings_about_certificates(certificate)) == []


def test_a_key_that_everyone_can_read_is_a_warning(authority: Authority) -> None:
    _, key = authority.files()
    assert list(warnings_about_key(key)) == []
    key.chmod(0o640)
    assert list(warnings_about_key(key)) == []
    key.chmod(0o644)
    assert list(warnings_about_key(key)) == ["can be read by everyone on this host: chmod o= it"]
