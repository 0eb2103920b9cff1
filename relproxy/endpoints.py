"""Which endpoint of a registry gets the next request."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Endpoint:
    """One address of a registry, with the number of requests that it hasn't finished."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.outstanding = 0

    def __repr__(self) -> str:
        return f"<Endpoint {self.url} outstanding={self.outstanding}>"

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count one request for as long as it lasts."""
        self.outstanding += 1
        try:
            yield
        finally:
            self.outstanding -= 1


class Endpoints:
    """The endpoints of one registry: least outstanding requests first, in turn among equals."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._all = tuple(map(Endpoint, urls))
        self._turn = itertools.count()

    def by_preference(self) -> tuple[Endpoint, ...]:
        """Return every endpoint, the one to try first at the front."""
        first = next(self._turn) % len(self._all)
        in_turn = self._all[first:] + self._all[:first]
        return tuple(sorted(in_turn, key=lambda endpoint: endpoint.outstanding))
