"""The types of single settings: what each may be, and the sentence for what it may not."""

from __future__ import annotations

import re
import uuid
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from relproxy import networks
from relproxy.errors import BadRequestError
from relproxy.filters.target import parse_target


def _network(value: object) -> object:
    try:
        return ip_network(str(value))
    except ValueError:
        raise ValueError("should be a network such as 10.0.0.0/8, without host bits set") from None


def _header_of_its_own(value: str) -> str:
    if value.lower() in _TAKEN_HEADERS or value.lower().startswith("content-"):
        raise ValueError("has another meaning: it would be stripped from every request")
    return value


def _without_last_dot(value: object) -> object:
    # The root's dot: a request's Host is compared without it.
    return value.removesuffix(".") if isinstance(value, str) else value


def _bind(value: str) -> str:
    if value.startswith("unix:"):
        return _unix(value)
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("should be HOST:PORT, such as 127.0.0.1:9292 or [::1]:9292, or unix:/PATH")
    return value


def _socket_mode(value: object) -> object:
    # YAML takes 0660 for a number, in octal.
    return f"{value:04o}" if type(value) is int and value >= 0 else value


def socket_path(bind: str) -> str | None:
    """Return the path of a Unix socket that is to be listened on; None for HOST:PORT."""
    return bind.removeprefix("unix:") if bind.startswith("unix:") else None


def takes_any_port(bind: str) -> bool:
    """Tell whether an address is another one each time that it is bound."""
    return bind.endswith(":0") and socket_path(bind) is None


def is_loopback(bind: str) -> bool:
    """Tell whether only this host itself can connect to HOST:PORT, or to a socket."""
    if socket_path(bind) is not None:
        return True
    host = bind.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _endpoint(value: str) -> str:
    if value.startswith("unix:"):
        return _unix(value)
    match = _ENDPOINT.fullmatch(value)
    if match is None or int(match["port"] or 0) > 65535:
        raise ValueError(
            "should be http://HOST:PORT or https://HOST:PORT, and nothing behind it, or unix:/PATH"
        )
    if match[0].partition("//")[2].partition(":")[0].rstrip("/").lower().endswith(".unix.invalid"):
        raise ValueError("should be unix:/PATH for a socket")
    return value.rstrip("/")


def _unix(value: str) -> str:
    path = value.removeprefix("unix:")
    # What the kernel has room for (unix(7), sun_path), with a NUL behind it.
    if not path.startswith("/") or "\0" in path or len(path.encode()) > 107:
        raise ValueError("should be unix:/PATH, absolute and of 107 bytes at most")
    return value


def _keystone_url(value: str) -> str:
    match = _KEYSTONE_URL.fullmatch(value)
    if match is None or int(match["port"] or 0) > 65535:
        raise ValueError("should be http://HOST:PORT/v3, or https, with a path before /v3 if any")
    return value.rstrip("/")


def _postgres_dsn(value: str) -> str:
    if re.fullmatch(r"postgres(ql)?://[^/@\s]+@[^/@\s]+/[^\s]+", value) is None:
        raise ValueError("should be postgresql://USER@HOST:PORT/DATABASE")
    if ":" in value.partition("://")[2].partition("@")[0] or "password=" in value:
        raise ValueError(
            "may not hold a password: put it into a file, and name it as password_file"
        )
    return value


def _installation(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError(
            "should be a UUID; `relproxy generate-installation-uuid` makes one"
        ) from None


def _prefix(value: str) -> str:
    try:
        canonical = parse_target(value).path
    except BadRequestError:
        canonical = "/"
    if canonical == "/" or canonical != value:
        raise ValueError("should be a path such as /east: a leading slash, none at the end")
    return value


_TAKEN_HEADERS = frozenset(
    {"accept", "authorization", "connection", "expect", "host", "range", "x-auth-token",
     "x-openstack-request-id", "x-service-token"}
)  # fmt: skip
_ORIGIN = r"https?://([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(:(?P<port>[0-9]{1,5}))?"
_ENDPOINT = re.compile(f"{_ORIGIN}/?")
_KEYSTONE_URL = re.compile(f"{_ORIGIN}(/[A-Za-z0-9._-]+)*/v3/?")

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
HeaderName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$"), AfterValidator(_header_of_its_own)
]
HostName = Annotated[
    str, Field(pattern=r"^[a-z0-9._-]*[a-z0-9]$"), BeforeValidator(_without_last_dot)
]
Authority = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*[A-Za-z0-9](:[0-9]{1,5})?$")]
Bind = Annotated[str, AfterValidator(_bind)]
SocketMode = Annotated[Literal["0600", "0660", "0666"], BeforeValidator(_socket_mode)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
KeystoneUrl = Annotated[str, AfterValidator(_keystone_url)]
PostgresDsn = Annotated[str, AfterValidator(_postgres_dsn)]
InstallationUUID = Annotated[str, AfterValidator(_installation)]
PathPrefix = Annotated[str, AfterValidator(_prefix)]
Network = Annotated[networks.Network, BeforeValidator(_network)]
Seconds = Annotated[float, Field(gt=0, le=86_400, strict=True)]
SecondsOrNone = Annotated[float, Field(ge=0, le=86_400, strict=True)]
LongSeconds = Annotated[float, Field(gt=0, le=90 * 86_400, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]


class Section(BaseModel):
    """One mapping of the file: no unknown keys, no change after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
