"""How gently a walk asks: so much a second, whatever the registry could do."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """Spreads work evenly: `per_s` units of it a second, and never more at once to catch up."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._due = time.monotonic()

    async def wait(self, cost: float) -> None:
        """Wait until what was asked before has been paid for; then this is owed."""
        now = time.monotonic()
        if self._due > now:
            await asyncio.sleep(self._due - now)
        self._due = max(now, self._due) + cost / self._per_s
