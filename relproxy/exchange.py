"""One request under way: what was decided about it, in one value that every step reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relproxy.account import current
from relproxy.concurrency import Kind
from relproxy.errors import RelproxyError
from relproxy.filters.access import narrowed, objection
from relproxy.filters.base import Dialect
from relproxy.filters.headers import end_to_end_headers, identity_headers, upstream_headers
from relproxy.filters.visibility import Viewer
from relproxy.filters.way import Way, with_way
from relproxy.identity.base import IdentityProvider, NoCaller
from relproxy.messages import Errand, Headers, Request
from relproxy.model import Access, Caller, Tenancy, Treatment
from relproxy.routing import Match

# What has to happen where the data of an image is staged.
_STAGED = frozenset({"image-stage", "image-import", "image-delete"})
# What a store's backend is at work on before the registry answers, besides what moves data itself.
_DELETIONS = frozenset({"image-delete", "store-image"})

_NOT_ASKED = NoCaller("This request needs no caller.", None)


@dataclass(frozen=True, slots=True)
class Own:
    """The headers that are relproxy's own and are taken out, and what it says of the way."""

    headers: tuple[str, ...]
    way: Way


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
    def host(self) -> str | None:
        """Return the host that the client named, with its port if it named one."""
        return self.match.authority or self.request.head.headers.first("Host")

    @property
    def is_only_wall(self) -> bool:
        """Tell whether the registry treats every caller alike, as its admin."""
        return self.match.route.registry.tenancy is Tenancy.RELPROXY

    @property
    def is_admin(self) -> bool:
        """Tell whether the caller is an admin."""
        return self.caller is not None and self.caller.is_admin

    @property
    def errand(self) -> Errand:
        """Say what of the request its way to the registry depends on."""
        operation = self.match.operation
        sticks = self.match.route.registry.sticky_staging and operation.name in _STAGED
        return Errand(
            stays_with=(operation.image_id or "").lower() if sticks else None,
            moves_data=operation.moves_data or operation.name in _DELETIONS,
        )

    def viewer(self, *, asks_for_community: bool = False) -> Viewer:
        """Return the point from which the registry's images are looked at."""
        tenancy = self.match.route.registry.tenancy
        return Viewer(tenancy, self.caller, asks_for_community=asks_for_community)


def kind_of(match: Match) -> Kind:
    """Say as what a request counts while it is under way."""
    return "transfers" if match.operation.moves_data else "requests"


def needs_caller(match: Match) -> bool:
    """Tell whether it matters to relproxy who sent the request.

    A registry that validates tokens itself judges all but lists, which relproxy filters, and
    creates, whose sender may vouch for an instance.
    """
    registry = match.route.registry
    if registry.tenancy is Tenancy.RELPROXY:
        return match.operation.access is not Access.ANYONE
    if registry.upstream_identity == "headers":
        # A pipeline that trusts its front refuses strangers everything else.
        return not match.operation.is_version_document
    return match.treatment in {Treatment.LIST, Treatment.CREATE}


async def identified(
    identity: IdentityProvider, request: Request, match: Match
) -> Caller | NoCaller:
    """Return who sent the request, where that matters; raises what the provider raises.

    Where it doesn't nobody is asked: a provider that is away doesn't stop what needs none.
    """
    if not needs_caller(match):
        return _NOT_ASKED
    found = await identity.identify(request.head)
    if isinstance(found, Caller):
        current().project = found.project
    return found


def exchange_for(request: Request, match: Match, found: Caller | NoCaller, *, own: Own) -> Exchange:
    """Put an exchange together.

    Raises what speaks against it: the caller may not do this, or a header means two things.
    """
    refused = _objection(request.head.method, match, found)
    if refused is not None:
        raise refused
    caller = found if isinstance(found, Caller) else None
    outgoing = upstream_headers(request.head.headers, own=own.headers)
    outgoing = match.route.dialect.neutral_headers(outgoing)
    return _addressed(Exchange(request, match, caller, outgoing), own.way)


def shadow_exchange(request: Request, match: Match, caller: Caller | None, *, own: Own) -> Exchange:
    """Put an exchange together that goes on as it came, whatever speaks against it.

    But for the header fields that are never a client's to send.
    """
    outgoing = end_to_end_headers(request.head.headers, own=own.headers)
    return _addressed(Exchange(request, match, caller, outgoing), own.way)


def _addressed(exchange: Exchange, way: Way) -> Exchange:
    """Say which host is asked, by what way, and to a registry that believes its front, who asks."""
    registry, caller = exchange.match.route.registry, exchange.caller
    outgoing = exchange.outgoing
    if (host := registry.host or exchange.match.authority) is not None:
        outgoing = outgoing.with_replaced("Host", host)
    outgoing = with_way(outgoing, exchange.request.head, way, host=exchange.host)
    if registry.upstream_identity == "headers" and caller is not None:
        outgoing = outgoing.with_added(*identity_headers(caller))
    return replace(exchange, outgoing=outgoing)


def _objection(method: str, match: Match, found: Caller | NoCaller) -> RelproxyError | None:
    """Return why this may not be done whatever the image, as far as it is relproxy's to say."""
    registry, operation = match.route.registry, match.operation
    is_only_wall = registry.tenancy is Tenancy.RELPROXY
    # Otherwise the registry validates the caller's own token, and judges by that.
    vouches = is_only_wall or registry.upstream_identity == "headers"
    if not vouches or operation.access is Access.ANYONE:
        return None
    if isinstance(found, NoCaller):
        # A registry that wants callers refuses strangers itself, in its own words; but somebody
        # whom relproxy knows, and can't speak for, would look like one to it.
        return found.refusal() if is_only_wall or found.challenge is None else None
    refused = objection(operation, found) if is_only_wall else None
    return refused or narrowed(found, method, operation)
