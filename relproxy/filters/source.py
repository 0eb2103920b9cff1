"""The source address of a request: who it comes from, behind fronts that are believed.

It is the TCP peer; if that is a front, whom the front names. Hops are read from the right, because
each front writes behind what it was sent: what is left of the first hop that is no front was
written by a stranger, and isn't even looked at. Where a hop can't be read nobody is known from
there on. The source is then None and never the front, which may be in a trusted network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from relproxy.messages import Headers, RequestHead
from relproxy.networks import Address, Network, is_in, parse_address

# More fronts in a row than anybody has.
_MAX_HOPS = 32
# Of one field, which has to be read from its beginning: a quote there changes what follows.
_MAX_FORWARDED_CHARACTERS = 8 * 1024

# RFC 7239, section 6: an address, an IPv6 one in brackets, perhaps with a port or a name for it.
_NODE = re.compile(
    r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\])"
    r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
)
# In X-Forwarded-For an IPv6 address needs no brackets; two colons tell it from an IPv4 port.
_BARE_V6 = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*")

# RFC 7239, section 4, and RFC 9110, section 5.6: a pair, if any, and what ends it. Nothing is given
# back once it was read: a stranger's field takes no more time than its length.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 - a word of the grammar
_QUOTED = r'"(?P<quoted>(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+)"'
_PAIR = re.compile(
    rf"[ \t]*+(?:(?P<name>{_TOKEN})=(?:(?P<token>{_TOKEN})|{_QUOTED}))?[ \t]*+(?P<end>[;,]|\Z)"
)
_ESCAPE = re.compile(r"\\(.)")

_Hop = Address | None


@dataclass(frozen=True, slots=True)
class Fronts:
    """Whose word about the source is believed, and the one header that they set.

    `header` is `none`, `forwarded` or `x-forwarded-for`. Never two: a front that sets one of them
    lets a client's own copy of the other pass.
    """

    networks: tuple[Network, ...] = ()
    header: str = "none"


def with_source(head: RequestHead, fronts: Fronts) -> RequestHead:
    """Return the head with its source, and with no certificate that isn't the source's own.

    A front's certificate says who passes a request on, and vouches for nobody else.

    Raises `BadRequestError` if the header that names it is spelled with `_`.
    """
    is_of_front = _is_sent_by_front(head, fronts) or head.is_fronts_own
    names = frozenset() if is_of_front else head.certificate_names
    return replace(head, source=_source_of(head, fronts), certificate_names=names)


def is_relayed_by_front(head: RequestHead, fronts: Fronts) -> bool:
    """Tell whether a front passes on somebody else's request, and may say whose it is.

    A front that relays nobody wrote no header: what stands there was let pass.
    """
    return (
        _is_from_front(head, fronts) and _is_sent_by_front(head, fronts) and not head.is_fronts_own
    )


def _is_from_front(head: RequestHead, fronts: Fronts) -> bool:
    return head.is_front_socket or is_in(head.peer, fronts.networks)


def _is_sent_by_front(head: RequestHead, fronts: Fronts) -> bool:
    """Tell whether a front wrote the request itself, and doesn't just relay the connection."""
    if head.is_front_socket and not head.is_relayed:
        return True
    return is_in(head.connection_source, fronts.networks)


def is_well_formed(field: str) -> bool:
    """Tell whether a Forwarded field can be read to its end."""
    return len(field) <= _MAX_FORWARDED_CHARACTERS and _elements(field) is not None


def _source_of(head: RequestHead, fronts: Fronts) -> Address | None:
    if not _is_from_front(head, fronts):
        return head.peer
    known = head.connection_source
    if fronts.header == "none" or not is_relayed_by_front(head, fronts):
        return known
    for count, hop in enumerate(_hops(head.headers, fronts.header), start=1):
        if not is_in(hop, fronts.networks):
            return hop
        if count == _MAX_HOPS:
            return None
        known = hop
    return known


def _hops(headers: Headers, name: str) -> Iterator[_Hop]:
    """Yield the hops from the last to the first; None for one that is no address."""
    for field in reversed(headers.believed(name)):
        yield from _READERS[name](field)


def _x_forwarded_for(field: str) -> Iterator[_Hop]:
    for hop in reversed(field.split(",")):
        text = hop.strip(" \t")
        yield _node(f"[{text}]" if _BARE_V6.fullmatch(text) else text)


def _forwarded(field: str) -> Iterator[_Hop]:
    elements = _elements(field) if is_well_formed(field) else None
    for element in reversed(elements or [{}]):
        yield _node(element.get("for", ""))


def _elements(field: str) -> list[dict[str, str]] | None:
    """Return the parameters of each element, by name in lower case; None if malformed."""
    elements: list[dict[str, str]] = [{}]
    place = 0
    while (pair := _PAIR.match(field, place)) is not None:
        name = (pair["name"] or "").lower()
        if name in elements[-1]:
            return None  # Once in an element (section 4).
        if name:
            quoted = pair["quoted"]
            elements[-1][name] = pair["token"] or _ESCAPE.sub(r"\1", quoted or "")
        if not pair["end"]:
            return elements
        if pair["end"] == ",":
            elements.append({})
        place = pair.end()
    return None


def _node(text: str) -> _Hop:
    """Return the address of a node; None for `unknown`, for a name that hides one, for garbage."""
    node = _NODE.fullmatch(text)
    return parse_address(node["v4"] or node["v6"]) if node else None


_READERS: Mapping[str, Callable[[str], Iterator[_Hop]]] = {
    "forwarded": _forwarded,
    "x-forwarded-for": _x_forwarded_for,
}
