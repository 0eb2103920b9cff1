"""TLS with whom relproxy asks: from settings and files to what a connection is made with."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relproxy.certificate_files import (
    UnusableFileError,
    certificates_in,
    present,
    trust,
    warnings_about_certificates,
    warnings_about_key,
)
from relproxy.config import Configuration
from relproxy.config_upstream_tls import UpstreamTls
from relproxy.errors import ConfigurationError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Another protocol than what is spoken then would be an answer to nothing.
_ALPN = ("http/1.1",)


@dataclass(frozen=True, slots=True)
class Tls:
    """How TLS is spoken with one registry, or one Keystone."""

    context: ssl.SSLContext
    server_name: str | None = None

    def options(self, url: str) -> dict[str, Any]:
        """Return what aiohttp's client wants to know for a request to an address."""
        if not url.startswith("https://"):
            return {}
        return {"ssl": self.context, "server_hostname": self.server_name}


def tls_of(settings: UpstreamTls, path: str) -> Tls:
    """Read the files that settings name; `path` is that of the settings.

    Raises `ConfigurationError` with every problem.
    """
    problems: list[str] = []
    context = _context(settings, path, problems)
    if problems:
        raise ConfigurationError(tuple(problems))
    return Tls(context, settings.server_name)


def check_upstream_tls(configuration: Configuration, name: str) -> None:
    """Raise `ConfigurationError` with every problem with the files that a configuration names."""
    problems: list[str] = []
    for path, settings in configuration.upstream_tls():
        _context(settings, path, problems)
    if problems:
        raise ConfigurationError(tuple(f"{name}: {problem}" for problem in problems))


def warnings_about_tls(configuration: Configuration) -> Iterator[str]:
    """Yield a sentence for each thing about TLS that works, and is probably not meant."""
    for path, settings in configuration.upstream_tls():
        if settings.insecure_accept_any_certificate:
            yield (
                f"{path}.insecure_accept_any_certificate is true: NOTHING IS VERIFIED. Anyone on "
                "the way can pose as the other side, and read and change tokens, records and "
                "images."
            )
        for setting, file in (
            ("ca_file", settings.ca_file),
            ("certificate_file", settings.certificate_file),
        ):
            yield from _told(f"{path}.{setting}", file, warnings_about_certificates)
        yield from _told(f"{path}.key_file", settings.key_file, warnings_about_key)


def _told(path: str, file: Path | None, warnings: Callable[[Path], Iterator[str]]) -> Iterator[str]:
    if file is None:
        return
    try:
        for warning in warnings(file):
            yield f"{path}: {file} {warning}."
    except UnusableFileError:
        return  # That is a problem, and has been told as one.


def _context(settings: UpstreamTls, path: str, problems: list[str]) -> ssl.SSLContext:
    # Verifies certificates and names, unless told otherwise.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.set_alpn_protocols(_ALPN)
    if settings.insecure_accept_any_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca_file is None:
        context.load_default_certs()
    else:
        ca_file = settings.ca_file
        _noted(problems, f"{path}.ca_file", ca_file, lambda: trust(context, ca_file))
    _present(context, settings, path, problems)
    return context


def _present(
    context: ssl.SSLContext, settings: UpstreamTls, path: str, problems: list[str]
) -> None:
    certificate, key = settings.certificate_file, settings.key_file
    if certificate is None or key is None:
        return
    name = f"{path}.certificate_file"
    if _noted(problems, name, certificate, lambda: certificates_in(certificate)):
        _noted(problems, f"{path}.key_file", key, lambda: present(context, certificate, key))


def _noted(problems: list[str], path: str, file: Path, work: Callable[[], object]) -> bool:
    """Do something with a file, or note why that can't be done; tell whether it could."""
    try:
        work()
    except UnusableFileError as failure:
        problems.append(f"{path}: {file} {failure}.")
        return False
    return True
