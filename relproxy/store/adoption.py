"""Taking over the journals of workers that have died: no entry waits for a worker's return."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from relproxy.errors import RelproxyError
from relproxy.metrics import Metrics
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_handover import Handover
from relproxy.store.journal_room import JournalRoom, Slot, open_journal, remove
from relproxy.store.journal_row import NONSENSE
from relproxy.store.relay import Relay

_LOG = logging.getLogger(__name__)

_ROUND_S = 5.0
_Result = TypeVar("_Result")


class Adoption:
    """Looks for journals that nobody holds."""

    def __init__(
        self, room: JournalRoom, journal: LocalJournal, relay: Relay, metrics: Metrics
    ) -> None:
        self._room = room
        self._journal = journal
        self._relay = relay
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="adoption")

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
        """Give up the thread that reads them."""
        self._thread.shutdown(wait=False)

    async def look(self) -> int:
        """Adopt what is idle now; return how many entries it was."""
        adopted = 0
        for slot in self._room.idle():
            try:
                adopted += await self._adopt(slot)
                await self._run(lambda slot=slot: remove(slot))  # type: ignore[misc]
            except (RelproxyError, sqlite3.Error, OSError, *NONSENSE) as failure:
                # What is left stays where it is; it is tried again in the next round.
                _LOG.error(
                    "journal not adopted",
                    extra={"path": str(slot.path), "reason": str(failure)},
                    exc_info=failure,
                )
            finally:
                slot.release()
        return adopted

    async def _adopt(self, slot: Slot) -> int:
        ended_after = datetime.now(UTC) - self._relay.keep_delivered
        handover = await self._run(lambda: Handover(open_journal(slot), ended_after=ended_after))
        if slot.was_broken:
            self._metrics.journals_broken.inc()
        adopted = 0
        try:
            while (page := await self._run(handover.page)) is not None:
                await self._journal.adopt(page)
                await self._run(lambda page=page: handover.forget(page))  # type: ignore[misc]
                adopted += len(page.rows)
                self._relay.take_over()
            if await self._run(handover.is_owed_since):
                await self._journal.put_again()
        finally:
            await self._run(handover.close)
        _LOG.warning("journal adopted", extra={"path": str(slot.path), "entries": adopted})
        return adopted

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
