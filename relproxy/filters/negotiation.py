"""Which media type a client would rather have (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# More than any client names; each costs time, and the rest counts for nothing.
_MAX_RANGES = 100


def preferred(accept: str, offers: Sequence[str]) -> str | None:
    """Return the offer that `accept` likes best, the first of equals; None where it takes none.

    An empty `accept` takes none: that is how WebOb reads it for Glance.
    """
    parts = accept.lower().split(",", _MAX_RANGES)[:_MAX_RANGES]
    ranges = dict(_media_range(part) for part in parts if part.strip())
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    return best if _quality(best, ranges) > 0 else None


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in text.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            return name, _number(value)
    return name, 1.0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _quality(offer: str, ranges: Mapping[str, float]) -> float:
    """Return the quality of the most specific range that covers the offer."""
    kind = offer.partition("/")[0]
    for covering in (offer, f"{kind}/*", "*/*"):
        if covering in ranges:
            return ranges[covering]
    return 0.0
