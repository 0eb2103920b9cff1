"""Handing the entries of one journal over to another, a page at a time.

A page is durable in the journal that takes it before it is removed from the one that gives it: a
crash in between leaves it in both, and the further copy holds. What changed in between, because a
person settled it, is handed over once more. A journal that gives says so first: whoever reads a
host's journals one after the other may miss what is on its way in both, and then looks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_row import Row

# A short transaction: the creates of the worker that takes them wait for it.
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class HandedPage:
    """Entries on their way; see `JournalFile.adopt`."""

    rows: list[Row]
    identity: str | None
    is_owed: bool


class Handover:
    """A journal that gives its entries, open and its place held."""

    def __init__(self, file: JournalFile, *, ended_after: datetime) -> None:
        """Have it give all that is open, and what ended after then."""
        self._file = file
        self._ended_after = ended_after
        file.leave()
        self._was_owed = file.owed.is_any()

    def page(self) -> HandedPage | None:
        """Return what is next; None where nothing is left."""
        rows = self._file.some(at_most=_AT_ONCE, ended_after=self._ended_after)
        if not rows:
            return None
        return HandedPage(rows, self._file.identity(), self._file.owed.is_any())

    def forget(self, page: HandedPage) -> None:
        """Remove what the other journal has; raises `sqlite3.Error`."""
        (result,) = self._file.together([lambda: self._file.forget(page.rows)])
        if isinstance(result, Exception):
            raise result

    def is_owed_since(self) -> bool:
        """Tell whether somebody has asked meanwhile that everything be put again."""
        return self._file.owed.is_any() and not self._was_owed

    def close(self) -> None:
        """Close the file."""
        self._file.close()
