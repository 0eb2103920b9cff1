"""The settings of TLS on a listener, and how a client's certificate is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from relproxy.config_types import Section

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_DNS = re.compile(rf"dns:(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
# RFC 3986: a scheme, and nothing that isn't visible.
_URI = re.compile(r"uri:[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]{1,2000}")
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


def _certificate_name(value: str) -> str:
    kind, colon, name = value.partition(":")
    if kind == "dns":
        value = kind + colon + name.lower()
    elif kind == "sha256":
        # As `openssl x509 -fingerprint` prints it.
        value = kind + colon + name.replace(":", "").lower()
    if not any(form.fullmatch(value) for form in (_DNS, _URI, _FINGERPRINT)):
        raise ValueError(
            "should be dns:NAME, uri:URI or sha256:FINGERPRINT of a client certificate, whole and "
            "without wildcards"
        )
    return value


def _version(value: object) -> object:
    # YAML takes 1.2 for a number.
    return str(value) if isinstance(value, float) else value


CertificateName = Annotated[str, AfterValidator(_certificate_name)]
TlsVersion = Annotated[Literal["1.2", "1.3"], BeforeValidator(_version)]


class ServerTls(Section):
    """What a listener proves itself with, and what it asks of its clients."""

    certificate_file: Path = Field(
        description="Its certificate in PEM, then those of the authorities between it and the root."
    )
    key_file: Path = Field(
        description="The certificate's private key in PEM, not encrypted; for relproxy's eyes only."
    )
    minimum_version: TlsVersion = Field(
        default="1.2",
        description="1.2 or 1.3: the oldest TLS that is spoken; before 1.2 none is safe. Ciphers "
        "are OpenSSL's own choice.",
    )
    client_ca_file: Path | None = Field(
        default=None,
        description="The authorities, in PEM, that vouch for client certificates; no others do.",
    )
    client_certificates: Literal["none", "optional", "required"] = Field(
        default="none",
        description="Whether clients are asked for a certificate, and need one. One that doesn't "
        "hold ends the connection, also where it is optional.",
    )

    @model_validator(mode="after")
    def _names_whom_it_asks(self) -> Self:
        if (self.client_ca_file is None) != (self.client_certificates == "none"):
            raise ValueError(
                "should have both client_ca_file and client_certificates (optional or required), "
                "or neither"
            )
        return self

    @property
    def asks_clients(self) -> bool:
        """Whether clients may prove who they are."""
        return self.client_certificates != "none"
