"""How far a command has come: a bar on a terminal, plain lines elsewhere, on standard error."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BAR = 24
# On a terminal so often, in seconds.
_DRAWN_EVERY_S = 0.2
# Elsewhere after so many more.
_SAID_EVERY = 5000


class ProgressLine:
    """Says how far something has come; `close` it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._doing = ""
        self._done = 0
        self._drawn_at = 0.0

    def say(self, doing: str, done: int, *, share: float | None) -> None:
        """Say that so many are done, `share` (0 to 1) of all as far as that is known."""
        if self._is_terminal:
            self._draw(doing, done, share)
        elif doing != self._doing or done - self._done >= _SAID_EVERY:
            print(f"{done} {doing}{_percent(share)}", file=self._stream, flush=True)
            self._done = done
        self._doing = doing

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._is_terminal and self._doing:
            print(file=self._stream, flush=True)

    def _draw(self, doing: str, done: int, share: float | None) -> None:
        now = time.monotonic()
        if now - self._drawn_at < _DRAWN_EVERY_S and doing == self._doing:
            return
        self._drawn_at = now
        bar = "" if share is None else f"[{'#' * round(share * _BAR):{_BAR}}] "
        # To the line's end, because what stood there may be longer.
        line = f"\r{bar}{done} {doing}{_percent(share)}\x1b[K"
        print(line, end="", file=self._stream, flush=True)


def _percent(share: float | None) -> str:
    return "" if share is None else f", about {share:.0%}"
