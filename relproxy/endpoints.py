"""Which endpoint of a registry gets the next request, and which gets none for a while.

Of the endpoints that are well, the one with the fewest outstanding requests. One that fails several
times in a row is ejected: it is out for a while, each time for longer. Then one request, of which
nothing is lost if it fails, is tried on it first; its answer brings the endpoint back.

The last endpoint that is left is never ejected, it is kept. That it fails too, or that it answers
again, says that one cause may have ailed them all: then the others are due for a try at once.

Health checks say what requests can't: of an endpoint that gets none, or that shall get none. What
they have ejected only they bring back. What requests have ejected they bring back only where no
request comes that may be tried, because what answers checks may fail requests.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, Literal, Protocol

from relproxy.config_endpoints import Ejection, HealthCheck
from relproxy.upstream_tls import Tls

Reason = Literal["unreachable", "tls", "timeout", "garbage", "status", "check"]
State = Literal["well", "ejected", "down"]

# Nothing is doubled more often: 2 to the 16th of any time is over any maximum.
_MAX_DOUBLINGS = 16


class Endpoint:
    """One address of a registry, with the number of requests that it hasn't finished."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.outstanding = 0
        # In a row.
        self.failures = 0
        # How often it was ejected without having been well for long in between.
        self.ejections = 0
        # Monotonic seconds; `out_until` is None as long as it is well.
        self.out_until: float | None = None
        self.well_since = 0.0
        self.is_tried = False
        # What health checks say, and how many in a row have said otherwise.
        self.is_down = False
        self.contradictions = 0
        # Why TLS failed the last time; None if it didn't.
        self.tls_cause: str | None = None

    def __repr__(self) -> str:
        return f"<Endpoint {self.url} outstanding={self.outstanding} {self.state}>"

    @property
    def is_well(self) -> bool:
        """Tell whether it has not failed lately."""
        return self.out_until is None and not self.is_down

    @property
    def state(self) -> State:
        """Say how it is: `down` by health checks, `ejected` by requests."""
        if self.is_down:
            return "down"
        return "well" if self.is_well else "ejected"

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count one request for as long as it lasts."""
        self.outstanding += 1
        try:
            yield
        finally:
            self.outstanding -= 1


class Watch(Protocol):
    """Who is told what becomes of the endpoints."""

    def failed(self, endpoint: Endpoint, reason: Reason) -> None:
        """Hear that one request failed."""
        ...

    def distrusted(self, endpoint: Endpoint, cause: str, news: str | None) -> None:
        """Hear that TLS failed; `news` says more, where it didn't fail so the last time."""
        ...

    def ejected(self, endpoint: Endpoint, reason: Reason, out_s: float | None) -> None:
        """Hear that an endpoint is out for so many seconds; None: until it passes checks."""
        ...

    def kept(self, endpoint: Endpoint, reason: Reason) -> None:
        """Hear that an endpoint would be out if it weren't the last one."""
        ...

    def returned(self, endpoint: Endpoint) -> None:
        """Hear that an endpoint is well again."""
        ...


