"""The journal: a local write-ahead log of creates, so that none is lost on its way to the store.

Theory of operation. A create that needs a record is written down *before* it leaves for the
registry (BEGUN), and what the registry answered before the client reads it (COMPLETED). From then
on the record can't be lost with this process, with the store, or by a power failure; only with the
journal's own disk. The relay takes completed entries to the store (DELIVERED), in their order, as
often as it takes. A create that the registry refused is ABANDONED: its entry is removed, because
anybody can have as many refused as he likes. Whatever may have been done and isn't known to be (a
broken answer, a 5xx, a process that died) is IN_DOUBT, until the registry itself is asked
(`relproxy/settlement.py`) or a person says what is so. If that is nothing it is ABANDONED too, and
kept for a while: another copy of it may be on its way from a dead worker's journal.

    BEGUN ----> COMPLETED ----> DELIVERED ----> (kept for a while, then forgotten)
      | |           ^  ^            |
      | |           |  +------------+  it was put again to another server, which didn't take it
      | +-> IN_DOUBT+
      |         |
      |         +-> ABANDONED ----> (kept for a while, then forgotten)
      +-----------> ABANDONED       (forgotten at once)

What was delivered to a server that was replaced since is put again, and stays DELIVERED meanwhile
(`journal_owed.py`). An entry that the store never takes is parked: COMPLETED, and passed over by
the relay until a person settles it; everybody who reads the journals still sees it. A completed one
of which the disk has lost a part is IN_DOUBT again.

A change of an owner goes the same way; of those of one image in doubt the youngest asks for all. A
deletion is written down once it is done: it begins as COMPLETED.

Each worker process has a file of its own (`journal_file.py`) and one thread that writes it. Group
commit: while one transaction is being synced, what else arrives waits together for the next.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from relproxy.errors import JournalUnavailableError, RecordNotKeptError
from relproxy.failpoints import failpoint
from relproxy.model import CreatedImage, Intent
from relproxy.store.base import Entry, EntryKind, EntryState
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_handover import HandedPage
from relproxy.store.journal_owed import OwedPage
from relproxy.store.journal_row import NONSENSE, Row, WrongStateError

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")

NEXT: Mapping[EntryState, tuple[EntryState, ...]] = {
    EntryState.BEGUN: (EntryState.COMPLETED, EntryState.ABANDONED, EntryState.IN_DOUBT),
    EntryState.IN_DOUBT: (EntryState.COMPLETED, EntryState.ABANDONED),
    EntryState.COMPLETED: (EntryState.DELIVERED,),
    EntryState.DELIVERED: (EntryState.COMPLETED,),
    EntryState.ABANDONED: (),
}

# Works of one transaction: more would only make those wait that came first.
_MAX_TOGETHER = 500
# No column of Glance's holds more (glance/db/sqlalchemy/models.py), and any index holds that much.
_LONGEST = 255
# No text of PostgreSQL's holds a NUL, and half a pair of UTF-16 is nothing in UTF-8.
_UNFIT = re.compile("[\0\ud800-\udfff]")
# How many entries one look at the file takes in.
_BATCH = 500


def before(state: EntryState) -> tuple[EntryState, ...]:
    """Return the states that `state` may follow."""
    return tuple(old for old, following in NEXT.items() if state in following)


class LocalJournal:
    """One worker's journal."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._queue: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None
        # Entries whose create is under way in this process: nobody else's to settle.
        self._under_way: set[str] = set()
        self._is_closed = False
        self._doubted = asyncio.Event()

    async def close(self) -> None:
        """Finish what is being written, then close the file; harmless if it is closed."""
        if self._is_closed:
            return
        self._is_closed = True
        while self._writer is not None:
            await asyncio.wait((self._writer,))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown()

    # -- the flow's verbs

    async def begin(self, intent: Intent, kind: EntryKind = EntryKind.CREATE) -> Entry:
        """Make an intent durable. Raises `JournalUnavailableError`."""
        failpoint("before-begin")
        entry = new_entry(kind, intent)
        row = _begun(entry)
        self._under_way.add(entry.id)
        try:
            await self._written(lambda: self._file.add([row]))
        except BaseException:
            # It may be durable all the same: then it is settled like any other.
            self._under_way.discard(entry.id)
            raise
        failpoint("after-begin")
        return entry

    async def complete(
        self, entry: Entry, image: CreatedImage, *, at: datetime | None = None
    ) -> None:
        """Make durable what the registry made; an entry in doubt may be completed too.

        `at` is when the registry was asked; None stands for now. Raises `JournalUnavailableError`,
        `WrongStateError` if the entry has ended otherwise, and `RecordNotKeptError` if nobody is
        known to own the image.
        """
        project = image.owner or entry.intent.caller_project
        if project is None:
            raise RecordNotKeptError(f"Nobody is known to own image {image.id}: it isn't recorded.")
        check_recordable(image, project)
        failpoint("before-complete")
        moment = at or datetime.now(UTC)
        await self._written(
            lambda: self._file.complete(
                entry.id, before(EntryState.COMPLETED)[:2], image, project=project, at=moment
            )
        )
        self._under_way.discard(entry.id)
        failpoint("after-complete")

    async def abandon(self, entry: Entry, reason: str | None = None) -> None:
        """Give an intent up; if that can't be written, it is left to be settled."""
        await self._moved(entry, EntryState.ABANDONED, reason)

    async def doubt(self, entry: Entry, reason: str) -> None:
        """Leave an intent to be settled."""
        intent = entry.intent
        told = {"registry": intent.registry, "image_id": intent.image_id, "reason": reason}
        _LOG.warning("create in doubt", extra={"entry": entry.id, **told})
        await self._moved(entry, EntryState.IN_DOUBT, reason)
        self._doubted.set()

    async def bury(self, entry: Entry, created_at: str | None = None) -> None:
        """Make durable that an image is gone; raises `JournalUnavailableError`.

        `created_at` says which of those that had its id, where that is known.
        """
        begun = _begun(entry, EntryState.COMPLETED, at=entry.begun_at)
        row = replace(begun, created_at=created_at)
        await self._written(lambda: self._file.add([row]))

    async def _moved(self, entry: Entry, state: EntryState, reason: str | None) -> None:
        try:
            await self._written(lambda: self._file.move(entry.id, before(state), state, reason))
        except (JournalUnavailableError, WrongStateError) as failure:
            # It stays BEGUN, or is what somebody else has made of it: the settlement finds it.
            _LOG.warning(
                "entry not moved",
                extra={"entry": entry.id, "state": state.value, "reason": repr(failure)},
            )
        finally:
            self._under_way.discard(entry.id)

    # -- the relay's

    async def pending(self, *, beyond: int = 0) -> list[Row]:
        """Return the oldest entries that are to be put, a batch, behind so many that are older."""
        return await self._read(lambda: self._file.pending(at_most=_BATCH, beyond=beyond))

    async def deliver(self, rows: Sequence[Row]) -> None:
        """Mark entries as delivered."""
        ids = [row.id for row in rows]
        await self._written(lambda: self._file.deliver(ids))

    async def reopen(self, rows: Sequence[Row]) -> None:
        """Have entries settled once more, of which a part is lost."""
        ids = [row.id for row in rows]
        await self._written(lambda: self._file.reopen(ids))
        self._doubted.set()

    async def park(self, row: Row, reason: str) -> None:
        """Leave to a person what the store refuses."""
        await self._written(lambda: self._file.park(row.id, reason))

    async def count_parked(self) -> int:
        """Return how many entries are parked."""
        return await self._read(self._file.count_parked)

    async def identity(self) -> str | None:
        """Return the identity of the server to which the delivered entries went."""
        return await self._read(self._file.identity)

    async def remember_identity(self, identity: str, *, and_put_again: bool) -> None:
        """Keep the identity of the store's server; it may lack what another one has taken."""
        await self._written(
            lambda: self._file.remember_identity(identity, and_put_again=and_put_again)
        )

    async def owed(self) -> OwedPage | None:
        """Return what is to be put again next; None where nothing is."""
        return await self._read(lambda: self._file.owed.page(at_most=_BATCH))

    async def pay(self, page: OwedPage, *, and_reclaim: Sequence[Row] = ()) -> None:
        """Owe a page no longer; the entries to be reclaimed are pending from now on."""

        def work() -> None:
            self._file.reclaim(and_reclaim)
            self._file.owed.pay(page)

        await self._written(work)

    async def purge(self, *, ended_before: datetime) -> int:
        """Forget a batch of entries that ended before then."""
        forgotten: int = await self._written(
            lambda: self._file.purge(ended_before=ended_before, at_most=_BATCH)
        )
        return forgotten

    # -- the settlement's

    async def doubts(self) -> Mapping[str, int]:
        """Return how many entries of each registry are to be settled.

        Those that nobody is at work on any more become so.
        """
        begun = await self._read(lambda: self._file.in_state(EntryState.BEGUN, at_most=_BATCH))
        left = [row for row in begun if row.id not in self._under_way]
        for row in left:
            await self.doubt(row.entry, "relproxy ended, or lost its disk, before the answer came")
        return await self._read(self._file.doubts)

    async def in_doubt(
        self, registry: str, *, behind: str | None = None, at_most: int = _BATCH
    ) -> list[Row]:
        """Return the oldest entries of one registry to be settled, after the entry `behind`."""
        return await self._read(lambda: self._file.in_doubt(registry, behind, at_most=at_most))

    async def has_doubts(self, *, within_s: float) -> None:
        """Wait until an entry has become doubtful since the last call, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._doubted.wait()
        self._doubted.clear()

    async def explain(self, entry: Entry, reason: str) -> None:
        """Say why an entry is still in doubt."""
        await self._written(lambda: self._file.explain(entry.id, reason))

    async def adopt(self, page: HandedPage) -> None:
        """Take over entries of another journal; of one that is here the further copy holds."""
        await self._written(
            lambda: self._file.adopt(page.rows, page.identity, is_owed=page.is_owed)
        )

    async def rename_registries(self, names: Mapping[str, str]) -> None:
        """Have what is open name registries as they are called now: old name -> new."""
        if names:
            await self._written(lambda: self._file.rename_registries(names))
            self._doubted.set()

    async def put_again(self) -> None:
        """Have everything put again that is delivered or parked."""
        await self._written(self._file.put_again)

    # -- the thread

    async def _read(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError, RuntimeError, *NONSENSE) as failure:
            raise JournalUnavailableError("The journal can't be read now.") from failure

    async def _written(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` in the next transaction, and return its result once that is durable."""
        if self._is_closed:
            raise JournalUnavailableError("relproxy is shutting down.")
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._queue.append((work, future))
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="journal")
        return await future

    async def _write(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[:_MAX_TOGETHER], self._queue[_MAX_TOGETHER:]
                works = [work for work, _ in batch]
                try:
                    results: list[Any] = await asyncio.get_running_loop().run_in_executor(
                        self._thread, self._file.together, works
                    )
                except Exception as failure:  # noqa: BLE001 - it is each one's own result
                    # Nobody waits for ever, whatever went wrong (no memory, say).
                    results = [OSError(repr(failure))] * len(batch)
                for (_, future), result in zip(batch, results, strict=True):
                    _settle(future, result)
        finally:
            self._writer = None


def check_recordable(image: CreatedImage, project: str) -> None:
    """Raise `RecordNotKeptError` for an image of which no store could keep what is said of it."""
    for what, said in (("id", image.id), ("created_at", image.created_at), ("owner", project)):
        if len(said) > _LONGEST:
            raise RecordNotKeptError(
                f"The image's {what} has {len(said)} characters, and {_LONGEST} can be kept: it "
                "isn't recorded."
            )
        if _UNFIT.search(said):
            raise RecordNotKeptError(
                f"The image's {what} holds what is no character: it isn't recorded."
            )


def new_entry(kind: EntryKind, intent: Intent) -> Entry:
    """Return an entry that nobody has written yet."""
    return Entry(str(uuid.uuid4()), kind, intent, datetime.now(UTC))


def _settle(future: asyncio.Future[Any], result: Any) -> None:  # noqa: ANN401 - anybody's result
    if future.done():
        return
    if isinstance(result, sqlite3.Error | OSError):
        failure = JournalUnavailableError(
            "The record of this request can't be made durable now: try again later."
        )
        failure.__cause__ = result
        future.set_exception(failure)
    elif isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _begun(
    entry: Entry, state: EntryState = EntryState.BEGUN, *, at: datetime | None = None
) -> Row:
    intent = entry.intent
    return Row(
        id=entry.id,
        kind=entry.kind,
        state=state,
        registry=intent.registry,
        image_id=intent.image_id and intent.image_id.lower(),
        is_assigned=intent.is_assigned,
        image_name=intent.image_name,
        created_at=None,
        project=intent.caller_project,
        capture=intent.capture,
        begun_at=entry.begun_at,
        at=at,
    )
