"""One request under way: what was decided about it, in one value that every step reads."""

from __future__ import annotations

from dataclasses import dataclass

from relproxy.filters.access import objection
from relproxy.filters.base import Dialect
from relproxy.filters.headers import end_to_end_headers, identity_headers, upstream_headers
from relproxy.filters.visibility import Viewer
from relproxy.messages import Headers, Request
from relproxy.model import Caller, Tenancy
from relproxy.routing import Match


@dataclass(frozen=True, slots=True)
class Exchange:
    """A matched request and its caller. `outgoing` is the headers that go upstream."""

    request: Request
    match: Match
    caller: Caller | None
    outgoing: Headers

    @property
    def dialect(self) -> Dialect:
        """Return the dialect of the route's registry."""
        return self.match.route.dialect

    @property
    def registry(self) -> str:
        """Return the name of the route's registry."""
        return self.match.route.registry.name

    @property
    def is_only_wall(self) -> bool:
        """Tell whether the registry treats every caller alike, as its admin."""
        return self.match.route.registry.tenancy is Tenancy.RELPROXY

    @property
    def is_admin(self) -> bool:
        """Tell whether the caller is an admin."""
        return self.caller is not None and self.caller.is_admin

    def viewer(self, *, asks_for_community: bool = False) -> Viewer:
        """Return the point from which the registry's images are looked at."""
        tenancy = self.match.route.registry.tenancy
        return Viewer(tenancy, self.caller, asks_for_community=asks_for_community)


def exchange_for(
    request: Request, match: Match, caller: Caller | None, *, own_headers: tuple[str, ...]
) -> Exchange:
    """Put an exchange together.

    Raises what speaks against it: the caller may not do this, or a header means two things.
    """
    registry = match.route.registry
    if registry.tenancy is Tenancy.RELPROXY:
        refused = objection(match.operation, caller)
        if refused is not None:
            raise refused
    outgoing = upstream_headers(request.head.headers, own=own_headers)
    outgoing = match.route.dialect.neutral_headers(outgoing)
    return Exchange(request, match, caller, _addressed(outgoing, match, caller))


def shadow_exchange(
    request: Request, match: Match, caller: Caller | None, *, own_headers: tuple[str, ...]
) -> Exchange:
    """Put an exchange together that goes on as it came, whatever speaks against it.

    But for the header fields that are never a client's to send.
    """
    outgoing = end_to_end_headers(request.head.headers, own=own_headers)
    return Exchange(request, match, caller, _addressed(outgoing, match, caller))


def _addressed(outgoing: Headers, match: Match, caller: Caller | None) -> Headers:
    """Say which host is asked, and to a registry that believes its front, who asks."""
    if match.authority is not None:
        outgoing = outgoing.with_replaced("Host", match.authority)
    if match.route.registry.upstream_identity == "headers" and caller is not None:
        outgoing = outgoing.with_added(*identity_headers(caller))
    return outgoing
