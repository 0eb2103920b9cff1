"""Where a record stands among all, by when it was recorded; and the cursor that names such a place.

One order for what a store has and for what a journal has for it: a record has the same place before
and after it was delivered, so no page says it twice.
"""

from __future__ import annotations

import base64
import json
from typing import TypeAlias

from relproxy.errors import BadRequestError

# When it was recorded, in the store's own unit; the image, when it was created, the registry, as
# texts that the store orders by. Compared as tuples are.
Place: TypeAlias = tuple[int, str, str, str]

_MAX_MOMENT = 2**63 - 1


def as_cursor(place: Place) -> str:
    """Return a text that names a place, of characters that need no quoting in a URL."""
    text = json.dumps(place, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def from_cursor(cursor: str) -> Place:
    """Return the place that a cursor names; raises `BadRequestError`."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        moment, *texts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        image_id, created_at, registry = texts
    except (ValueError, TypeError, RecursionError):
        raise not_a_cursor() from None
    is_number = type(moment) is int and abs(moment) <= _MAX_MOMENT
    if not is_number or not all(isinstance(text, str) and _is_text(text) for text in texts):
        raise not_a_cursor()
    return moment, image_id, created_at, registry


def not_a_cursor() -> BadRequestError:
    """Return what a cursor that nobody gave is refused with."""
    return BadRequestError("'cursor' is not one that this relproxy gave.")


def not_a_place(text: str) -> BadRequestError:
    """Return what a place to go on from is refused with that no walk gave."""
    return BadRequestError(f"'{text}' is no place among the records of this store.")


def _is_text(text: str) -> bool:
    # JSON can say half a surrogate pair and a NUL; no database takes either.
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)
