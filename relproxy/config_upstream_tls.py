"""The settings about TLS with whom relproxy asks: registries, and Keystone."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from relproxy.config_tls import TlsVersion
from relproxy.config_types import HostName, Section


class UpstreamTls(Section):
    """How TLS is spoken with https addresses; the other side is always verified, unless told."""

    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the CAs that the other side is verified by; left out, those of "
        "the system.",
    )
    certificate_file: Path | None = Field(
        default=None,
        description="PEM file of relproxy's own certificate, with its chain, for who asks for one.",
    )
    key_file: Path | None = Field(
        default=None, description="PEM file of the certificate's private key, not encrypted."
    )
    server_name: HostName | None = Field(
        default=None,
        description="The name that is asked for (SNI) and that the certificate has to have; left "
        "out, the host of each address.",
    )
    minimum_version: TlsVersion = Field(
        default="1.2", description="The oldest version of TLS that is spoken."
    )
    insecure_accept_any_certificate: bool = Field(
        default=False,
        strict=True,
        description="Whether nothing is verified: then anyone on the way can pose as the other "
        "side, and read and change everything.",
    )

    @model_validator(mode="after")
    def _have_a_meaning_together(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("should have certificate_file and key_file, or neither")
        if self.insecure_accept_any_certificate and self.ca_file is not None:
            raise ValueError(
                "should have ca_file or insecure_accept_any_certificate, and not both: with the "
                "latter nothing is verified"
            )
        return self
