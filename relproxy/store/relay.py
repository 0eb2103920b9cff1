"""The relay: takes completed entries of this worker's journal to the store, in their order.

At least once: an entry is marked as delivered after the store has made it durable, and if that mark
is lost it is put again, which changes nothing there. One batch at a time keeps the order, per image
and altogether. When the store is away the relay waits longer each time; nothing is lost meanwhile.

A standby that was promoted after asynchronous replication lacks the last commits. So the store says
which server took a batch, and if that isn't the one that took those before, everything that the
journal still has is put again, some at a time between new batches.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from relproxy.errors import (
    JournalUnavailableError,
    RecordRefusedError,
    RelproxyError,
    StoreUnavailableError,
)
from relproxy.failpoints import failpoint
from relproxy.metrics import Metrics
from relproxy.store.base import Delivery, Store
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_row import Row

_LOG = logging.getLogger(__name__)

# A person may settle an entry beside this process, and a server may be replaced while nothing
# is put: both are noticed within this time.
_LOOK_S = 2.0
_FLUSH_S = 5.0
_PURGE_S = 60.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
# A batch that fails so often while the store answers is put in parts.
_FAILURES_BEFORE_APART = 3
# A store that can be read and not written is slow to refuse: so long it is tried to take anything.
_APART_S = 10.0
_LONGEST_REASON = 500
# A short transaction: creates wait for it on SQLite.
_PURGED_AT_ONCE = 200

# What entries have to keep their order of: registry and image id.
_Image = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Terms:
    """How long the relay waits for the store, and how long what is over stays. Seconds and days."""

    confirm_wait_s: float
    keep_delivered_s: float
    keep_deleted_days: float


class Relay:
    """Delivers, and tells who waits for it."""

    def __init__(self, journal: LocalJournal, store: Store, metrics: Metrics, terms: Terms) -> None:
        self._journal = journal
        self._store = store
        self._metrics = metrics
        self._confirm_wait_s = terms.confirm_wait_s
        self._keep_delivered = timedelta(seconds=terms.keep_delivered_s)
        self._keep_deleted = timedelta(days=terms.keep_deleted_days)
        self._woken = asyncio.Event()
        self._awaited: dict[str, asyncio.Event] = {}
        self._failures = 0
        self._purges = True
        self._owes = True
        self._knows_names = False

    @property
    def is_well(self) -> bool:
        """Tell whether the last batch went through."""
        return self._failures == 0

    @property
    def keep_delivered(self) -> timedelta:
        """How long what is over stays in the journal."""
        return self._keep_delivered

    def wake(self) -> None:
        """Say that there may be something to deliver."""
        self._woken.set()

    def take_over(self) -> None:
        """Say that entries of another journal have come."""
        self._knows_names = False
        self.wake()

    @contextmanager
    def expected(self, entry_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set when the store has the entry."""
        event = self._awaited.setdefault(entry_id, asyncio.Event())
        try:
            yield event
        finally:
            self._awaited.pop(entry_id, None)

    async def confirmed(self, event: asyncio.Event) -> Delivery:
        """Wait for the store, as long as is configured, and not at all while it is away."""
        self.wake()
        if not self.is_well:
            return Delivery.PENDING
        with suppress(TimeoutError):
            async with asyncio.timeout(self._confirm_wait_s):
                await event.wait()
        return Delivery.CONFIRMED if event.is_set() else Delivery.PENDING

    async def run(self) -> None:
        """Deliver until cancelled."""
        purged_at = looked_at = time.monotonic()
        looks = True
        while True:
            try:
                looks = looks or time.monotonic() - looked_at > _LOOK_S
                looked_at = time.monotonic() if looks else looked_at
                moved = await self._put_owed() if looks or self._owes else 0
                moved += await self._deliver(looks=looks)
                await self._learn_names()
                looks = False
            except (StoreUnavailableError, JournalUnavailableError) as failure:
                await self._pause(failure)
                looks = True
            else:
                self._recovered()
                # A little each time: what arrives meanwhile doesn't wait for all of it.
                if time.monotonic() - purged_at > _PURGE_S:
                    if purged := await self._purged():
                        moved += purged
                    else:
                        purged_at = time.monotonic()
                if not moved:
                    looks = await self._is_quiet_for(_LOOK_S)

    async def flush(self) -> None:
        """Deliver what is left, once; raises nothing, because the journal keeps what stays."""
        with suppress(RelproxyError, TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                while await self._deliver(looks=False):
                    pass

    async def _learn_names(self) -> None:
        """Call what is open by the names that registries have now: they are settled by these."""
        if not self._knows_names:
            # Before: what is taken over meanwhile may have old names once more.
            self._knows_names = True
            try:
                await self._journal.rename_registries(await self._store.renamed())
            except BaseException:
                self._knows_names = False
                raise

    async def _deliver(self, *, looks: bool) -> int:
        """Take one batch to the store; return how many entries it was.

        Where there is none and it `looks`, the store is asked all the same, for who it is.
        """
        rows = await self._pending()
        if looks:
            self._metrics.journal_parked.set(await self._journal.count_parked())
        if not rows:
            self._metrics.relay_lag_seconds.set(0)
        else:
            lag = datetime.now(UTC) - min(row.at or row.begun_at for row in rows)
            self._metrics.relay_lag_seconds.set(max(0.0, lag.total_seconds()))
        if self._failures >= _FAILURES_BEFORE_APART and len(rows) > 1:
            return await self._deliver_apart()
        if not rows and not looks:
            return 0
        try:
            # Where another server has taken the store's place, they are put to it once more.
            return len(rows) if await self._put(rows) else 1
        except RecordRefusedError:
            return await self._deliver_apart()

    async def _pending(self, *, beyond: int = 0) -> list[Row]:
        """Return entries that are to be put; of what is lost of others the registry is asked."""
        rows = await self._journal.pending(beyond=beyond)
        if lost := [row for row in rows if not row.is_whole]:
            _LOG.error("entries reopened", extra={"entries": [row.id for row in lost]})
            await self._journal.reopen(lost)
            rows = [row for row in rows if row.is_whole]
        return rows

    async def _put(self, rows: Sequence[Row]) -> bool:
        """Put entries together and mark them as delivered, but for a server that is a new one."""
        if rows:
            failpoint("before-put")
        started = time.monotonic()
        identity = await self._store.put([row.change for row in rows])
        if rows:
            failpoint("after-put")
            self._metrics.relay_put_seconds.observe(time.monotonic() - started)
        if await self._is_replaced(identity):
            return False
        if not rows:
            return True
        for row in rows:
            if (event := self._awaited.get(row.id)) is not None:
                event.set()
        failpoint("before-delivered")
        await self._journal.deliver(rows)
        failpoint("after-delivered")
        self._metrics.relay_delivered.inc(len(rows))
        return True

    async def _deliver_apart(self) -> int:
        """Put everything that is pending, but for what the store doesn't take.

        Of an image of which one entry isn't taken, nothing later is put: the order is kept.
        """
        started = time.monotonic()
        moved = stays = 0
        held: set[_Image] = set()
        while rows := await self._pending(beyond=stays):
            taken = await self._put_apart(rows, held, None if moved else started + _APART_S)
            moved += taken
            stays += len(rows) - taken
            if moved and (not held or time.monotonic() > started + _APART_S):
                # The rest is delivered as ever, or once it is put apart again.
                break
        if not moved:
            raise StoreUnavailableError("The store takes none of the journal's entries.")
        return moved

    async def _put_apart(self, rows: Sequence[Row], held: set[_Image], until: float | None) -> int:
        """Put entries in ever smaller parts; add to `held` the images of those that stay.

        Raises `StoreUnavailableError` if it is away, or has taken none `until` then.
        """
        moved = 0
        parts = [rows]
        while parts:
            part = [row for row in parts.pop() if _image(row) not in held]
            if not part:
                continue
            try:
                moved += len(part) if await self._put(part) else 0
            except RecordRefusedError as failure:
                if len(part) == 1:
                    await self._park(part[0], failure)
                    moved += 1
                else:
                    parts += _halves(part)
            except StoreUnavailableError as failure:
                # Nothing is learnt of an entry from a store that takes none.
                await self._store.check()
                if until is not None and not moved and time.monotonic() > until:
                    raise
                if len(part) > 1:
                    parts += _halves(part)
                    continue
                held.add(_image(part[0]))
                _LOG.error(
                    "store refuses an entry",
                    extra={"entry": part[0].id},
                    exc_info=failure.__cause__,
                )
        return moved

    async def _park(self, row: Row, failure: RecordRefusedError) -> None:
        why = f"the store refuses it: {failure.__cause__!r}"[:_LONGEST_REASON]
        _LOG.error("entry parked", extra={"entry": row.id, "reason": why}, exc_info=failure)
        await self._journal.park(row, why)

    async def _is_replaced(self, identity: str | None) -> bool:
        """See whether another server has taken the place of the one that took entries before."""
        if identity is None:
            return False
        known = await self._journal.identity()
        if known == identity:
            return False
        await self._journal.remember_identity(identity, and_put_again=known is not None)
        if known is not None:
            self._owes = True
            _LOG.warning(
                "store's server was replaced, entries are put again",
                extra={"known": known, "found": identity},
            )
        return known is not None

    async def _put_owed(self) -> int:
        """Put again some of what another server had taken; return how many entries it was."""
        page = await self._journal.owed()
        self._owes = page is not None
        if page is None:
            return 0
        rows = [row for row in page.rows if row.is_whole]
        try:
            identity = await self._store.put([row.change for row in rows])
        except StoreUnavailableError as failure:
            if not isinstance(failure, RecordRefusedError):
                if self._failures < _FAILURES_BEFORE_APART:
                    raise
                await self._store.check()
            # What this server takes of them is found out as for any others.
            await self._journal.pay(page, and_reclaim=rows)
            return 1
        if not await self._is_replaced(identity):
            await self._journal.pay(page)
            self._metrics.relay_put_again.inc(len(rows))
        return 1

    async def purge(self) -> int:
        """Forget some of what is older than configured; return how much it was.

        That is entries of the journal and records of deleted images. Raises
        `JournalUnavailableError` and `StoreUnavailableError`.
        """
        now = datetime.now(UTC)
        entries = await self._journal.purge(ended_before=now - self._keep_delivered)
        records = await self._store.purge(
            deleted_before=now - self._keep_deleted, at_most=_PURGED_AT_ONCE
        )
        self._metrics.records_purged.inc(records)
        return entries + records

    async def _purged(self) -> int:
        """Purge; a failure is no delivery's, and the next time is early enough to try again."""
        try:
            purged = await self.purge()
        except (StoreUnavailableError, JournalUnavailableError) as failure:
            if self._purges:
                _LOG.warning("nothing purged", extra={"reason": failure.sentence}, exc_info=failure)
            self._purges = False
            return 0
        self._purges = True
        return purged

    async def _pause(self, failure: RelproxyError) -> None:
        self._failures += 1
        self._metrics.relay_failures.inc()
        if self._failures == 1:
            _LOG.warning(
                "relay can't deliver", extra={"reason": failure.sentence}, exc_info=failure
            )
        # For the whole time: what arrives meanwhile is no reason to ask a store that is away.
        await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._failures, 10)))

    def _recovered(self) -> None:
        if self._failures:
            _LOG.info("relay delivers again", extra={"failures": self._failures})
        self._failures = 0

    async def _is_quiet_for(self, seconds: float) -> bool:
        """Wait to be woken; True if nobody did."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return True
        self._woken.clear()
        return False


def _halves(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the later half and the earlier: the last of a stack is the next."""
    half = len(rows) // 2
    return rows[half:], rows[:half]


def _image(row: Row) -> _Image:
    return row.registry, row.image_id
