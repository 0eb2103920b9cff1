"""Files about registries and Keystone, as people get them wrong: said as those of listeners."""

from __future__ import annotations

import os
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

from relproxy.certificates import Proof, read_proof
from relproxy.config_tls import ServerTls
from relproxy.config_upstream_tls import UpstreamTls
from relproxy.errors import ConfigurationError
from tests.authority import Authority, tls_with

NOW = datetime.now(UTC)


def read(**files: Path) -> Proof:
    return read_proof(UpstreamTls.model_validate(files), "tls")


def own(files: tuple[Path, Path]) -> dict[str, Path]:
    return dict(zip(("certificate_file", "key_file"), files, strict=True))


def problem_of(**files: Path) -> str:
    with pytest.raises(ConfigurationError) as failure:
        read(**files)
    (problem,) = failure.value.problems
    return problem


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
    "cut off in the second": (
        lambda pem: pem + pem[:-30],
        "holds a certificate that can't be read",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG.values(), ids=WRONG)
def test_a_file_that_holds_no_certificate_is_said_to(
    authority: Authority,
    change: Callable[[str], str | bytes | None],
    sentence: str,
) -> None:
    changed = change(authority.ca_file.read_text())
    if changed is None:
        authority.ca_file.unlink()
    else:
        authority.ca_file.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    file, listeners = authority.ca_file, own(authority.files())
    assert problem_of(ca_file=file) == f"tls.ca_file: {file} {sentence}."
    asking = {"client_ca_file": file, "client_certificates": "required"}
    with pytest.raises(ConfigurationError) as failure:
        read_proof(ServerTls.model_validate(listeners | asking), "tls")
    assert failure.value.problems == (f"tls.client_ca_file: {file} {sentence}.",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_said_to(authority: Authority) -> None:
    authority.ca_file.chmod(0)
    problem = problem_of(ca_file=authority.ca_file)
    assert problem.endswith("can't be read: Permission denied.")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert problem_of(ca_file=tmp_path).endswith("can't be read: Is a directory.")


def test_words_around_certificates_say_nothing(authority: Authority) -> None:
    pem = authority.ca_file.read_text()
    authority.ca_file.write_text(
        f"# unsere Zertifizierungsstelle, für alle\n{pem}\n# noch eine\n{pem}"
    )
    assert read(ca_file=authority.ca_file).authorities == pem * 2
    context = tls_with(ca_file=authority.ca_file).context
    assert context.cert_store_stats()["x509_ca"] == 1


def test_a_certificate_and_its_key_are_read_whatever_else_stands_beside_them(
    authority: Authority,
) -> None:
    certificate, key = authority.files()
    both = f"# für alle\n{certificate.read_text()}{key.read_text()}"
    proof = Proof(
        certificate.read_text(), key.read_text(), "", read(**own((certificate, key))).expires_at
    )
    assert read(**own((certificate, key))) == proof
    key.write_text(both)
    assert read(**own((key, key))) == proof


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
    "of another certificate": (anothers, "isn't the key of the certificate in certificate_file"),
    "damaged": (
        lambda key: key.write_text(broken(key.read_text())),
        "holds a private key that can't be read",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), KEYS.values(), ids=KEYS)
def test_a_key_that_can_not_be_used_is_said_to(
    authority: Authority,
    change: Callable[[Path], object],
    sentence: str,
) -> None:
    certificate, key = authority.files()
    change(key)
    assert problem_of(**own((certificate, key))) == f"tls.key_file: {key} {sentence}."


def test_an_expired_certificate_is_a_warning(authority: Authority) -> None:
    ends = NOW - timedelta(days=1)
    certificate, key = authority.files(ends=ends)
    assert read(**own((certificate, key))).warnings == (
        f"tls.certificate_file: {certificate} has expired on {ends:%Y-%m-%d}.",
    )


@pytest.mark.parametrize(
    "ends", [datetime(2049, 12, 31, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)]
)
def test_a_certificate_that_lasts_is_none_however_its_end_is_written(
    authority: Authority, ends: datetime
) -> None:
    """RFC 5280: two digits of the year up to 2049, four from then on."""
    assert read(**own(authority.files(ends=ends))).warnings == ()


def test_a_key_that_everyone_can_read_is_a_warning(authority: Authority) -> None:
    certificate, key = authority.files()
    for mode, warned in {0o600: False, 0o640: False, 0o644: True, 0o602: True}.items():
        key.chmod(mode)
        sentence = (
            f"tls.key_file: {key} can be read or written by everyone on this host: chmod o= it."
        )
        assert read(**own((certificate, key))).warnings == (sentence,) * warned
