"""How much may be under way at once: in this worker, for a registry, of a project.

Image data is counted apart from all else: many transfers cost little each and last for hours, while
a few lists too many keep a registry from answering at all. A request counts until its answer has
been sent, or the registry is done with it, whichever is later. What is over a limit is refused
before anything is done about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Mapping
from typing import Any, Literal, TypeVar

from relproxy.config_concurrency import AtOnce, Concurrency
from relproxy.errors import OverloadedError, TooManyRequestsError
from relproxy.messages import Response
from relproxy.metrics import Metrics

Kind = Literal["requests", "transfers"]
_Result = TypeVar("_Result")
# What is limited, and its name: ("project", "alice").
_Subject = tuple[str, str]


class Admission:
    """Counts what is under way, and refuses what is too much."""

    def __init__(
        self, settings: Concurrency, registries: Mapping[str, AtOnce], metrics: Metrics
    ) -> None:
        self._settings = settings
        self._registries = registries
        self._metrics = metrics
        self._under_way: Counter[tuple[_Subject, Kind]] = Counter()

    def admit(self, registry: str, kind: Kind) -> Permit:
        """Count one request to a registry; raises `OverloadedError` if that is one too many."""
        permit = Permit(self, registry, kind)
        limits = {
            ("worker", ""): self._settings.worker,
            ("registry", registry): self._registries[registry],
        }
        full = (each for each, most in limits.items() if not self._has_room(each, kind, most))
        if (subject := next(full, None)) is not None:
            self._refuse(subject, registry, kind)
            raise OverloadedError("Too many requests are under way: try again in a moment.")
        for subject in limits:
            permit.take(subject)
        return permit

    def admit_project(self, permit: Permit, project: str) -> None:
        """Count a request as its project's; raises `TooManyRequestsError` if it is one too many."""
        subject = ("project", project)
        if not self._has_room(subject, permit.kind, self._settings.project):
            self._refuse(subject, permit.registry, permit.kind)
            raise TooManyRequestsError(
                "Too many requests of this project are under way: wait for some to end."
            )
        permit.take(subject)

    def count(self, subject: _Subject, kind: Kind, change: int) -> None:
        """Add to what is under way."""
        self._under_way[subject, kind] += change
        if not self._under_way[subject, kind]:
            del self._under_way[subject, kind]
        if kind == "transfers" and subject[0] == "worker":
            self._metrics.transfers_in_progress.inc(change)

    def _has_room(self, subject: _Subject, kind: Kind, limit: AtOnce) -> bool:
        most = limit.transfers if kind == "transfers" else limit.requests
        return most is None or self._under_way[subject, kind] < most

    def _refuse(self, subject: _Subject, registry: str, kind: Kind) -> None:
        self._metrics.requests_limited.labels(registry, subject[0], kind).inc()


class Permit:
    """One admitted request: what it counts for, and who still needs it."""

    def __init__(self, admission: Admission, registry: str, kind: Kind) -> None:
        self._admission = admission
        self.registry = registry
        self.kind = kind
        self._taken: list[_Subject] = []
        self._holders = 1

    def take(self, subject: _Subject) -> None:
        """Count for a subject."""
        self._admission.count(subject, self.kind, 1)
        self._taken.append(subject)

    def release(self) -> None:
        """Count no longer, once the last holder says so."""
        self._holders -= 1
        while not self._holders and self._taken:
            self._admission.count(self._taken.pop(), self.kind, -1)

    def during(self, work: Coroutine[Any, Any, _Result]) -> Coroutine[Any, Any, _Result]:
        """Return work that holds the permit to its end, whoever has stopped waiting for it."""
        self._holders += 1
        return self._held(work)

    def until_sent(self, response: Response) -> Response:
        """Return a response that releases the permit when it is closed."""

        async def aclose() -> None:
            try:
                await response.aclose()
            finally:
                self.release()

        return Response(response.head, response.body, aclose)

    async def _held(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        try:
            return await work
        finally:
            self.release()
