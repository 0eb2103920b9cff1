"""Connections that have to begin with a PROXY protocol header: who says it, and for how long.

Every connection to such a listener has to come from a front. Until its header is whole it is
served by `_Announcing`; then its transport is handed over to the server's own protocol, with the
bytes that came behind the header. Anything else is closed, logged and counted: a server that
guessed whether there is a header would let anybody say where he comes from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast
from weakref import WeakKeyDictionary

from relproxy.config import Configuration, Listener
from relproxy.errors import AnnouncementError
from relproxy.filters.proxy_protocol import Announcement, read_announcement
from relproxy.metrics import Metrics
from relproxy.networks import Address, Network, is_in, parse_address

_LOG = logging.getLogger(__name__)


def peer_of(transport: asyncio.BaseTransport | None) -> Address | None:
    """Return the address of the other end of a connection; None if there is none (any more)."""
    peername = transport.get_extra_info("peername") if transport else None
    return parse_address(peername[0]) if isinstance(peername, tuple) else None


@dataclass(frozen=True, slots=True)
class AnnouncementTerms:
    """Who may connect to a listener, and how long a header may take from then on."""

    listener: str
    fronts: tuple[Network, ...]
    timeout_s: float


class Announcements:
    """What the connections of one listener have announced, and those that haven't yet."""

    def __init__(self, terms: AnnouncementTerms, metrics: Metrics) -> None:
        self.terms = terms
        self._metrics = metrics
        # Kept for as long as the connection: its transport outlives each of its protocols.
        self._made: WeakKeyDictionary[asyncio.BaseTransport, Announcement] = WeakKeyDictionary()
        self._awaited: set[asyncio.Transport] = set()
        self._is_closed = False

    def connection(self, serve: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """Return the protocol of a new connection; that of `serve` follows its header."""
        return _Announcing(self, serve)

    def of(self, transport: asyncio.BaseTransport | None) -> Announcement:
        """Return what a connection has announced: that it relays nobody knows whom, if nothing."""
        made = self._made.get(transport) if transport is not None else None
        return made or Announcement(0, is_relayed=True)

    def close(self) -> None:
        """Close the connections that have announced nothing yet, and those still to come."""
        self._is_closed = True
        for transport in list(self._awaited):
            transport.abort()

    def awaits(self, transport: asyncio.Transport) -> bool:
        """Take a new connection, if its header is to be waited for."""
        peer = peer_of(transport)
        if self._is_closed:
            transport.abort()
        elif not is_in(peer, self.terms.fronts):
            self.refuse(transport, "not_a_front")
        else:
            self._awaited.add(transport)
        return transport in self._awaited

    def made(self, transport: asyncio.Transport, announcement: Announcement) -> None:
        """Remember what a connection has announced."""
        self._awaited.discard(transport)
        self._made[transport] = announcement

    def lost(self, transport: asyncio.Transport) -> None:
        """Forget a connection that has announced nothing."""
        self._awaited.discard(transport)

    def refuse(self, transport: asyncio.Transport, reason: str, cause: str | None = None) -> None:
        """Close a connection, and say so; `cause` is what was wrong with its header."""
        peer = peer_of(transport)
        _LOG.warning(
            "connection refused",
            extra={
                "listener": self.terms.listener,
                "peer": str(peer) if peer else None,
                "reason": reason,
                "cause": cause,
            },
        )
        self._metrics.connections_refused.labels(self.terms.listener, reason).inc()
        transport.abort()


def announcements_of(
    configuration: Configuration, listener: Listener, metrics: Metrics
) -> Announcements | None:
    """Return what a listener's connections have to say; None where they have to say nothing."""
    if not listener.proxy_protocol:
        return None
    fronts, timeout_s = configuration.fronts.networks, configuration.timeouts.proxy_header_s
    return Announcements(AnnouncementTerms(listener.name, fronts, timeout_s), metrics)


class _Announcing(asyncio.Protocol):
    """Reads the header of one connection, then hands its transport over."""

    _transport: asyncio.Transport
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, announcements: Announcements, serve: Callable[[], asyncio.Protocol]) -> None:
        self._announcements = announcements
        self._serve = serve
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._announcements.awaits(self._transport):
            # For the whole header: a byte now and then wins no time.
            self._deadline = asyncio.get_running_loop().call_later(
                self._announcements.terms.timeout_s, self._refuse, "timeout"
            )

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            announcement = read_announcement(self._received)
        except AnnouncementError as failure:
            self._refuse("malformed", failure.sentence)
            return
        if announcement is not None:
            self._hand_over(announcement)

    def eof_received(self) -> None:
        # A balancer that only looks whether the port is open sends nothing: that is no mistake.
        if self._received:
            self._refuse("malformed", "The header broke off.")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._stop_waiting()
        self._announcements.lost(self._transport)

    def _hand_over(self, announcement: Announcement) -> None:
        self._stop_waiting()
        self._announcements.made(self._transport, announcement)
        served = self._serve()
        self._transport.set_protocol(served)
        served.connection_made(self._transport)
        rest = self._received[announcement.length :]
        if rest:
            served.data_received(rest)

    def _refuse(self, reason: str, cause: str | None = None) -> None:
        self._stop_waiting()
        self._announcements.refuse(self._transport, reason, cause)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
