"""One request on a route in shadow, and what enforcing would have made of it: told, not done."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from relproxy.errors import RelproxyError
from relproxy.exchange import Exchange
from relproxy.filters.base import Row
from relproxy.messages import Response
from relproxy.metrics import Metrics

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_MAX_LOGGED_IMAGES = 5


class Verdict(enum.StrEnum):
    """What enforcing would have done; a label of the metrics."""

    ALLOW = "would_allow"
    HIDE = "would_hide"
    REFUSE = "would_refuse"
    UNJUDGED = "unjudged"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one request, and why.

    `status` is what it would have been refused with, `failure` a bug that kept it from a verdict.
    """

    verdict: Verdict
    reason: str | None = None
    status: int | None = None
    hidden: Sequence[Row] = ()
    failure: Exception | None = None


ALLOWED = Judgement(Verdict.ALLOW)


@dataclass(slots=True)
class Trial:
    """One request in shadow: how it goes on, and what enforcing would have made of it so far.

    `enforced` is the exchange that enforcing would go on with; None where there would be none.
    """

    exchange: Exchange
    enforced: Exchange | None = None
    judgement: Judgement = ALLOWED

    def judge(self, judgement: Judgement) -> None:
        """Keep the first thing that speaks against it: enforcing would have ended there."""
        if self.judgement is ALLOWED:
            self.judgement = judgement

    def fails(self, failure: RelproxyError) -> None:
        """Judge by what was raised: a refusal, or a reason why there is no verdict."""
        verdict = Verdict.REFUSE if failure.status < 500 else Verdict.UNJUDGED
        self.judge(Judgement(verdict, failure.sentence, failure.status))

    def check(self, work: Callable[[], _Result]) -> _Result | None:
        """Return what `work` decides; None where it refuses."""
        try:
            return work()
        except RelproxyError as refusal:
            self.fails(refusal)
            return None


def tell(trial: Trial, response: Response, metrics: Metrics) -> None:
    """Count the verdict, and log any but that enforcing would change nothing."""
    match, judgement = trial.exchange.match, trial.judgement
    if judgement.verdict is Verdict.REFUSE and judgement.status == response.head.status:
        # The registry refuses it likewise: an image that it doesn't have, for one.
        judgement = ALLOWED
    route, hidden = match.route.name, judgement.hidden
    metrics.shadow.labels(route, match.treatment.value, judgement.verdict.value).inc()
    metrics.shadow_images_hidden.labels(route).inc(len(hidden))
    if judgement is ALLOWED:
        return
    head, caller = trial.exchange.request.head, trial.exchange.caller
    _LOG.info(
        "shadow",
        extra={
            "route": route,
            "request_id": response.head.headers.first("X-Openstack-Request-Id"),
            "method": head.method,
            "target": head.target,
            "project": caller.project if caller else None,
            "verdict": judgement.verdict.value,
            "status": judgement.status,
            "answered": response.head.status,
            "reason": judgement.reason,
            "hidden": len(hidden),
            "images": [row.facts.id for row in hidden[:_MAX_LOGGED_IMAGES]],
        },
        exc_info=judgement.failure,
    )
