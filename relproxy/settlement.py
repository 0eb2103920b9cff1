"""Settling entries in doubt: the registry itself is asked what became of a create.

    the registry shows the image, relproxy chose its id         -> completed
    it shows the image, the client chose its id                 -> completed if no live record holds
                                                                   it and time and owner fit
    no id is known                                              -> completed if exactly one image of
                                                                   its name fits, and no other entry
    it says 404, long after it can still be at work on it       -> abandoned
    anything else                                               -> asked again, ever more rarely

What can't be settled so waits for a person (`relproxy journal settle`). Settling never steals: a
live record's project is not changed by it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from relproxy.bodies import whole_response
from relproxy.config import Limits
from relproxy.errors import JournalUnavailableError, RegistryGarbageError, RelproxyError
from relproxy.filters.base import Dialect
from relproxy.filters.headers import identity_headers
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Headers
from relproxy.metrics import Metrics
from relproxy.model import Caller, CreatedImage
from relproxy.store.base import EntryKind, OwnerLookup
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_file import Row, WrongStateError
from relproxy.store.relay import Relay
from relproxy.upstream import Upstream

_LOG = logging.getLogger(__name__)

_ROUND_S = 5.0
_GATHERED_S = 0.1
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 300.0
# The registry's clock is not ours, and it shows its times cut to the second.
_CLOCK_SKEW = timedelta(seconds=60)


class Credentials(Protocol):
    """With what relproxy itself asks a registry."""

    async def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the header fields that say who asks. Raises a `RelproxyError`."""
        ...

    async def forget(self) -> None:
        """Don't use the present credentials again: the registry didn't take them."""
        ...


@dataclass(frozen=True, slots=True)
class Anonymous:
    """For a registry that asks for no credentials, or believes its front."""

    fields: tuple[tuple[str, str], ...] = ()

    async def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the same fields each time."""
        return self.fields

    async def forget(self) -> None:
        """Do nothing: there are no others."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How to ask one registry."""

    upstream: Upstream
    dialect: Dialect
    credentials: Credentials

    async def get(self, target: str, *, max_bytes: int) -> tuple[int, bytes]:
        """Ask with relproxy's own credentials; return the status and the body of the answer.

        Raises what `Upstream.send` and `whole_response` raise, and the credentials' own error.
        """
        fields = (("Accept", "application/json"), *await self.credentials.headers())
        response = await self.upstream.send("GET", target, Headers().with_added(*fields))
        body = await whole_response(response, max_bytes=max_bytes)
        if response.head.status == 401:
            await self.credentials.forget()
        return response.head.status, body


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


