"""The settings of an address on which clients are served."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from relproxy.config_tls import ServerTls
from relproxy.config_types import Bind, Name, Section, SocketMode, socket_path


class Listener(Section):
    """An address on which clients are served."""

    name: Name = Field(description="What routes and metrics call this listener.")
    bind: Bind = Field(
        description="HOST:PORT to listen on, port 0 takes a free one; or unix:/PATH of a socket."
    )
    socket_mode: SocketMode = Field(
        default="0660",
        description="0600, 0660 or 0666: who of this host may connect to a Unix socket.",
    )
    fronted: bool = Field(
        default=False,
        strict=True,
        description="Whether only fronts can connect to this Unix socket: then all who do are "
        "believed like one in fronts.networks.",
    )
    proxy_protocol: bool = Field(
        default=False,
        strict=True,
        description="Whether every connection has to come from a front and to begin with a PROXY "
        "protocol header, version 1 or 2.",
    )
    tls: ServerTls | None = Field(
        default=None, description="TLS on this listener; left out, a front has to terminate it."
    )

    @model_validator(mode="after")
    def _is_fronted_by_a_socket(self) -> Self:
        if self.fronted and socket_path(self.bind) is None:
            raise ValueError("fronted is for unix:/PATH only: fronts.networks says it of HOST:PORT")
        return self
