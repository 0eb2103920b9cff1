"""What files of certificates and keys hold, and what is wrong with them, in a sentence each.

The library that speaks TLS says of a bad file what its parser has tripped over. So each file is
looked at first, for what people get wrong; only then the library has its say.
"""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

_CERTIFICATE = re.compile(
    r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.+?-----END [A-Z0-9 ]*CERTIFICATE-----",
    re.DOTALL,
)
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_MAX_BYTES = 16 * 1024**2
_REASONS = {
    "KEY_VALUES_MISMATCH": "is not the key of the certificate",
    "KEY_TYPE_MISMATCH": "is not the key of the certificate",
}


class UnusableFileError(ValueError):
    """A file isn't what it should be; says what it does instead, to be put behind its name."""


def certificates_in(file: Path) -> tuple[str, ...]:
    """Return every certificate of a PEM file, as PEM. Raises `UnusableFileError` without any."""
    found = tuple(match[0] for match in _CERTIFICATE.finditer(_text(file)))
    if not found:
        raise UnusableFileError("holds no certificate in PEM")
    for certificate in found:
        _read(certificate)
    return found


def trust(context: ssl.SSLContext, file: Path) -> None:
    """Have a context verify by the CAs of a file. Raises `UnusableFileError`."""
    certificates = certificates_in(file)
    try:
        context.load_verify_locations(cadata="\n".join(certificates))
    except (ssl.SSLError, ValueError) as failure:
        raise UnusableFileError("holds a certificate that can't be read") from failure


def present(context: ssl.SSLContext, certificate_file: Path, key_file: Path) -> None:
    """Have a context present a certificate. Raises `UnusableFileError`, about the key.

    `certificates_in` has been asked about the other file.
    """
    if _KEY.search(_text(key_file)) is None:
        raise UnusableFileError("holds no private key in PEM")
    asked = []

    def passphrase() -> bytes:
        # Without this function OpenSSL would ask at the terminal.
        asked.append(key_file)
        return b""

    try:
        context.load_cert_chain(certificate_file, key_file, passphrase)
    except (OSError, ValueError) as failure:
        if asked:
            raise UnusableFileError(
                "is encrypted, and there is nobody to ask for its passphrase"
            ) from failure
        reason = getattr(failure, "reason", None) or "it can't be read"
        raise UnusableFileError(
            _REASONS.get(reason, f"can't be used with the certificate: {reason}")
        ) from failure


def warnings_about_certificates(file: Path) -> Iterator[str]:
    """Yield what is wrong with the first certificate of a file; raises `UnusableFileError`."""
    certificate = _read(certificates_in(file)[0])
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.now(UTC)
    if ends <= now:
        yield f"has expired on {ends:%Y-%m-%d}"
    elif begins > now:
        yield f"isn't valid before {begins:%Y-%m-%d}"


def warnings_about_key(file: Path) -> Iterator[str]:
    """Yield what is wrong with how a key is kept."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        yield "can be read by everyone on this host: chmod o= it"


def _text(file: Path) -> str:
    """Return what a file holds. Raises `UnusableFileError`."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES)
    except OSError as failure:
        raise UnusableFileError(f"can't be read: {failure.strerror}") from failure
    # In PEM everything that counts is ASCII; comments may be anything.
    return content.decode("latin-1")


def _read(pem: str) -> x509.Certificate:
    """Return what a certificate says. Raises `UnusableFileError`."""
    try:
        return x509.load_pem_x509_certificate(pem.encode("latin-1"))
    except ValueError as failure:
        raise UnusableFileError("holds a certificate that can't be read") from failure
