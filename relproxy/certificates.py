"""What files of certificates and keys hold, and what is wrong with them, in a sentence each.

They are read where the sockets are bound, once for all `tls` sections: listeners, registries,
Keystone. All workers are handed the same texts, so that none of them, however late it starts, shows
or believes another certificate than its siblings, or can't start because somebody is just writing a
file.

The library that speaks TLS says of a bad file what its parser has tripped over. So each file is
looked at first, for what people get wrong; only then the library has its say.
"""

from __future__ import annotations

import json
import math
import os
import re
import ssl
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from relproxy.config import Configuration
from relproxy.config_tls import ServerTls
from relproxy.config_upstream_tls import UpstreamTls
from relproxy.errors import ConfigurationError
from relproxy.tls_failures import reason_of

# No bundle of CAs is near it.
_MAX_BYTES = 16 * 1024**2
_CERTIFICATE = re.compile(
    r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.+?-----END [A-Z0-9 ]*CERTIFICATE-----",
    re.DOTALL,
)
_BEGUN = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.+?-----END [A-Z0-9 ]*PRIVATE KEY-----", re.DOTALL
)
_CERTIFICATES = ("certificate_file", "client_ca_file", "ca_file")

_Section = tuple[str, ServerTls | UpstreamTls]


@dataclass(frozen=True, slots=True)
class Proof:
    """What the files of one `tls` section hold, in PEM; empty where it names none.

    `authorities` are those that the other side is verified by. `expires_at` is in seconds since
    1970; infinite without a certificate.
    """

    certificate: str = ""
    key: str = field(default="", repr=False)
    authorities: str = ""
    expires_at: float = math.inf
    warnings: tuple[str, ...] = ()


def read_proofs(configuration: Configuration) -> Mapping[str, Proof]:
    """Read the files of every `tls` section that counts, by the path of the section.

    Raises `ConfigurationError` with one line for each problem.
    """
    return _read_all([*_listeners(configuration), *upstream_sections(configuration)])


def read_upstream_proofs(configuration: Configuration) -> Mapping[str, Proof]:
    """Read the files about registries and Keystone alone; see `read_proofs`."""
    return _read_all(upstream_sections(configuration))


def read_proof(settings: ServerTls | UpstreamTls, path: str) -> Proof:
    """Read the files that one section names; `path` is the section's.

    Raises `ConfigurationError` with one line for each problem.
    """
    held: dict[str, _Held] = {}
    problems: list[str] = []
    for name in (*_CERTIFICATES, "key_file"):
        file: Path | None = getattr(settings, name, None)
        try:
            if file is not None:
                held[name] = _held(f"{path}.{name}: {file}", file, is_key=name == "key_file")
        except _UnusableError as failure:
            problems.append(f"{path}.{name}: {file} {failure}.")
    if not problems and "key_file" in held and (why := _misfit(held)) is not None:
        problems.append(f"{held['key_file'].where} {why}.")
    if problems:
        raise ConfigurationError(tuple(problems))
    return _accepted(held, path)


def upstream_sections(configuration: Configuration) -> Iterator[tuple[str, UpstreamTls]]:
    """Yield the settings of TLS with registries and Keystone that count, each with its path."""
    for index, registry in enumerate(configuration.registries):
        if registry.has_tls:
            yield f"registries[{index}].tls", registry.tls
        if registry.credentials is not None and registry.credentials.has_tls:
            yield f"registries[{index}].credentials.tls", registry.credentials.tls
    keystone = configuration.identity.keystone
    if keystone is not None and keystone.credentials.has_tls:
        yield "identity.keystone.credentials.tls", keystone.credentials.tls


def certificate_warnings(proofs: Mapping[str, Proof]) -> Iterator[str]:
    """Yield a sentence for each thing about the files that is allowed, and probably not meant."""
    for proof in proofs.values():
        yield from proof.warnings


def to_text(proofs: Mapping[str, Proof]) -> str:
    """Return what `from_text` reads."""
    return json.dumps({path: asdict(proof) for path, proof in proofs.items()})


def from_text(text: str) -> Mapping[str, Proof]:
    """Return the proofs that a process was handed."""
    return {
        path: Proof(**(proof | {"warnings": tuple(proof["warnings"])}))
        for path, proof in json.loads(text).items()
    }


def show(context: ssl.SSLContext, proof: Proof) -> None:
    """Have a context show the certificate, if there is one; raises `ssl.SSLError`."""
    if proof.certificate:
        with _file_in_memory(proof.certificate + proof.key) as path:
            context.load_cert_chain(path, password=_never_asked)


