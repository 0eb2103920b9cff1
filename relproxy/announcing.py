"""Connections that have to begin with a PROXY protocol header: who says it, and for how long.

Every connection to such a listener has to come from a front. Until its header is whole it is
served by `_Announcing`; then its transport is handed over to what follows, with the bytes that came
behind the header: the server's own protocol, or a TLS handshake, of which nothing is read here.
Anything else is closed, logged and counted: a server that guessed whether there is a header would
let anybody say where he comes from.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import cast

from relproxy.arrival import Arrival, Serve, peer_of
from relproxy.config import Configuration
from relproxy.config_listeners import Listener
from relproxy.draining import InFlight
from relproxy.errors import AnnouncementError
from relproxy.filters.proxy_protocol import Announcement, missing_bytes, read_announcement
from relproxy.metrics import Metrics
from relproxy.networks import Network, is_in

_LOG = logging.getLogger(__name__)


# Of what may follow a header, which is handed on.
_PIECE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class AnnouncementTerms:
    """Who may connect to a listener, and how long a header may take from then on.

    `is_fronted` where whoever can connect is a front. `reads_no_further` where nothing of what
    follows a header may be read.
    """

    listener: str
    fronts: tuple[Network, ...]
    timeout_s: float
    is_fronted: bool = False
    reads_no_further: bool = False


class Announcements:
    """What the connections of one listener have announced, and those that haven't yet."""

    def __init__(self, terms: AnnouncementTerms, metrics: Metrics, in_flight: InFlight) -> None:
        self.terms = terms
        # Who is replaced waits for what a connection is about to say.
        self.in_flight = in_flight
        self._metrics = metrics
        self._awaited: set[asyncio.Transport] = set()
        self._is_closed = False

    def connection(self, serve: Serve) -> asyncio.BufferedProtocol:
        """Return the protocol of a new connection; that of `serve` follows its header."""
        return _Announcing(self, serve)

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
        elif not (self.terms.is_fronted or is_in(peer, self.terms.fronts)):
            self.refuse(transport, "not_a_front")
        else:
            self._awaited.add(transport)
        return transport in self._awaited

    def forget(self, transport: asyncio.Transport) -> None:
        """Forget a connection, which has announced what there is, or has ended."""
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
    configuration: Configuration, listener: Listener, metrics: Metrics, in_flight: InFlight
) -> Announcements | None:
    """Return what a listener's connections have to say; None where they have to say nothing."""
    if not listener.proxy_protocol:
        return None
    terms = AnnouncementTerms(
        listener.name,
        configuration.fronts.networks,
        configuration.timeouts.proxy_header_s,
        is_fronted=listener.fronted,
        reads_no_further=listener.tls is not None,
    )
    return Announcements(terms, metrics, in_flight)


class _Announcing(asyncio.BufferedProtocol):
    """Reads the header of one connection, then hands its transport over."""

    is_idle = True
    was_used = False
    _transport: asyncio.Transport
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, announcements: Announcements, serve: Serve) -> None:
        self._announcements = announcements
        self._serve = serve
        self._received = b""
        self._room = memoryview(b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._announcements.awaits(self._transport):
            self._announcements.in_flight.add(self)
            # For the whole header: a byte now and then wins no time.
            self._deadline = asyncio.get_running_loop().call_later(
                self._announcements.terms.timeout_s, self._refuse, "timeout"
            )

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's own wish
        terms = self._announcements.terms
        size = missing_bytes(self._received) if terms.reads_no_further else _PIECE_BYTES
        self._room = memoryview(bytearray(size))
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self._received += self._room[:nbytes]
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
        self._announcements.forget(self._transport)
        self._announcements.in_flight.discard(self)

    def force_close(self) -> None:
        """Close the connection."""
        self._transport.abort()

    def _hand_over(self, announcement: Announcement) -> None:
        self._stop_waiting()
        self._announcements.forget(self._transport)
        served = self._serve(Arrival(announcement))
        self._transport.set_protocol(served)
        served.connection_made(self._transport)
        # Now it is counted there.
        self._announcements.in_flight.discard(self)
        rest = self._received[announcement.length :]
        if rest:
            served.data_received(rest)

    def _refuse(self, reason: str, cause: str | None = None) -> None:
        self._stop_waiting()
        self._announcements.refuse(self._transport, reason, cause)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
