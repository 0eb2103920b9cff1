"""Which route a request takes, and what is left of its path: decided once, for both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from relproxy.config import Configuration
from relproxy.config import Registry as RegistrySettings
from relproxy.errors import BadRequestError, NotFoundError
from relproxy.filters.base import UNKNOWN, Dialect, Operation
from relproxy.filters.target import Target, parse_target
from relproxy.messages import RequestHead
from relproxy.model import Access, Tenancy, Treatment
from relproxy.networks import Network, is_in

# Methods are case-sensitive (RFC 9110, section 9.1), and not every peer treats them so.
_METHOD = re.compile(r"[A-Z]+")
_VERSIONS = ((1, 0), (1, 1))
# What may name a host and a port (RFC 3986, section 3.2), less user information and the comma, at
# which other readers divide a list.
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]+)(:[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Route:
    """One route with everything it names. `prefix` is empty, or segments to take off the path."""

    name: str
    host: str | None
    prefix: tuple[str, ...]
    listener: str | None
    network: Network | None
    registry: RegistrySettings
    installation: str | None
    dialect: Dialect
    is_shadow: bool

    @property
    def path_prefix(self) -> str:
        """Return the prefix as it is put before a path; empty for none."""
        return "".join(f"/{segment}" for segment in self.prefix)

    def takes(self, head: RequestHead, host: str, target: Target) -> bool:
        """Tell whether a request meets every condition of this route."""
        return (
            (self.host is None or self.host == host)
            and target.segments[: len(self.prefix)] == self.prefix
            and (self.listener is None or self.listener == head.listener)
            and (self.network is None or is_in(head.source, (self.network,)))
        )


@dataclass(frozen=True, slots=True)
class Match:
    """The one decision about a request: its route, what it is, and the target that goes upstream.

    `target` is raw where the client's spelling is the canonical one, or where the request is merely
    passed on, or in shadow; else it is the canonical form that was classified. `refusal` is what it
    would be refused with, whatever it is; it is raised instead where the route isn't in shadow.
    """

    route: Route
    operation: Operation
    treatment: Treatment
    target: str
    query: str
    authority: str | None
    refusal: BadRequestError | None = None


def route_table(configuration: Configuration, dialects: Mapping[str, Dialect]) -> tuple[Route, ...]:
    """Return the configured routes, in the file's order."""
    return tuple(
        Route(
            name=route.name,
            host=route.host,
            prefix=parse_target(route.path_prefix).segments if route.path_prefix else (),
            listener=route.listener,
            network=route.network,
            registry=(registry := configuration.registry_of(route)),
            installation=configuration.installation_of(route),
            dialect=dialects[registry.dialect],
            is_shadow=route.mode == "shadow",
        )
        for route in configuration.routes
    )


def match(routes: Sequence[Route], head: RequestHead) -> Match:
    """Find the first route that takes the request, and classify what is left of its path.

    Raises `NotFoundError` where no route does, `BadRequestError` for a target that isn't one.
    """
    if head.version not in _VERSIONS:
        raise BadRequestError("The version of this request is neither HTTP/1.0 nor HTTP/1.1.")
    if not _METHOD.fullmatch(head.method):
        raise BadRequestError("The method of this request is not one in capital letters.")
    if head.method in {"CONNECT", "TRACE"}:
        raise BadRequestError(f"The method {head.method} is not taken.")
    if any(coding.lower() != "chunked" for coding in head.headers.values("Transfer-Encoding")):
        raise BadRequestError("The transfer coding of this request is not 'chunked' alone.")
    target = parse_target(head.target)
    authority = target.authority or head.headers.first("Host")
    if authority is not None and not _AUTHORITY.fullmatch(authority):
        # Glance makes links of it, and other readers other hosts.
        raise BadRequestError("The host of this request is not one.")
    host = _host_name(authority or "")
    for route in routes:
        if route.takes(head, host, target):
            return _matched(route, head, target)
    raise NotFoundError("No route of this relproxy takes this host, path and client.")


def _matched(route: Route, head: RequestHead, target: Target) -> Match:
    rest = replace(
        target,
        segments=target.segments[len(route.prefix) :],
        raw_path=_without_prefix(target.raw_path, route.path_prefix),
    )
    query = f"?{rest.query}" if rest.query else ""
    try:
        operation = route.dialect.operation(head.method, rest, head.headers)
    except BadRequestError as refusal:
        if not route.is_shadow:
            raise
        unknown = Operation(UNKNOWN, Treatment.PASS, Access.REFUSED, rest.path)
        return replace(_shadowed(route, unknown, rest, query), refusal=refusal)
    if route.is_shadow:
        return _shadowed(route, operation, rest, query)
    path = rest.raw_path if _is_sent_raw(operation, rest) else operation.path
    return Match(
        route, operation, _treatment(route, operation), path + query, rest.query, target.authority
    )


def _shadowed(route: Route, operation: Operation, rest: Target, query: str) -> Match:
    """Return a match whose target is the client's own, whatever it was classified as."""
    target = (rest.raw_path or rest.path) + query
    treatment = _treatment(route, operation)
    return Match(route, operation, treatment, target, rest.query, rest.authority)


def _treatment(route: Route, operation: Operation) -> Treatment:
    """Refuse what has no place where relproxy is the only wall; a registry with callers judges."""
    is_only_wall = route.registry.tenancy is Tenancy.RELPROXY
    if is_only_wall and operation.access is Access.REFUSED:
        return Treatment.REFUSE
    return operation.treatment


def _is_sent_raw(operation: Operation, rest: Target) -> bool:
    if operation.name != UNKNOWN:
        return rest.raw_path == operation.path
    return rest.raw_path.startswith("/") and operation.path == rest.path


def _without_prefix(raw_path: str, prefix: str) -> str:
    """Take the prefix off the raw path; empty where the client spelled it another way."""
    if prefix and not f"{raw_path}/".startswith(f"{prefix}/"):
        return ""
    return raw_path[len(prefix) :] or "/"


def _host_name(authority: str) -> str:
    """Return the host of an authority, without its port, in lower case."""
    host, colon, port = authority.rpartition(":")
    return (host if colon and port.isdigit() else authority).lower().rstrip(".")