class Settlement:
    """Settles this worker's entries in doubt."""

    def __init__(self, parts: SettlementParts, *, abandon_after_s: float) -> None:
        self._journal = parts.journal
        self._relay = parts.relay
        self._registries = parts.registries
        self._owners = parts.owners
        self._limits = parts.limits
        self._metrics = parts.metrics
        self._abandon_after = timedelta(seconds=abandon_after_s)
        # Entry id -> how often it was asked for, and when it is next (seconds, monotonic).
        self._asked: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            try:
                await self.settle()
            except JournalUnavailableError as failure:
                _LOG.warning("entries in doubt not read", exc_info=failure)
            pause_s = _FIRST_PAUSE_S if self._asked else _ROUND_S
            await self._journal.has_doubts(within_s=pause_s)
            # Where there is one there are soon others, and they share the look at the journal.
            await asyncio.sleep(_GATHERED_S)

    async def settle(self) -> None:
        """Ask for each entry whose time has come, once."""
        rows = await self._journal.in_doubt()
        self._metrics.journal_in_doubt.set(len(rows))
        self._asked = {row.id: self._asked.get(row.id, (0, 0.0)) for row in rows}
        for row in rows:
            asked, due = self._asked[row.id]
            if time.monotonic() < due:
                continue
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(asked, 10))
            self._asked[row.id] = (asked + 1, time.monotonic() + pause)
            try:
                await self._settled(row, rows)
            except WrongStateError:
                # Somebody else has settled it meanwhile, by hand.
                _LOG.info("entry settled elsewhere", extra={"entry": row.id})
            except (Unsettled, RelproxyError) as failure:
                why = failure.sentence if isinstance(failure, RelproxyError) else str(failure)
                await self._unsettled(row, why)

    async def _unsettled(self, row: Row, why: str) -> None:
        if why == row.reason:
            return
        _LOG.warning("entry stays in doubt", extra={"entry": row.id, "reason": why})
        await self._journal.explain(row.entry, why)

    async def _settled(self, row: Row, others: list[Row]) -> None:
        asked = self._registries.get(row.registry)
        if asked is None:
            raise Unsettled(f"The configuration has no registry '{row.registry}' any more.")
        if row.image_id is None:
            image = await self._found(asked, row, others)
        else:
            shown = await self._shown(asked, row.image_id)
            if shown is None:
                await self._absent(row)
                return
            image = shown
        await self._complete(row, image)

    async def _complete(self, row: Row, image: CreatedImage) -> None:
        if row.kind is EntryKind.OWNER and image.owner is None:
            await self._ended(row, "abandoned", "the registry names no owner")
            return
        if row.kind is EntryKind.CREATE and not row.is_assigned:
            await self._check_fits(row, image)
        await self._journal.complete(row.entry, image)
        self._relay.wake()
        await self._ended(row, "completed", None)

    async def _ended(self, row: Row, result: str, reason: str | None) -> None:
        if result == "abandoned":
            await self._journal.abandon(row.entry, reason)
        self._metrics.journal_settled.labels(row.registry, result).inc()
        _LOG.info("entry settled", extra={"entry": row.id, "result": result, "reason": reason})

    async def _absent(self, row: Row) -> None:
        if datetime.now(UTC) - row.begun_at < self._abandon_after:
            raise Unsettled("The registry has no such image yet, and may still be at work on it.")
        await self._ended(row, "abandoned", "the registry has no such image")

    async def _check_fits(self, row: Row, image: CreatedImage) -> None:
        """Raise `Unsettled` if the image may be somebody else's: relproxy did not choose its id."""
        image_id = image.id.lower()
        if image_id in await self._owners.owners(row.registry, (image_id,)):
            raise Unsettled("A live record holds the image: a person has to say whose it is.")
        if not self._is_of_its_time(row, image.created_at):
            raise Unsettled("The image was not created when the create was under way.")
        if image.owner is not None and row.project is not None and image.owner != row.project:
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
        status, body = await self._answer(asked, asked.dialect.image_path(image_id))
        if status == 404:
            return None
        if status != 200:
            raise Unsettled(f"The registry answers {status} when asked for the image.")
        return _created(asked.dialect.image_facts(body))

    async def _found(self, asked: Asked, row: Row, others: list[Row]) -> CreatedImage:
        """Return the one image that the create can have made, by what it said."""
        if row.image_name is None:
            raise Unsettled("The create named neither an id nor a name: nothing to look for.")
        twins = (
            r.id != row.id and (r.registry, r.image_name) == (row.registry, row.image_name)
            for r in others
        )
        if any(twins):
            raise Unsettled("Several creates in doubt have this name: a person has to tell them.")
        target = asked.dialect.named_images_target(row.image_name)
        status, body = await self._answer(asked, target)
        if status != 200:
            raise Unsettled(f"The registry answers {status} when asked for images of this name.")
        page = asked.dialect.page(body)
        fitting = [
            image
            for r in page.rows
            if (image := _created(r.facts)) is not None and await self._fits(row, image)
        ]
        if page.next_marker is not None or len(fitting) != 1:
            raise Unsettled(f"{len(fitting)} images of this name fit: a person has to say which.")
        return fitting[0]

    async def _fits(self, row: Row, image: CreatedImage) -> bool:
        try:
            await self._check_fits(row, image)
        except Unsettled:
            return False
        return True

    async def _answer(self, asked: Asked, target: str) -> tuple[int, bytes]:
        return await asked.get(target, max_bytes=self._limits.max_page_bytes)


def _created(facts: ImageFacts) -> CreatedImage:
    if facts.id is None or facts.created_at is None:
        raise RegistryGarbageError("The registry's answer names no image.")
    return CreatedImage(facts.id, facts.created_at, facts.owner)


def front_credentials(roles: frozenset[str]) -> Anonymous:
    """Return what a registry that believes its front is told when relproxy itself asks."""
    return Anonymous(identity_headers(Caller("relproxy", "relproxy", roles, is_admin=True)))
