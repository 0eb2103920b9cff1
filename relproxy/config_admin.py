"""The settings of the listener for operators: where it is, and who may ask it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from relproxy.config_tls import ServerTls
from relproxy.config_types import Bind, Section, SocketMode, is_loopback


class Admin(Section):
    """The listener for operators: health, metrics and relations."""

    tokens_file: Path | None = Field(
        default=None,
        description="A file that says which bearer token may ask for what. Without, everybody who "
        "can connect may ask for everything.",
    )
    tls: ServerTls | None = Field(
        default=None,
        description="TLS on this listener. With client_certificates and no tokens_file, whoever "
        "has a certificate may ask for everything; with one, it says what a certificate is for.",
    )
    bind: Bind = Field(
        default="127.0.0.1:9393",
        description="HOST:PORT, or unix:/PATH; any but a loopback address or a socket needs "
        "tokens_file or client certificates.",
    )
    socket_mode: SocketMode = Field(
        default="0660",
        description="0600, 0660 or 0666: who of this host may connect to a Unix socket.",
    )

    @field_validator("bind")
    @classmethod
    def _is_private(cls, value: str, others: ValidationInfo) -> str:
        # What is wrong with one of these is said of it; it was meant to be there.
        tls = others.data.get("tls", None)
        is_guarded = (
            others.data.get("tokens_file") is not None
            or "tls" not in others.data
            or (tls is not None and tls.asks_clients)
        )
        if not is_guarded and not is_loopback(value):
            raise ValueError(
                "has to be a loopback address, or admin.tokens_file has to say who may ask, or "
                "admin.tls.client_certificates: the admin listener shows every project's records"
            )
        return value
