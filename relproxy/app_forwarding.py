"""The composition root's part about what forwarded messages say of their way."""

from __future__ import annotations

from relproxy.config import Configuration
from relproxy.filters.source import Fronts
from relproxy.filters.way import Way


def way_of(configuration: Configuration) -> Way:
    """Return what relproxy says of the way, and whom it believes about it."""
    fronts = Fronts(configuration.fronts.networks, configuration.fronts.header)
    # Between two kinds a part of what a front says would be lost.
    follows = "forwarded" if fronts.header == "forwarded" else "x-forwarded"
    return Way(fronts, configuration.forwarding.header or follows, configuration.forwarding.via)
