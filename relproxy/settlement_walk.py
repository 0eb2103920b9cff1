"""The settlement's way through one registry's entries, and when each is asked for again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 300.0


@dataclass(slots=True)
class Walk:
    """The way through one registry's entries, some at a time and over and over.

    `reached` is the entry behind which it goes on, None stands for the beginning; `task` is the
    last that went on.
    """

    reached: str | None = None
    task: asyncio.Task[None] | None = None
    # Entry id -> how often it was asked for, and when it is next (seconds, monotonic).
    _asked: dict[str, tuple[int, float]] = field(default_factory=dict)

    def is_over(self) -> bool:
        """Tell whether nobody goes on; raises what nobody foresaw if that ended the last."""
        if self.task is not None and self.task.done():
            self.task.result()
        return self.task is None or self.task.done()

    def is_due(self, entry_id: str) -> bool:
        """Tell whether it is time to ask for an entry."""
        return time.monotonic() >= self._asked.get(entry_id, (0, 0.0))[1]

    def put_off(self, entry_id: str) -> None:
        """Say that an entry is being asked for: the next time is later each time."""
        asked, _ = self._asked.get(entry_id, (0, 0.0))
        pause_s = min(_LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(asked, 10))
        self._asked[entry_id] = (asked + 1, time.monotonic() + pause_s)

    def forget(self, entry_id: str) -> None:
        """Say that an entry is settled."""
        self._asked.pop(entry_id, None)
