"""The settings about a registry's endpoints: which of them get requests, and when."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from relproxy.config_types import Count, PathPrefix, Seconds, Section

ServerError = Annotated[int, Field(ge=500, le=599, strict=True)]


class Ejection(Section):
    """When an endpoint that fails gets no requests for a while; the last one always gets them."""

    failures: Count = Field(
        default=3,
        description="Failures in a row that eject an endpoint: no connection, no answer in time, "
        "a broken one, or one of `statuses`. One alone may be a kept connection that was closed.",
    )
    statuses: tuple[ServerError, ...] = Field(
        default=(502, 503, 504),
        description="Answers that count as failures: what a web server before Glance says when "
        "Glance is away. Not 500, which one request alone may cause.",
    )
    base_s: Seconds = Field(
        default=5,
        description="How long it is out the first time, about; then twice as long each time: as "
        "long as a restart takes.",
    )
    max_s: Seconds = Field(
        default=60,
        description="How long it is out at most: then one that is back is noticed.",
    )


class HealthCheck(Section):
    """How a registry with several endpoints is asked how each of them is."""

    path: PathPrefix | None = Field(
        default="/healthcheck",
        description="What is asked for; Glance's healthcheck needs no credentials. null: nothing.",
    )
    interval_s: Seconds = Field(
        default=5,
        description="Between two checks of an endpoint by all workers together: it is cheap, and "
        "nobody waits for it.",
    )
    fall: Count = Field(
        default=3,
        description="Failed checks in a row that eject an endpoint: one may be a lost packet.",
    )
    rise: Count = Field(
        default=2, description="Passed checks in a row that bring it back: one may be luck."
    )
