"""Settling entries in doubt: the registry itself is asked what became of a create.

    the registry shows the image, relproxy chose its id         -> completed
    it shows the image, the client chose its id                 -> completed if no live record holds
                                                                   it, no other create can have made
                                                                   it, and time and owner fit
    no id is known                                              -> the same, if exactly one image of
                                                                   its name fits
    (relproxy didn't choose the id, a stranger sent it)         -> abandoned, whatever it shows
    it hides no image from relproxy, and says 404 long after
    it can still be at work on it                               -> abandoned
    anything else                                               -> asked again, ever more rarely

What can't be settled so waits for a person (`relproxy journal settle`). Settling never steals: a
live record's project is not changed by it, and what another create may have made is not taken. So
the registry is asked first, then this host's journals, then the store: what made an image was in a
journal before the registry had it, and leaves that for the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from relproxy.bodies import whole_response
from relproxy.config import Limits
from relproxy.errors import (
    JournalUnavailableError,
    RegistryTimeoutError,
    RelproxyError,
    StoreUnavailableError,
)
from relproxy.filters.base import Dialect, Page, check_named, created_from
from relproxy.filters.headers import identity_headers
from relproxy.messages import Headers
from relproxy.metrics import Metrics
from relproxy.model import Caller, CreatedImage
from relproxy.settlement_walk import FIRST_PAUSE_S, Walk
from relproxy.store.base import EntryKind, OwnerLookup
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_row import Row, WrongStateError
from relproxy.store.relay import Relay
from relproxy.tasks import TaskSet
from relproxy.upstream import Upstream

_LOG = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

_ROUND_S = 5.0
_GATHERED_S = 0.1
# For one whole answer, which is small. A client's request may take longer; this one is asked again.
_ASKED_S = 30.0
# Of one registry: as many as are read at once, and are gone through before new ones.
_AT_ONCE = 500
# The registry's clock is not ours, and it shows its times cut to the second.
_CLOCK_SKEW = timedelta(seconds=60)


class Credentials(Protocol):
    """With what relproxy itself asks a registry."""

    async def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the header fields that say who asks. Raises a `RelproxyError`."""
        ...

    def forget(self, fields: tuple[tuple[str, str], ...]) -> None:
        """Don't return these again: the registry didn't take them."""
        ...

    async def close(self) -> None:
        """Give up what is under way."""
        ...


@dataclass(frozen=True, slots=True)
class Anonymous:
    """For a registry that asks for no credentials, or believes its front."""

    fields: tuple[tuple[str, str], ...] = ()

    async def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the same fields each time."""
        return self.fields

    def forget(self, _: tuple[tuple[str, str], ...]) -> None:
        """Do nothing: there are no others."""

    async def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How to ask one registry, and whether it shows relproxy every image that it has."""

    upstream: Upstream
    dialect: Dialect
    credentials: Credentials
    shows_every_image: bool = False

    async def image(self, image_id: str, *, max_bytes: int) -> tuple[int, Headers, bytes]:
        """Ask for one image, as `get` does."""
        target, method = self.dialect.image_path(image_id), self.dialect.image_method
        return await self.get(target, max_bytes=max_bytes, method=method)

    async def get(
        self, target: str, *, max_bytes: int, method: str = "GET"
    ) -> tuple[int, Headers, bytes]:
        """Ask with relproxy's own credentials; return the status, headers and body of the answer.

        Raises what `Upstream.send` and `whole_response` raise, and the credentials' own error.
        """
        own = await self.credentials.headers()
        fields = (("Accept", "application/json"), *own)
        response = await self.upstream.send(method, target, Headers().with_added(*fields))
        body = await whole_response(response, max_bytes=max_bytes)
        if response.head.status == 401:
            self.credentials.forget(own)
        return response.head.status, response.head.headers, body


class Unsettled(Exception):  # noqa: N818 - not an error, but what is so
    """It can't be settled now; says why, and whether only a person can."""


@dataclass(frozen=True, slots=True)
class SettlementParts:
    """What the settlement works with; put together in `app.py`."""

    journal: LocalJournal
    relay: Relay
    registries: Mapping[str, Asked]
    owners: OwnerLookup
    limits: Limits
    metrics: Metrics
    journals: HostJournals


