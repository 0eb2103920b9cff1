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


def with_host(headers: CIMultiDict[str], url: str, host: str | None = None) -> CIMultiDict[str]:
    """Return the headers of a request to an endpoint.

    Where they name no host, because the request is relproxy's own, it is `host`: the registry's, if
    it has one. An endpoint has no name of its own at a socket.
    """
    if "Host" in headers:
        return headers
    if host is None and url.startswith(_SCHEME):
        host = "localhost"
    return headers if host is None else CIMultiDict((("Host", host), *headers.items()))
