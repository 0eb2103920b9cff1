"""What a connection goes through before its server gets it."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass

from relproxy.announcing import Announcements
from relproxy.arrival import Arrival, Serve
from relproxy.securing import Securing


@dataclass(frozen=True, slots=True)
class Entrance:
    """What the connections of one listener go through before they are served, if anything.

    With `announcements`, every connection has to begin with a PROXY protocol header; with
    `securing` a TLS handshake comes next. `is_fronted` where only fronts can connect.
    """

    listener: str
    announcements: Announcements | None = None
    securing: Securing | None = None
    is_fronted: bool = False

    def connection(self, serve: Serve) -> asyncio.BaseProtocol:
        """Return the protocol of a new connection; that of `serve` comes in the end."""
        if self.announcements is not None:
            return self.announcements.connection(functools.partial(self._secured, serve))
        return self._secured(serve, Arrival())

    def _secured(self, serve: Serve, arrival: Arrival) -> asyncio.Protocol:
        if self.securing is not None:
            return self.securing.connection(serve, arrival)
        return serve(arrival)

    def close(self) -> None:
        """Close the connections that are not served yet, and those still to come."""
        for step in (self.announcements, self.securing):
            if step is not None:
                step.close()
