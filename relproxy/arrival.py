"""How a connection came in: what is known of it before the first request on it."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from relproxy.filters.proxy_protocol import Announcement
from relproxy.networks import Address, parse_address


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a connection went through.

    `announcement` is what its PROXY protocol header said, where there has to be one. `beneath` is
    the transport of its socket, where TLS has one of its own above that. `names` are those of its
    client's verified certificate.
    """

    announcement: Announcement | None = None
    beneath: asyncio.Transport | None = None
    names: frozenset[str] = frozenset()


# Returns the protocol that goes on with a connection.
Serve = Callable[[Arrival], asyncio.Protocol]


def peer_of(transport: asyncio.BaseTransport | None) -> Address | None:
    """Return the address of the other end of a connection; None if there is none (any more)."""
    peername = transport.get_extra_info("peername") if transport else None
    return parse_address(peername[0]) if isinstance(peername, tuple) else None


def certificate_names(transport: asyncio.BaseTransport | None) -> frozenset[str]:
    """Return by what names the client's certificate is known; none without a verified one.

    `dns:` and `uri:` are its subjectAltName, whole, and `sha256:` is of all of it. The subject's
    common name is none of them: it has no kind, so it may be meant as anything (RFC 9525, 1.4.1).
    """
    secured = transport.get_extra_info("ssl_object") if transport else None
    if not isinstance(secured, ssl.SSLObject) or not (said := secured.getpeercert()):
        # Empty where OpenSSL verified none.
        return frozenset()
    der = secured.getpeercert(binary_form=True) or b""
    return frozenset((*_alternative_names(said), f"sha256:{hashlib.sha256(der).hexdigest()}"))


def has_expired(transport: asyncio.BaseTransport) -> bool:
    """Tell whether the time of the client's certificate is over.

    OpenSSL looks at it in a whole handshake only, and not where a session of TLS 1.2 is resumed.
    """
    secured = transport.get_extra_info("ssl_object")
    said = secured.getpeercert() if isinstance(secured, ssl.SSLObject) else None
    return bool(said and ssl.cert_time_to_seconds(str(said["notAfter"])) < time.time())


def _alternative_names(said: Mapping[str, Any]) -> Iterator[str]:
    for kind, name in said.get("subjectAltName", ()):
        if kind == "DNS":
            yield f"dns:{name.lower()}"
        elif kind == "URI":
            yield f"uri:{name}"
