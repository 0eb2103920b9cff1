"""Which header fields go on, in both directions, and which are relproxy's own."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from relproxy.errors import BadRequestError
from relproxy.messages import Headers, folded
from relproxy.model import Caller

# RFC 9110, section 7.6.1, with the older fields that name hop-by-hop things; Trailer because
# trailers are dropped (section 6.5 allows it).
_HOP_BY_HOP: tuple[str, ...] = (
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)

# A WSGI server on the same host may take these from a header of its front, and route by them:
# gunicorn does (its setting forwarder_headers), and then any path may be any other.
_PATH_OVERRIDES = ("SCRIPT_NAME", "PATH_INFO")

# Where keystonemiddleware finds a token, in its order: the second only where there is no first.
_TOKEN, _TOKEN_OF_OLD = "X-Auth-Token", "X-Storage-Token"

# What Connection must never name: the field would be lost, and the message, or its caller, with it.
_END_TO_END = frozenset(
    map(
        folded,
        (
            *("Host", "Content-Length", "Content-Type", "Expect"),
            *(_TOKEN, _TOKEN_OF_OLD, "X-Service-Token"),
        ),
    )
)

# With `_` they are no framing to relproxy, and the framing itself to some WSGI servers.
_FRAMING = frozenset(map(folded, ("Content-Length", "Transfer-Encoding")))

_IDENTITY_SCOPES = ("", "Service-")
_IDENTITY_FIELDS = (
    "Identity-Status",
    "Domain-Id",
    "Domain-Name",
    "Project-Id",
    "Project-Name",
    "Project-Domain-Id",
    "Project-Domain-Name",
    "User-Id",
    "User-Name",
    "User-Domain-Id",
    "User-Domain-Name",
    "Roles",
)

# Everything that a registry behind keystonemiddleware's auth_token may believe
# (keystonemiddleware/auth_token/_request.py).
IDENTITY_HEADERS = (
    *(f"X-{scope}{field}" for scope in _IDENTITY_SCOPES for field in _IDENTITY_FIELDS),
    "X-Is-Admin-Project",
    "X-Role",
    "X-Service-Catalog",
    "X-Tenant",
    "X-Tenant-Id",
    "X-Tenant-Name",
    "X-User",
    "OpenStack-System-Scope",
)

# What goes on beside a body that was rewritten: nothing that describes, counts or links to what the
# registry answered, in whatever field.
_BESIDE_A_REWRITTEN_BODY = frozenset(
    map(
        folded,
        (
            *("Content-Language", "Content-Type", "Date", "Server", "Vary", "Via"),
            *("X-OpenStack-Request-Id", "Retry-After", "WWW-Authenticate"),
            *("Content-Security-Policy", "Referrer-Policy", "Strict-Transport-Security"),
            *("X-Content-Type-Options", "X-Frame-Options"),
        ),
    )
)
_CORS = b"access-control-"

# Some caches go by one of the later ones before they look at the first (RFC 9213, section 2).
_CACHING = (
    *("Cache-Control", "Expires", "Pragma"),
    *("CDN-Cache-Control", "Surrogate-Control", "X-Accel-Expires"),
)

# A condition or a range would be judged on the body before it is rewritten.
_PARTIAL = (
    "Accept-Encoding",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Range",
)

_BODY_FRAMING = ("Content-Length", "Content-Type", "Content-Encoding", "Content-MD5", "Expect")


def upstream_headers(headers: Headers, *, own: Iterable[str]) -> Headers:
    """Return what goes on to a registry: end-to-end fields, less identity and `own` ones.

    Expect stays here: whoever sends a body that its client holds back says so itself.

    Raises `BadRequestError` if Connection names a field that it must not name, or if a field that
    frames the body is spelled with `_`.
    """
    if any(b"_" in name and folded(name) in _FRAMING for name, _ in headers.pairs):
        raise BadRequestError("A header that frames the body is spelled with '_': use '-'.")
    named = _named_by_connection(headers)
    if named & _END_TO_END:
        raise BadRequestError("The header 'Connection' names a field that is not hop-by-hop.")
    if named & frozenset(map(folded, IDENTITY_HEADERS)):
        raise BadRequestError("The header 'Connection' names an identity header.")
    return end_to_end_headers(headers, own=own)


def end_to_end_headers(headers: Headers, *, own: Iterable[str]) -> Headers:
    """Return what goes on to a registry of any request, also of one that would be refused.

    A length that is spelled with `_` is none to relproxy and may be the length to a WSGI registry,
    which would then read a part of the next request: it never goes on. Nor does a second token, by
    which a registry might judge where relproxy judges by the first.
    """
    named = _named_by_connection(headers) - _END_TO_END
    framed = Headers(tuple(pair for pair in headers.pairs if pair[0].lower() != b"content_length"))
    gone: tuple[str | bytes, ...] = (
        *_HOP_BY_HOP,
        *_PATH_OVERRIDES,
        "Expect",
        *named,
        *IDENTITY_HEADERS,
        *own,
    )
    if headers.values(_TOKEN):
        gone = (*gone, _TOKEN_OF_OLD)
    return framed.without(gone)


def downstream_headers(headers: Headers) -> Headers:
    """Return what goes on to a client: end-to-end fields, in their order."""
    return headers.without((*_HOP_BY_HOP, *_named_by_connection(headers)))


def whole_body_headers(headers: Headers) -> Headers:
    """Return request headers that ask for a body as it is: no ranges, conditions or codings."""
    asked = headers.without((*_PARTIAL, *_BODY_FRAMING))
    return asked.with_added(("Accept-Encoding", "identity"))


def rewritten_headers(headers: Headers, *, length: int) -> Headers:
    """Return response headers for a body that was rewritten for one caller."""
    pairs = downstream_headers(headers).pairs
    kept = Headers(tuple(pair for pair in pairs if _is_about_no_body(folded(pair[0]))))
    return private_headers(kept.with_added(("Content-Length", str(length))))


def _is_about_no_body(name: bytes) -> bool:
    return name in _BESIDE_A_REWRITTEN_BODY or name.startswith(_CORS)


def private_headers(headers: Headers) -> Headers:
    """Return response headers that let no cache show the answer to another caller."""
    kept = headers.without(_CACHING)
    private = kept.with_added(("Cache-Control", "private, no-store"))
    is_said = "X-Auth-Token" in headers.values("Vary")
    return private if is_said else private.with_added(("Vary", "X-Auth-Token"))


def resized_headers(headers: Headers, *, length: int) -> Headers:
    """Return request headers for a body that relproxy changed: its length, no digest of the old."""
    kept = headers.without(
        ("Content-Length", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest")
    )
    return kept.with_added(("Content-Length", str(length)))


def identity_headers(caller: Caller) -> tuple[tuple[str, str], ...]:
    """Return what a registry that trusts its front is told of the caller.

    All that keystonemiddleware would tell it of the same token, less the names of things.
    """
    is_admins = caller.is_admin_project
    told = [
        ("X-Identity-Status", "Confirmed"),
        ("X-Project-Id", caller.project),
        ("X-Roles", _listed(caller.roles)),
        ("X-User-Id", caller.user),
        ("X-User-Domain-Id", caller.user_domain),
        ("X-Project-Domain-Id", caller.project_domain),
        # Where nothing is said, a registry takes the project for the admins' own.
        ("X-Is-Admin-Project", None if is_admins is None else str(is_admins)),
    ]
    if (service := caller.service) is not None:
        told += [
            ("X-Service-Identity-Status", "Confirmed"),
            ("X-Service-Project-Id", service.project),
            ("X-Service-User-Id", service.user),
            ("X-Service-Roles", _listed(service.roles)),
        ]
    return tuple((name, value) for name, value in told if value is not None)


def _listed(roles: Collection[str]) -> str:
    return ",".join(sorted(roles))


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    # Each but once, because one that is repeated a thousand times costs no more then.
    tokens = {token for value in headers.values("Connection") for token in value.split(",")}
    return frozenset(folded(token.strip()) for token in tokens if token.strip())
