"""Endpoints that are Unix sockets: an HTTP client wants a host, so the host names the path."""

from __future__ import annotations

from multidict import CIMultiDict

_SCHEME = "unix:"
# RFC 2606: no name ends so, but these.
_DOMAIN = ".unix.invalid"


def origin_of(url: str) -> str:
    """Return what stands before the path of a request to an endpoint."""
    if not url.startswith(_SCHEME):
        return url
    return f"http://{url.removeprefix(_SCHEME).encode().hex()}{_DOMAIN}"


def path_of(host: str) -> str | None:
    """Return the path of the socket that a host stands for; None for any other host."""
    if not host.endswith(_DOMAIN):
        return None
    return bytes.fromhex(host.removesuffix(_DOMAIN)).decode()


def with_host(headers: CIMultiDict[str], url: str) -> CIMultiDict[str]:
    """Return the headers of a request to an endpoint; it has no name of its own at a socket."""
    if not url.startswith(_SCHEME) or "Host" in headers:
        return headers
    return CIMultiDict((("Host", "localhost"), *headers.items()))