class Endpoints:
    """The endpoints of one registry: least outstanding requests first, in turn among equals.

    `clock` is monotonic seconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        ejection: Ejection | None = None,
        watch: Watch | None = None,
        checks: HealthCheck | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # The host that relproxy's own requests ask for; None: the name of each endpoint.
        self.host: str | None = None
        # How TLS is spoken with those at https addresses; None: as is usual.
        self.tls: Tls | None = None
        self._all = tuple(map(Endpoint, urls))
        self._turn = itertools.count()
        self._ejection = ejection or Ejection()
        self._checks = checks or HealthCheck()
        self._watch = watch
        self._clock = clock
        # The last one that was well, while none is.
        self._kept: Endpoint | None = None

    @property
    def all(self) -> tuple[Endpoint, ...]:
        """Return every endpoint, as configured."""
        return self._all

    def by_preference(
        self, *, may_try: bool = False, stays_with: str | None = None
    ) -> tuple[Endpoint, ...]:
        """Return every endpoint, the one to try first at the front.

        With `may_try` that is one that is out and due, if there is any: for requests that may be
        sent again. With `stays_with` it is always the same for the same word, as long as it is
        well, for every relproxy that knows the endpoints by the same addresses.
        """
        if stays_with is not None:
            return self._by_rank(stays_with)
        first = next(self._turn) % len(self._all)
        in_turn = self._all[first:] + self._all[:first]
        well = sorted((e for e in in_turn if e.is_well), key=lambda e: e.outstanding)
        out = sorted(
            (e for e in in_turn if not e.is_well),
            key=lambda e: (e is not self._kept, self._wait(e)),
        )
        due = [e for e in out if may_try and e is not self._kept and self._is_due(e)]
        return tuple(dict.fromkeys((*due[:1], *well, *out)))

    def _by_rank(self, word: str) -> tuple[Endpoint, ...]:
        """Return every endpoint by rendezvous hashing: one that goes moves none but its own."""
        return tuple(
            sorted(
                self._all,
                key=lambda e: (e.is_well or e is self._kept, _score(e.url, word)),
                reverse=True,
            )
        )

    @contextmanager
    def attempt(self, endpoint: Endpoint) -> Iterator[None]:
        """Send one request; while it is the try of an endpoint that is out, there is no other."""
        is_try = not endpoint.is_well and not endpoint.is_tried
        endpoint.is_tried |= is_try
        try:
            yield
        finally:
            if is_try:
                endpoint.is_tried = False

    def answered(self, endpoint: Endpoint, status: int) -> None:
        """Hear that an endpoint has begun an answer."""
        if status in self._ejection.statuses:
            self.failed(endpoint, "status")
            return
        endpoint.failures = 0
        # What was asked before it was ejected, and is answered now, brings no endpoint back.
        if endpoint is self._kept or self._wait(endpoint) <= 0:
            self._readmit(endpoint)

    def failed(self, endpoint: Endpoint, reason: Reason) -> None:
        """Hear that an endpoint has failed to answer, by no fault of the client's."""
        if self._watch is not None:
            self._watch.failed(endpoint, reason)
        endpoint.failures += 1
        # The requests that an endpoint leaves unanswered all at once are one reason, not many.
        is_new = self._wait(endpoint) <= 0
        was_out = endpoint.out_until is not None
        if is_new and (was_out or endpoint.failures >= self._ejection.failures):
            self._eject(endpoint, reason)

    def distrusted(self, endpoint: Endpoint, cause: str, detail: str) -> None:
        """Hear that TLS with an endpoint has failed; that the request has is said apart."""
        news = detail if cause != endpoint.tls_cause else None
        endpoint.tls_cause = cause
        if self._watch is not None:
            self._watch.distrusted(endpoint, cause, news)

    def tls_options(self, endpoint: Endpoint) -> dict[str, Any]:
        """Return what aiohttp's client wants to know for a request to an endpoint."""
        return self.tls.options(endpoint.url) if self.tls is not None else {}

    def checked(self, endpoint: Endpoint, *, has_passed: bool) -> bool:
        """Hear of a health check; return whether the next one should come soon."""
        if not has_passed and self._watch is not None:
            self._watch.failed(endpoint, "check")
        if has_passed and self._wait(endpoint) <= -self._ejection.base_s:
            self._readmit(endpoint)
        if has_passed is not endpoint.is_down:
            endpoint.contradictions = 0
            return False
        endpoint.contradictions += 1
        needed = self._checks.rise if endpoint.is_down else self._checks.fall
        if endpoint.contradictions < needed:
            return True
        endpoint.contradictions = 0
        was_well, endpoint.is_down = endpoint.is_well, not has_passed
        if endpoint.is_well:
            self._return(endpoint)
        elif was_well:
            self._tell_out(endpoint, "check", None)
        return False

    def _eject(self, endpoint: Endpoint, reason: Reason) -> None:
        now = self._clock()
        if endpoint.out_until is None and now - endpoint.well_since > self._ejection.max_s:
            endpoint.ejections = 0
        out_s = self._out_s(endpoint.ejections)
        endpoint.ejections += 1
        endpoint.out_until = now + out_s
        self._tell_out(endpoint, reason, out_s)

    def _tell_out(self, endpoint: Endpoint, reason: Reason, out_s: float | None) -> None:
        if self._kept is None and not any(each.is_well for each in self._all):
            self._kept = endpoint
            self._make_due()
        if self._watch is None:
            return
        if endpoint is self._kept:
            self._watch.kept(endpoint, reason)
        else:
            self._watch.ejected(endpoint, reason, out_s)

    def _readmit(self, endpoint: Endpoint) -> None:
        """Forget what requests have said of an endpoint."""
        if endpoint.out_until is None:
            return
        endpoint.out_until, endpoint.well_since = None, self._clock()
        if endpoint.is_well:
            self._return(endpoint)

    def _return(self, endpoint: Endpoint) -> None:
        if endpoint is self._kept:
            self._make_due()
        self._kept = None
        if self._watch is not None:
            self._watch.returned(endpoint)

    def _make_due(self) -> None:
        for endpoint in self._all:
            if endpoint.out_until is not None and endpoint is not self._kept:
                endpoint.out_until = min(endpoint.out_until, self._clock())

    def _out_s(self, ejections: int) -> float:
        doubled = self._ejection.base_s * 2.0 ** min(ejections, _MAX_DOUBLINGS)
        return spread(min(doubled, self._ejection.max_s))

    def _is_due(self, endpoint: Endpoint) -> bool:
        return self._wait(endpoint) <= 0 and not endpoint.is_tried and not endpoint.is_down

    def _wait(self, endpoint: Endpoint) -> float:
        """Return the seconds until an endpoint may be tried."""
        if endpoint.out_until is None:
            return 0.0
        return endpoint.out_until - self._clock()


def _score(url: str, word: str) -> bytes:
    return blake2b(f"{url} {word}".encode(), digest_size=16).digest()


def spread(seconds: float) -> float:
    """Return a time up to a fifth longer or shorter: several relproxies don't fall into step."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
