"""What listeners prove themselves with: files that are read once, checked whole, and handed on.

They are read where the sockets are bound. All workers are handed the same texts, so that none of
them, however late it starts, shows another certificate than its siblings, or can't start because
somebody is just writing a file.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from relproxy.config import Configuration
from relproxy.config_tls import ServerTls
from relproxy.errors import ConfigurationError

# Names of listeners have no brackets.
ADMIN = "(admin)"

_MAX_BYTES = 1024**2
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_OTHERS_READ = 0o004


@dataclass(frozen=True, slots=True)
class Proof:
    """What the files of one `tls` section hold, in PEM; `expires_at` is in seconds since 1970."""

    certificate: str
    key: str = field(repr=False)
    client_ca: str
    expires_at: float
    warnings: tuple[str, ...] = ()


def read_proofs(configuration: Configuration) -> Mapping[str, Proof]:
    """Read the files of every listener with TLS, by its name; `ADMIN` is the admin listener's.

    Raises `ConfigurationError` with one line for each problem.
    """
    proofs: dict[str, Proof] = {}
    problems: list[str] = []
    for name, path, settings in _sections(configuration):
        try:
            proofs[name] = _read(settings, path)
        except ConfigurationError as failure:
            problems += failure.problems
    if problems:
        raise ConfigurationError(tuple(problems))
    return proofs


def certificate_warnings(proofs: Mapping[str, Proof]) -> Iterator[str]:
    """Yield a sentence for each thing about the files that is allowed, and probably not meant."""
    for proof in proofs.values():
        yield from proof.warnings


def to_text(proofs: Mapping[str, Proof]) -> str:
    """Return what `from_text` reads."""
    return json.dumps({name: asdict(proof) for name, proof in proofs.items()})


def from_text(text: str) -> Mapping[str, Proof]:
    """Return the proofs that a process was handed."""
    return {
        name: Proof(**(proof | {"warnings": tuple(proof["warnings"])}))
        for name, proof in json.loads(text).items()
    }


def context_of(proof: Proof, settings: ServerTls) -> ssl.SSLContext:
    """Return what a listener's handshakes are made with; raises `ssl.SSLError`.

    Only the authorities of the section count for clients, none of the system's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.set_alpn_protocols(["http/1.1"])
    # Who the client is was settled by the handshake that began the connection.
    context.options |= ssl.OP_NO_RENEGOTIATION
    with _file_in_memory(proof.certificate + "\n" + proof.key) as path:
        context.load_cert_chain(path, password=_never_asked)
    if settings.asks_clients:
        is_required = settings.client_certificates == "required"
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=proof.client_ca)
        # Those in the file vouch themselves: an intermediate one, without all that its root signed.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # A resumed session isn't verified again: its certificate may have expired since.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _sections(configuration: Configuration) -> Iterator[tuple[str, str, ServerTls]]:
    for index, listener in enumerate(configuration.listeners):
        if listener.tls is not None:
            yield listener.name, f"listeners[{index}].tls", listener.tls
    if configuration.admin.tls is not None:
        yield ADMIN, "admin.tls", configuration.admin.tls


def _read(settings: ServerTls, path: str) -> Proof:
    problems: list[str] = []
    texts: dict[str, str] = {}
    for name in ("certificate_file", "key_file", "client_ca_file"):
        file: Path | None = getattr(settings, name)
        try:
            texts[name] = _text(file) if file is not None else ""
            _PARSERS[name](texts[name])
        except _UnusableError as failure:
            problems.append(f"{path}.{name}: {file}: {failure}.")
    if problems:
        raise ConfigurationError(tuple(problems))
    chain = _certificates(texts["certificate_file"])
    if (why := _misfit(chain, texts["key_file"])) is not None:
        raise ConfigurationError((f"{path}.key_file: {settings.key_file}: {why}.",))
    proof = Proof(
        texts["certificate_file"],
        texts["key_file"],
        texts["client_ca_file"],
        min(each.not_valid_after_utc.timestamp() for each in chain),
        tuple(_warnings(settings, path, texts)),
    )
    try:
        context_of(proof, settings)
    except ssl.SSLError as failure:
        raise ConfigurationError((f"{path}: OpenSSL refuses it: {reason_of(failure)}.",)) from None
    return proof


def reason_of(failure: ssl.SSLError) -> str:
    """Return OpenSSL's own word for what went wrong: one of a fixed set, nothing of the peer's."""
    why = getattr(failure, "verify_message", "")
    reason = failure.reason or "unknown"
    return f"{reason} ({why})" if why else reason


class _UnusableError(Exception):
    """A file can't be used; says why, and nothing of what stands there."""


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except OSError as failure:
        raise _UnusableError(f"can't be read: {failure.strerror}") from None
    if len(content) > _MAX_BYTES or not content.isascii():
        raise _UnusableError("is not in PEM")
    return content.decode("ascii")


def _certificates(text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise _UnusableError("holds no certificate in PEM, or a broken one") from None


def _no_encrypted_key(text: str) -> None:
    try:
        load_pem_private_key(text.encode(), None)
    except TypeError:
        raise _UnusableError("is encrypted: relproxy asks nobody for a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _UnusableError("holds no private key in PEM, or a broken one") from None


def _authorities(text: str) -> None:
    if text:
        _certificates(text)


_PARSERS = {
    "certificate_file": _certificates,
    "key_file": _no_encrypted_key,
    "client_ca_file": _authorities,
}


def _misfit(chain: list[x509.Certificate], key: str) -> str | None:
    """Say why a key isn't the one of the first certificate, if it isn't."""
    as_told = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    own = load_pem_private_key(key.encode(), None).public_key().public_bytes(*as_told)
    fits = [each.public_key().public_bytes(*as_told) == own for each in chain]
    if fits[0]:
        return None
    if any(fits):
        return "is the key of a later certificate of certificate_file: its own has to come first"
    return "isn't the key of the certificate in certificate_file"


def _warnings(settings: ServerTls, path: str, texts: Mapping[str, str]) -> Iterator[str]:
    now = datetime.fromtimestamp(time.time(), UTC)
    for name in ("certificate_file", "client_ca_file"):
        for each in _certificates(texts[name]) if texts[name] else ():
            if each.not_valid_after_utc < now:
                yield f"{path}.{name}: a certificate has expired, {each.not_valid_after_utc}."
            elif each.not_valid_before_utc > now:
                yield f"{path}.{name}: a certificate isn't valid yet, {each.not_valid_before_utc}."
    if settings.key_file.stat().st_mode & _OTHERS_READ:
        yield f"{path}.key_file: {settings.key_file} can be read by everybody on this host."


@contextmanager
def _file_in_memory(text: str) -> Iterator[str]:
    """Lend the path of a file without a name: OpenSSL reads a key from files only."""
    with os.fdopen(os.memfd_create("relproxy.pem"), "wb") as file:
        file.write(text.encode())
        file.flush()
        yield f"/dev/fd/{file.fileno()}"


def _never_asked() -> str:
    # Without it OpenSSL would ask at the terminal.
    return ""
