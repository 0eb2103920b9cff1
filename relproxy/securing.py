"""Connections that have to begin with a TLS handshake, until their server gets them.

A connection without one is closed, counted and told of in one line: whoever speaks plain HTTP here
would have sent a token in the clear. Not left to the loop's own server, which says nothing of
failures, and which can't begin behind a PROXY protocol header.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from asyncio import sslproto
from dataclasses import dataclass, replace
from typing import cast

from relproxy.arrival import Arrival, Serve, certificate_names, has_expired, peer_of
from relproxy.draining import InFlight
from relproxy.metrics import Metrics
from relproxy.tasks import TaskSet
from relproxy.tls_failures import reason_of

_LOG = logging.getLogger(__name__)

# For a client to say that it has heard of the end. Few do before their next request, and nothing
# is lost without it: all that was written has left by then.
_SHUTDOWN_S = 1.0
# As much as a connection without TLS holds; asyncio's own is eight times as much.
_HELD_BYTES = 64 * 1024
# asyncio gives every connection with TLS room for 256 KiB at once, before anything is known of who
# it is. Four records of TLS fit here; tests/unit/test_securing.py sees that it is heeded.
sslproto.SSLProtocol.max_size = 64 * 1024


@dataclass(frozen=True, slots=True)
class SecuringTerms:
    """With what the handshakes of a listener are made, and how long one may take."""

    listener: str
    context: ssl.SSLContext
    timeout_s: float


class Securing:
    """The handshakes of one listener."""

    def __init__(self, terms: SecuringTerms, metrics: Metrics, in_flight: InFlight) -> None:
        self._terms = terms
        self._metrics = metrics
        # Counted like a connection: who is replaced waits for its first request.
        self._in_flight = in_flight
        self._under_way: set[_Handshake] = set()
        self._tasks = TaskSet()
        self._is_closed = False

    def connection(self, serve: Serve, arrival: Arrival) -> asyncio.Protocol:
        """Return the protocol of a connection; that of `serve` follows its handshake."""
        return _Handshake(self, serve, arrival)

    def close(self) -> None:
        """Close the connections whose handshake isn't over, and those still to come."""
        self._is_closed = True
        for handshake in list(self._under_way):
            handshake.force_close()

    def begin(self, handshake: _Handshake) -> None:
        """Take a new connection."""
        if self._is_closed:
            handshake.force_close()
            return
        self._under_way.add(handshake)
        self._in_flight.add(handshake)
        self._tasks.start(self._carry_out(handshake), name="handshake")

    async def _carry_out(self, handshake: _Handshake) -> None:
        try:
            secured = await self._secured(handshake)
            if secured is not None:
                handshake.hand_over(secured)
        except BaseException:
            # Or it would be there for ever, and all that comes on it too.
            handshake.force_close()
            raise
        finally:
            # After it was handed over: at no time it isn't counted.
            self._under_way.discard(handshake)
            self._in_flight.discard(handshake)

    async def _secured(self, handshake: _Handshake) -> asyncio.Transport | None:
        """Return what to go on with; None if the connection has ended."""
        if handshake.beneath.is_closing():
            # It would never hear of its end.
            return None
        try:
            secured = await asyncio.get_running_loop().start_tls(
                handshake.beneath,
                handshake,
                self._terms.context,
                server_side=True,
                ssl_handshake_timeout=self._terms.timeout_s,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except ssl.SSLError as failure:
            self._say_failed(handshake, "tls", reason_of(failure))
        except ConnectionAbortedError:
            self._say_failed(handshake, "tls_timeout")
        except OSError:
            # Whoever only looks whether the port is open makes no mistake.
            pass
        else:
            if secured is None or not has_expired(secured):
                return secured
            self._say_failed(handshake, "tls", "CERTIFICATE_EXPIRED (session resumed)")
            secured.abort()
        return None

    def _say_failed(self, handshake: _Handshake, reason: str, cause: str | None = None) -> None:
        peer = peer_of(handshake.beneath)
        _LOG.info(
            "handshake failed",
            extra={
                "listener": self._terms.listener,
                "peer": str(peer) if peer else None,
                "reason": reason,
                "cause": cause,
            },
        )
        self._metrics.connections_refused.labels(self._terms.listener, reason).inc()


class _Handshake(asyncio.Protocol):
    """One connection until its handshake is over; keeps what comes right behind that.

    It is both the protocol of the socket, until the handshake begins, and that of TLS.
    """

    beneath: asyncio.Transport
    is_idle = True
    was_used = False

    def __init__(self, securing: Securing, serve: Serve, arrival: Arrival) -> None:
        self._securing = securing
        self._serve = serve
        self._arrival = arrival
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.beneath = cast("asyncio.Transport", transport)
        # Or what arrives before the handshake begins would be lost.
        self.beneath.pause_reading()
        self._securing.begin(self)

    def data_received(self, data: bytes) -> None:
        self._received += data

    def force_close(self) -> None:
        """Close the connection."""
        self.beneath.abort()

    def hand_over(self, secured: asyncio.Transport) -> None:
        """Have the connection served."""
        if secured.is_closing():
            secured.abort()
            return
        secured.set_write_buffer_limits(high=_HELD_BYTES)
        names = certificate_names(secured)
        served = self._serve(replace(self._arrival, beneath=self.beneath, names=names))
        secured.set_protocol(served)
        served.connection_made(secured)
        if self._received:
            served.data_received(self._received)
