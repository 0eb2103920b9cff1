"""Links that a registry makes of its own address, put right for a route with a path prefix."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from relproxy.messages import Headers


def prefixed_url(url: str, prefix: str, host: str | None = None) -> str:
    """Return an absolute URL with `prefix` before its path, on `host` if that is given.

    Any other reference is returned as it is.
    """
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        return url
    return parts._replace(path=prefix + parts.path, netloc=host or parts.netloc).geturl()


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", url, "", "")


def _is_on(host: str, parts: SplitResult) -> bool:
    # WebOb leaves out the port that a scheme has anyway.
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return bool(parts.netloc) and parts.netloc.removesuffix(port) == host.removesuffix(port)


def with_location_on(headers: Headers, *, sent: str, named: str | None) -> Headers:
    """Return response headers whose Location is on the host that the client named.

    For a registry that was told of another one, `sent`, and has made its Location of that.
    """
    location = headers.first("Location")
    if location is None or named is None or not _is_on(sent, parts := _split(location)):
        return headers
    return headers.with_replaced("Location", parts._replace(netloc=named).geturl())


def with_prefixed_location(headers: Headers, *, prefix: str, host: str | None) -> Headers:
    """Return response headers whose Location leads through the route that the client used.

    Only a Location on the host that the client named is the registry itself (WebOb makes it
    absolute from the Host header); a path counts as one on that host (RFC 9110, section 10.2.2).
    """
    location = headers.first("Location")
    if location is None or not prefix:
        return headers
    if location.startswith("/") and not location.startswith("//"):
        return headers.with_replaced("Location", prefix + location)
    if not _is_on(host or "", _split(location)):
        return headers
    return headers.with_replaced("Location", prefixed_url(location, prefix))