class Settlement:
    """Settles this worker's entries in doubt."""

    def __init__(self, parts: SettlementParts, *, abandon_after_s: float) -> None:
        self._journal = parts.journal
        self._relay = parts.relay
        self._registries = parts.registries
        self._owners = parts.owners
        self._limits = parts.limits
        self._metrics = parts.metrics
        self._journals = parts.journals
        self._abandon_after = timedelta(seconds=abandon_after_s)
        # Registry -> how far its entries have been gone through.
        self._walks: dict[str, Walk] = {}
        self._tasks = TaskSet()

    async def run(self) -> None:
        """Settle until cancelled."""
        try:
            while True:
                try:
                    await self._look()
                except JournalUnavailableError as failure:
                    _LOG.warning("entries in doubt not read", exc_info=failure)
                pause_s = FIRST_PAUSE_S if self._walks else _ROUND_S
                await self._journal.has_doubts(within_s=pause_s)
                # Where there is one there are soon others, and they share the look at the journal.
                await asyncio.sleep(_GATHERED_S)
        finally:
            await self._tasks.cancel()

    async def settle(self) -> None:
        """Ask every registry for those of its next entries whose time has come."""
        await asyncio.gather(*await self._look())

    async def _look(self) -> list[asyncio.Task[None]]:
        """Go on with each registry in a task of its own: a silent one holds up no other."""
        counts = await self._journal.doubts()
        self._metrics.journal_in_doubt.set(sum(counts.values()))
        for registry in counts:
            walk = self._walks.setdefault(registry, Walk())
            if walk.is_over():
                walk.task = self._tasks.start(self._go_on(registry, walk), name=f"ask {registry}")
        over = [r for r, walk in self._walks.items() if r not in counts and walk.is_over()]
        for registry in over:
            del self._walks[registry]
        return [walk.task for walk in self._walks.values() if walk.task is not None]

    async def _go_on(self, registry: str, walk: Walk) -> None:
        try:
            rows = await self._journal.in_doubt(registry, behind=walk.reached, at_most=_AT_ONCE)
            # Those that wait for a person are come back to, and nobody waits behind them.
            walk.reached = rows[-1].id if len(rows) == _AT_ONCE else None
            for row in rows:
                if walk.is_due(row.id):
                    walk.put_off(row.id)
                    await self._try(row, walk)
        except JournalUnavailableError as failure:
            _LOG.warning("entries in doubt not read", exc_info=failure)

    async def _try(self, row: Row, walk: Walk) -> None:
        try:
            await self._settled(row)
        except WrongStateError:
            # Somebody else has settled it meanwhile, by hand.
            _LOG.info("entry settled elsewhere", extra={"entry": row.id})
        except (Unsettled, RelproxyError) as failure:
            if await self._changes_nothing(row):
                await self._ended(row, "abandoned", "no record names the image")
                walk.forget(row.id)
                return
            why = failure.sentence if isinstance(failure, RelproxyError) else str(failure)
            await self._unsettled(row, why)
            return
        except Exception as failure:  # noqa: BLE001 - the others are settled all the same
            _LOG.error("entry not settled", extra={"entry": row.id}, exc_info=failure)
            await self._unsettled(row, "relproxy failed to settle it; its log says why.")
            return
        walk.forget(row.id)

    async def _changes_nothing(self, row: Row) -> bool:
        """Tell whether it is about an owner of what has had no record for a long time.

        Anybody can make such entries while a registry fails, for any id.
        """
        is_old = datetime.now(UTC) - row.begun_at >= self._abandon_after
        if row.kind is not EntryKind.OWNER or row.image_id is None or not is_old:
            return False
        try:
            return not await self._owners.owners(row.registry, (row.image_id,))
        except StoreUnavailableError:
            return False

    async def _unsettled(self, row: Row, why: str) -> None:
        if why == row.reason:
            return
        _LOG.warning("entry stays in doubt", extra={"entry": row.id, "reason": why})
        await self._journal.explain(row.entry, why)

    async def _settled(self, row: Row) -> None:
        asked = self._registries.get(row.registry)
        if asked is None:
            raise Unsettled(f"The configuration has no registry '{row.registry}' any more.")
        if row.entry.is_strangers and not row.is_assigned:
            await self._ended(row, "abandoned", "nobody is known to have sent it")
            return
        # Before it is asked: whatever happens to the image meanwhile is later than its answer.
        at = datetime.now(UTC)
        if row.image_id is None:
            image = await self._found(asked, row)
        else:
            shown = await self._shown(asked, row.image_id)
            if shown is None:
                await self._absent(asked, row, at)
                return
            image = shown
        await self._complete(row, image, at)

    async def _complete(self, row: Row, image: CreatedImage, at: datetime) -> None:
        if row.kind is EntryKind.OWNER and image.owner is None:
            await self._ended(row, "abandoned", "the registry names no owner")
            return
        if row.kind is EntryKind.CREATE and not row.is_assigned:
            await self._check_only(row, image)
            await self._check_fits(row, image)
        await self._journal.complete(row.entry, image, at=at)
        self._relay.wake()
        await self._ended(row, "completed", None)

    async def _ended(self, row: Row, result: str, reason: str | None) -> None:
        if result == "abandoned":
            await self._journal.abandon(row.entry, reason)
        self._metrics.journal_settled.labels(row.registry, result).inc()
        _LOG.info("entry settled", extra={"entry": row.id, "result": result, "reason": reason})

    async def _absent(self, asked: Asked, row: Row, at: datetime) -> None:
        """Give an entry up, if the registry was asked late enough to have made its image."""
        _check_shown(asked)
        if at - row.begun_at < self._abandon_after:
            raise Unsettled("The registry has no such image yet, and may still be at work on it.")
        await self._ended(row, "abandoned", "the registry has no such image")

    async def _check_only(self, row: Row, image: CreatedImage) -> None:
        """Raise `Unsettled` if another create may have made the image, in any worker's journal."""
        # A create that named an id made no other image: its name says nothing.
        name = row.image_name if row.image_id is None else None
        creates = await self._journals.open_creates(row.registry, image.id.lower(), name)
        # One that is being adopted stands in two files.
        others = [c.id for c in creates if c.id != row.id and _may_own(c.project, image)]
        if others:
            raise Unsettled(
                f"Another create may have made the image, and has not ended: entry {others[0]}."
            )

    async def _check_fits(self, row: Row, image: CreatedImage) -> None:
        """Raise `Unsettled` if the image may be somebody else's: relproxy did not choose its id."""
        if row.project is None:
            raise Unsettled("Nobody is known to have sent it: a person has to say whose it is.")
        image_id = image.id.lower()
        if image_id in await self._owners.owners(row.registry, (image_id,)):
            raise Unsettled("A live record holds the image: a person has to say whose it is.")
        if not self._is_of_its_time(row, image.created_at):
            raise Unsettled("The image was not created when the create was under way.")
        if not _may_own(row.project, image):
            raise Unsettled("The image belongs to another project than the create's.")

    def _is_of_its_time(self, row: Row, created_at: str) -> bool:
        try:
            created = datetime.fromisoformat(created_at)
        except ValueError:
            return False
        if created.tzinfo is None:
            created = created.replace(tzinfo=UTC)
        earliest = row.begun_at - _CLOCK_SKEW
        return earliest <= created <= row.begun_at + self._abandon_after + _CLOCK_SKEW

    async def _shown(self, asked: Asked, image_id: str) -> CreatedImage | None:
        """Return the image as the registry shows it; None if it says that there is none."""
        status, headers, body = await _in_time(
            asked.image(image_id, max_bytes=self._limits.max_page_bytes)
        )
        if status == 404:
            return None
        if status != 200:
            raise Unsettled(f"The registry answers {status} when asked for the image.")
        facts = asked.dialect.image_facts(headers, body)
        check_named(facts.id, image_id)
        return created_from(facts)

    async def _found(self, asked: Asked, row: Row) -> CreatedImage:
        """Return the one image that the create can have made, by what it said."""
        if row.image_name is None:
            raise Unsettled("The create named no id, and no name that an image can have.")
        _check_shown(asked)
        page = await self._named(asked, row.image_name, None)
        # Some registries say what comes next only where something does, others always.
        has_more = page.next_marker is not None and bool(
            (await self._named(asked, row.image_name, page.next_marker)).rows
        )
        fitting = [
            image
            for r in page.rows
            if (image := created_from(r.facts)) is not None and await self._fits(row, image)
        ]
        if has_more or len(fitting) != 1:
            raise Unsettled(f"{len(fitting)} images of this name fit: a person has to say which.")
        return fitting[0]

    async def _fits(self, row: Row, image: CreatedImage) -> bool:
        try:
            await self._check_fits(row, image)
        except Unsettled:
            return False
        return True

    async def _named(self, asked: Asked, name: str, marker: str | None) -> Page:
        target = asked.dialect.named_images_target(name, marker)
        status, _, body = await _in_time(asked.get(target, max_bytes=self._limits.max_page_bytes))
        if status != 200:
            raise Unsettled(f"The registry answers {status} when asked for images of this name.")
        return asked.dialect.page(body)


async def _in_time(answer: Awaitable[_Answer]) -> _Answer:
    try:
        async with asyncio.timeout(_ASKED_S):
            return await answer
    except TimeoutError as failure:
        raise RegistryTimeoutError("The registry did not answer in time.") from failure


def _check_shown(asked: Asked) -> None:
    """Raise `Unsettled` where it proves nothing that the registry doesn't show an image."""
    if not asked.shows_every_image:
        raise Unsettled(
            "The registry shows no such image to a stranger: give relproxy credentials for it."
        )


def _may_own(project: str | None, image: CreatedImage) -> bool:
    """Tell whether an image may be a project's, by what the registry says of its owner."""
    return None in {image.owner, project} or image.owner == project


def front_credentials(roles: frozenset[str]) -> Anonymous:
    """Return what a registry that believes its front is told when relproxy itself asks."""
    return Anonymous(identity_headers(Caller("relproxy", "relproxy", roles, is_admin=True)))
