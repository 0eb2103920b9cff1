"""The request target: taken apart once, so that what is classified is what is sent.

A WSGI registry decodes the path once, and Glance then ignores repeated slashes: `/v2//images`,
`//v2/images` and `/v2/%69mages` are one resource to it. The canonical form is what they all mean:
decoded segments, none of them empty, encoded again in one way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from relproxy.errors import BadRequestError

# Visible ASCII without "#": a fragment never belongs to a target (RFC 9112, section 3.2).
_TARGET = re.compile(r"[\x21\x22\x24-\x7e]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What a segment may hold as it is (RFC 3986, pchar); quote() adds letters, digits and "_.-~".
_SEGMENT_SAFE = "!$&'()*+,;=:@"


@dataclass(frozen=True, slots=True)
class Target:
    """One request target in origin form.

    `segments` are decoded, as latin-1, and never empty; `query` is raw and has no "?". `authority`
    is set where the client sent an absolute form, and then overrules the Host header (RFC 9112,
    section 3.2.2).
    """

    raw_path: str
    query: str
    segments: tuple[str, ...]
    authority: str | None = None
    has_trailing_slash: bool = False

    @property
    def path(self) -> str:
        """Return the canonical path."""
        return canonical_path(self.segments)


def canonical_path(segments: tuple[str, ...]) -> str:
    """Return the one spelling of a path."""
    encoded = (quote_from_bytes(s.encode("latin-1"), safe=_SEGMENT_SAFE) for s in segments)
    return "/" + "/".join(encoded)


def parse_target(raw: str) -> Target:
    """Take a request target apart.

    Raises `BadRequestError` for a target that isn't a path or an http(s) URL, and for a path that
    different servers may read as different paths (dot segments, control characters).
    """
    if not _TARGET.fullmatch(raw):
        raise BadRequestError("The request target has characters that a URL must not have.")
    authority, origin = _origin_form(raw)
    raw_path, _, query = origin.partition("?")
    decoded = unquote_to_bytes(raw_path).decode("latin-1")
    segments = tuple(segment for segment in decoded.split("/") if segment)
    if _CONTROL.search(decoded) or not {".", ".."}.isdisjoint(segments):
        raise BadRequestError("The path has dot segments or control characters: send it resolved.")
    return Target(raw_path, query, segments, authority, decoded.endswith("/"))


def _origin_form(raw: str) -> tuple[str | None, str]:
    if raw.startswith("/"):
        return None, raw
    try:
        parts = urlsplit(raw)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.netloc or "@" in parts.netloc:
        raise BadRequestError("The request target is neither a path nor an http URL.")
    query = f"?{parts.query}" if "?" in raw else ""
    return parts.netloc, (parts.path or "/") + query
