"""Places at which a test may end the process, as power loss would: between two writes.

Off unless `RELPROXY_FAILPOINT` names one, as NAME or NAME:COUNT (the how-manieth time it is
reached); then the process kills itself there. `NAMES` are on the way of a create, `ON_A_WALK`
on that of `relproxy import` and `relproxy reconcile`.
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "before-begin",
    "after-begin",
    "before-answer-read",
    "before-complete",
    "after-complete",
    "before-put",
    "after-put",
    "before-delivered",
    "after-delivered",
)
ON_A_WALK = ("before-note", "after-note", "before-told")


def _armed_by(text: str) -> tuple[str, int] | None:
    name, _, count = text.partition(":")
    return (name, int(count or 1)) if name in (*NAMES, *ON_A_WALK) else None


_armed = _armed_by(os.environ.get("RELPROXY_FAILPOINT", ""))
_reached = 0


def failpoint(name: str) -> None:
    """End the process if this is the place that a test has named."""
    if _armed is not None:
        _reach(name, *_armed)


def _reach(name: str, armed: str, count: int) -> None:
    global _reached  # noqa: PLW0603 - one process, one failpoint
    if name == armed:
        _reached += 1
        if _reached == count:
            os.kill(os.getpid(), signal.SIGKILL)
