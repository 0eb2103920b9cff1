"""How the PostgreSQL store packs ids and times into few bytes; each is got back as it was."""

from __future__ import annotations

import functools
import hashlib
import re
import uuid
from datetime import UTC, datetime, timedelta

_ORIGIN = datetime(2020, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)
_CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SECONDS = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(.*)", re.DOTALL | re.ASCII)
# Where a UUID in canonical form says its version.
_VERSION = 14
_DIGEST_VERSION = "8"
_MAX_SECONDS = 2**31 - 1
# The created_at of a burial that doesn't say which image under its id it is of.
ANY_CREATED_AT = -(2**31)


def packed_id(text: str) -> tuple[str, bool]:
    """Return a UUID for an id, and whether it stands for a text that has to be kept beside it.

    A UUID in canonical form is itself, unless it says that it is of version 8: those are what
    stands for other texts (RFC 9562 section 5.8), by 122 bits of their SHA-256.
    """
    if _CANONICAL.fullmatch(text) and text[_VERSION] != _DIGEST_VERSION:
        return text, False
    digest = bytearray(hashlib.sha256(text.encode()).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | (int(_DIGEST_VERSION) << 4)
    digest[8] = (digest[8] & 0x3F) | 0x80
    return str(uuid.UUID(bytes=bytes(digest))), True


def is_opaque(found: str) -> bool:
    """Tell whether this UUID stands for a text that was kept beside it."""
    return found[_VERSION] == _DIGEST_VERSION


def packed_time(moment: datetime) -> int:
    """Return whole seconds since 2020, rounded down."""
    return (moment - _ORIGIN) // _SECOND


def packed_moment(moment: datetime) -> int:
    """Return microseconds since 2020."""
    return (moment - _ORIGIN) // _MICROSECOND


def unpacked_moment(microseconds: int) -> datetime:
    """Return the moment."""
    return _ORIGIN + microseconds * _MICROSECOND


def unpacked_time(seconds: int) -> datetime:
    """Return the moment."""
    return _ORIGIN + seconds * _SECOND


# Those of a batch are mostly of the same second.
@functools.lru_cache(maxsize=1024)
def packed_created_at(text: str) -> tuple[int, str]:
    """Return a registry's created_at as seconds since 2020 and whatever follows them in its text.

    A text that doesn't begin with a time to the second is 0 and the text itself, behind a space.
    """
    match = _SECONDS.fullmatch(text)
    if match is not None:
        try:
            seconds = packed_time(datetime.fromisoformat(match[1]).replace(tzinfo=UTC))
        except ValueError:
            return 0, f" {text}"
        if abs(seconds) <= _MAX_SECONDS and not match[2].startswith(" "):
            return seconds, match[2]
    return 0, f" {text}"


def unpacked_created_at(seconds: int, suffix: str) -> str:
    """Return the registry's own text."""
    if suffix.startswith(" "):
        return suffix[1:]
    return f"{unpacked_time(seconds):%Y-%m-%dT%H:%M:%S}{suffix}"