def trust(context: ssl.SSLContext, proof: Proof) -> None:
    """Have a context verify by the authorities, if there are any; raises `ssl.SSLError`."""
    if proof.authorities:
        context.load_verify_locations(cadata=proof.authorities)


def _listeners(configuration: Configuration) -> Iterator[tuple[str, ServerTls]]:
    for index, listener in enumerate(configuration.listeners):
        if listener.tls is not None:
            yield f"listeners[{index}].tls", listener.tls
    if configuration.admin.tls is not None:
        yield "admin.tls", configuration.admin.tls


def _read_all(sections: Iterable[_Section]) -> Mapping[str, Proof]:
    proofs: dict[str, Proof] = {}
    problems: list[str] = []
    for path, settings in sections:
        try:
            proofs[path] = read_proof(settings, path)
        except ConfigurationError as failure:
            problems += failure.problems
    if problems:
        raise ConfigurationError(tuple(problems))
    return proofs


class _UnusableError(Exception):
    """A file can't be used; says why, to be put behind its name, and nothing of what it holds."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What one file holds: certificates, or a key; `where` names the setting and the file."""

    where: str
    text: str = field(repr=False)
    is_open: bool
    certificates: Sequence[x509.Certificate] = ()
    key: PrivateKeyTypes | None = None


def _held(where: str, file: Path, *, is_key: bool) -> _Held:
    content, is_open = _content(file)
    found = [match[0] for match in (_KEY if is_key else _CERTIFICATE).finditer(content)]
    if not found:
        raise _UnusableError(f"holds no {'private key' if is_key else 'certificate'} in PEM")
    if is_key:
        return _Held(where, f"{found[0]}\n", is_open, key=_key(found[0]))
    if len(_BEGUN.findall(content)) != len(found):
        raise _UnusableError("holds a certificate that can't be read")
    text = "".join(f"{pem}\n" for pem in found)
    return _Held(where, text, is_open, [_certificate(pem) for pem in found])


def _content(file: Path) -> tuple[str, bool]:
    """Return what a file holds, and whether it is open to everyone on this host."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(_MAX_BYTES + 1)
    except OSError as failure:
        raise _UnusableError(f"can't be read: {failure.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise _UnusableError("is larger than 16 MiB")
    # In PEM everything that counts is ASCII; comments may be anything.
    return content.decode("latin-1"), bool(mode & (stat.S_IROTH | stat.S_IWOTH))


def _certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode("ascii"))
    except ValueError:
        raise _UnusableError("holds a certificate that can't be read") from None


def _key(pem: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem.encode("ascii"), None)
    except TypeError:
        raise _UnusableError(
            "is encrypted, and there is nobody to ask for its passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _UnusableError("holds a private key that can't be read") from None


def _misfit(held: Mapping[str, _Held]) -> str | None:
    """Say why the key isn't the one of the first certificate, if it isn't."""
    key, chain = held["key_file"].key, held["certificate_file"].certificates
    as_told = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    own = key.public_key().public_bytes(*as_told) if key is not None else b""
    fits = [_public(each) == own for each in chain]
    if fits[0]:
        return None
    if any(fits):
        return "is the key of a later certificate of certificate_file: its own has to come first"
    return "isn't the key of the certificate in certificate_file"


def _public(certificate: x509.Certificate) -> bytes | None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _accepted(held: Mapping[str, _Held], path: str) -> Proof:
    """Return what OpenSSL takes. Raises `ConfigurationError`."""
    authorities = held.get("client_ca_file") or held.get("ca_file")
    own, key = held.get("certificate_file"), held.get("key_file")
    chain = own.certificates if own is not None else ()
    proof = Proof(
        own.text if own is not None else "",
        key.text if key is not None else "",
        authorities.text if authorities is not None else "",
        min((each.not_valid_after_utc.timestamp() for each in chain), default=math.inf),
        tuple(warning for each in held.values() for warning in _warnings(each)),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        show(context, proof)
        trust(context, proof)
    except ssl.SSLError as failure:
        raise ConfigurationError((f"{path}: OpenSSL refuses it: {reason_of(failure)}.",)) from None
    return proof


def _warnings(held: _Held) -> Iterator[str]:
    now = datetime.now(UTC)
    many = len(held.certificates)
    for number, each in enumerate(held.certificates, 1):
        which = f" (certificate {number} of {many})" if many > 1 else ""
        if each.not_valid_after_utc < now:
            yield f"{held.where} has expired on {each.not_valid_after_utc:%Y-%m-%d}{which}."
        elif each.not_valid_before_utc > now:
            yield f"{held.where} isn't valid before {each.not_valid_before_utc:%Y-%m-%d}{which}."
    if held.key is not None and held.is_open:
        yield f"{held.where} can be read or written by everyone on this host: chmod o= it."


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
