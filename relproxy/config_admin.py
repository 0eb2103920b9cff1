"""The settings of the listener for operators: where it is, and who may ask it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from relproxy.config_types import Bind, Section, is_loopback


class Admin(Section):
    """The listener for operators: health, metrics and relations."""

    tokens_file: Path | None = Field(
        default=None,
        description="A file that says which bearer token may ask for what. Without, everybody who "
        "can connect may ask for everything.",
    )
    bind: Bind = Field(
        default="127.0.0.1:9393",
        description="HOST:PORT; any but a loopback address needs tokens_file.",
    )

    @field_validator("bind")
    @classmethod
    def _is_private(cls, value: str, others: ValidationInfo) -> str:
        if others.data.get("tokens_file") is None and not is_loopback(value):
            raise ValueError(
                "has to be a loopback address, or admin.tokens_file has to say who may ask: the "
                "admin listener shows every project's records"
            )
        return value
