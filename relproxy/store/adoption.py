"""Taking over the journals of workers that have died: no entry waits for its own worker's return.

The entries are copied into this worker's journal first; the file they came from goes a round later,
when nobody who reads the host's journals one after the other can still miss them in both.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import replace

from relproxy.errors import RelproxyError
from relproxy.metrics import Metrics
from relproxy.store.base import EntryState
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_room import JournalRoom, Slot, open_journal, remove
from relproxy.store.journal_row import NONSENSE, Row
from relproxy.store.relay import Relay

_LOG = logging.getLogger(__name__)

_ROUND_S = 5.0
# A short transaction: this worker's creates wait for it.
_ADOPTED_AT_ONCE = 200


class Adoption:
    """Looks for journals that nobody holds."""

    def __init__(
        self, room: JournalRoom, journal: LocalJournal, relay: Relay, metrics: Metrics
    ) -> None:
        self._room = room
        self._journal = journal
        self._relay = relay
        self._metrics = metrics
        self._emptied: list[Slot] = []

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except OSError as failure:
                    _LOG.warning("journals not adopted", exc_info=failure)
                await asyncio.sleep(_ROUND_S)
        finally:
            self.close()

    def close(self) -> None:
        """Give up the places whose files are still to be removed."""
        while self._emptied:
            self._emptied.pop().release()

    async def look(self) -> int:
        """Adopt what is idle now; return how many entries it was."""
        while self._emptied:
            remove(self._emptied[-1])
            self._emptied.pop()
        adopted = 0
        for slot in self._room.idle():
            try:
                adopted += await self._adopt(slot)
            except (RelproxyError, sqlite3.Error, OSError, *NONSENSE) as failure:
                # Its entries stay where they are; it is tried again in the next round.
                slot.release()
                _LOG.error(
                    "journal not adopted",
                    extra={"path": str(slot.path), "reason": str(failure)},
                    exc_info=failure,
                )
        return adopted

    async def _adopt(self, slot: Slot) -> int:
        rows = await asyncio.to_thread(_rows_of, slot, await self._journal.identity())
        for start in range(0, len(rows), _ADOPTED_AT_ONCE):
            await self._journal.adopt(rows[start : start + _ADOPTED_AT_ONCE])
        self._emptied.append(slot)
        if slot.was_broken:
            self._metrics.journals_broken.inc()
        _LOG.warning("journal adopted", extra={"path": str(slot.path), "entries": len(rows)})
        self._relay.wake()
        return len(rows)


def _rows_of(slot: Slot, identity: str | None) -> list[Row]:
    """Return a journal's entries as this worker is to take them."""
    file = open_journal(slot)
    try:
        rows = file.everything()
        if file.identity() == identity:
            return rows
        # Delivered to a server of which this worker doesn't know whether it is still the one.
        return [_undelivered(row) for row in rows]
    finally:
        file.close()


def _undelivered(row: Row) -> Row:
    if row.state is not EntryState.DELIVERED:
        return row
    return replace(row, state=EntryState.COMPLETED, ended_at=None)
