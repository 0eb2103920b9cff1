"""The trace that a request belongs to (W3C Trace Context), read and continued.

A `traceparent` that is valid goes on with another parent: relproxy's own part of the trace. One
that isn't is dropped, with the `tracestate` that belongs to it; relproxy begins no trace. Flags
that no version knows yet are cleared, as the specification has it.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from relproxy.messages import Headers

_PARENT, _STATE = "traceparent", "tracestate"
_NAMES = frozenset((_PARENT.encode(), _STATE.encode()))

# Section 3.2.2: version 00 has nothing behind the flags; a later one may, after another hyphen.
_TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})"
    r"-(?P<parent>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
# Sampled, and random (level 2).
_KNOWN_FLAGS = 0x03

# Section 3.3.1: at most 32 members, each key once.
_MEMBER = re.compile(
    r"(?P<key>[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MAX_MEMBERS = 32


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, and relproxy's part of it: `parent` has caused `span`. Ids are lower-case hex."""

    id: str
    parent: str
    span: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether who began the trace keeps it."""
        return bool(self.flags & 0x01)


def read_trace(headers: Headers) -> Trace | None:
    """Return the trace that a request belongs to; None without one, or if it can't be read."""
    fields = headers.values(_PARENT)
    found = _TRACEPARENT.fullmatch(fields[0]) if len(fields) == 1 else None
    if found is None or (found["more"] is not None and found["version"] == "00"):
        return None
    flags = int(found["flags"], 16) & _KNOWN_FLAGS
    return Trace(found["trace"], found["parent"], _new_span_id(), flags)


def continued(headers: Headers, trace: Trace | None) -> Headers:
    """Return the headers with which a request goes on as a part of its trace."""
    if not any(name.lower() in _NAMES for name, _ in headers.pairs):
        return headers
    if trace is None:
        return headers.without((_PARENT, _STATE))
    parent = f"00-{trace.id}-{trace.span}-{trace.flags:02x}"
    headers = headers.with_replaced(_PARENT, parent)
    return headers if _is_state(headers) else headers.without((_STATE,))


def _is_state(headers: Headers) -> bool:
    """Tell whether what the headers say of the trace's state can be read."""
    members = [m.strip(" \t") for field in headers.values(_STATE) for m in field.split(",")]
    found = [_MEMBER.fullmatch(member) for member in members if member]
    keys = [member["key"] for member in found if member is not None]
    return len(keys) == len(found) <= _MAX_MEMBERS and len(set(keys)) == len(keys)


def _new_span_id() -> str:
    return f"{secrets.randbits(64) or 1:016x}"
