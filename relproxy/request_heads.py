"""The head of a request while it arrives: how much of it may be here, and how long it may take.

aiohttp's parser holds each field up to its own limit, and as many as it takes: four megabytes of a
head that never ends, for as long as its client likes. So what came of one is counted before it is
whole. What has come together with the end of the message before is not: it is one read at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ArrivingHead:
    """Counts what has arrived of a head on one connection, and watches the clock."""

    def __init__(self, head_s: float, late: Callable[[], None]) -> None:
        self._head_s = head_s
        self._late = late
        self._bytes = 0
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """How much has come; nothing where none has begun."""
        return self._bytes

    def took(self, data: bytes) -> None:
        """Count what belongs to a head that isn't whole."""
        # A line end too many after a body is no beginning.
        if self._bytes == 0 and not data.strip(b"\r\n"):
            return
        self._bytes += len(data)
        if self._deadline is None:
            # For the whole of it: a byte now and then wins no time.
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._head_s, self._late)

    def is_whole(self) -> None:
        """Forget a head that has arrived, or will not."""
        self._bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
