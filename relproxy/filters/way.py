"""What a forwarded message says of the way that it has taken: Via, and who sent it to whom.

What strangers say of their way is taken out: a registry, or what it logs, might believe it. A front
is believed, in the one header that it sets and in those of its kind, and relproxy adds itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relproxy.filters.source import Fronts, is_relayed_by_front, is_well_formed
from relproxy.messages import Headers, RequestHead, folded
from relproxy.networks import Address

_XFF, _PROTO, _HOST = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"
_X_PREFIX, _X_OTHERS = b"x-forwarded-", frozenset({b"x-forwarded", b"x-real-ip"})


@dataclass(frozen=True, slots=True)
class Way:
    """What relproxy says: `header` is `none`, `forwarded` or `x-forwarded`; `via` its own name."""

    fronts: Fronts
    header: str = "none"
    via: str | None = None


def with_way(outgoing: Headers, head: RequestHead, way: Way, *, host: str | None) -> Headers:
    """Return the headers of a request with its way; `host` is the one that the client named."""
    passed_on = Headers(tuple(pair for pair in outgoing.pairs if not _is_of_way(pair[0])))
    said = _believed(head, way.fronts)
    if way.header == "none":
        passed_on = Headers(passed_on.pairs + said.pairs)
    elif way.header == "forwarded":
        passed_on = passed_on.with_added(("Forwarded", _forwarded(said, head, host)))
    else:
        others = said.without(("Forwarded", _XFF, _PROTO, _HOST))
        passed_on = Headers(passed_on.pairs + others.pairs)
        hops = ", ".join((*said.values(_XFF), *_hops(said, head)))
        passed_on = passed_on.with_added((_XFF, hops), (_PROTO, said.first(_PROTO) or head.scheme))
        if (named := said.first(_HOST) or host) is not None:
            passed_on = passed_on.with_added((_HOST, named))
    return with_via(passed_on, way.via, head.version)


def with_via(headers: Headers, name: str | None, version: tuple[int, int]) -> Headers:
    """Return headers with relproxy as the last of those through which the message came.

    `version` is the one in which the message was received (RFC 9110, section 7.6.3).
    """
    if name is None:
        return headers
    return headers.with_added(("Via", f"{version[0]}.{version[1]} {name}"))


def _is_of_way(name: bytes) -> bool:
    plain = folded(name)
    return plain == b"forwarded" or plain in _X_OTHERS or plain.startswith(_X_PREFIX)


def _believed(head: RequestHead, fronts: Fronts) -> Headers:
    """Return what a front says of the way, in the one kind of header that it is believed in."""
    if fronts.header == "none" or not is_relayed_by_front(head, fronts):
        return Headers()
    is_forwarded = fronts.header == "forwarded"
    return Headers(
        tuple(
            (name, value)
            for name, value in head.headers.pairs
            if _is_of_way(name) and (folded(name) == b"forwarded") is is_forwarded
        )
    )


def _hops(said: Headers, head: RequestHead) -> Sequence[str]:
    """Return the addresses that relproxy adds: the sender's, and first the one of the source.

    The source only where the front has told it in a kind of header that isn't passed on.
    """
    sender = _address(head.connection_source)
    is_told = bool(said.values(_XFF)) or head.source == head.connection_source
    return (sender,) if is_told else (_address(head.source), sender)


def _forwarded(said: Headers, head: RequestHead, host: str | None) -> str:
    told = said.values("Forwarded")
    if not all(map(is_well_formed, told)):
        # A quote that isn't closed would take what is written behind it for its own.
        told = ("for=unknown",)
    elif not told and head.source != head.connection_source:
        told = (f"for={_node(head.source)}",)
    own = f"for={_node(head.connection_source)};proto={head.scheme}"
    return ", ".join((*told, own if host is None else f'{own};host="{host}"'))


def _address(address: Address | None) -> str:
    return "unknown" if address is None else str(address)


def _node(address: Address | None) -> str:
    """Return an address as RFC 7239, section 6, writes it."""
    return f'"[{address}]"' if address is not None and address.version == 6 else _address(address)
