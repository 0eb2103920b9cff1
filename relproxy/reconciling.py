"""`relproxy reconcile`: where registry and records differ, and on demand what settles it.

    the registry lists an image that should have a record -> bypassed: recorded as imported
    the registry, which knows owners, names another        -> the record's owner is changed
    a record's image was not in the list                   -> asked for by id, and if it is gone,
                                                              the record is buried

In this order, through the whole registry, then through the whole store. Nothing is changed but on
demand. A list that lags buries nothing, nor does a registry that lacks most of what it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from relproxy.errors import WalkRefusedError
from relproxy.model import Burial, ImageKey, ImageRecord, OwnerChange, Tenancy
from relproxy.store.base import Kept
from relproxy.store.journal_row import Row as JournalRow
from relproxy.walk_file import Finding, WalkFile
from relproxy.walking import (
    Listed,
    Outcome,
    Progress,
    Remembered,
    WalkParts,
    recorded,
    remembered,
    tell,
    walk_registry,
)

# What only a person can settle.
FOR_A_PERSON = (Outcome.NO_OWNER, Outcome.DELETED, Outcome.UNFIT, Outcome.UNREADABLE)
# And what is settled on demand.
DIFFERENCES = (Outcome.BYPASSED, Outcome.OWNER_CHANGED, Outcome.GONE, Outcome.BURIED)

# A registry's copies may lag behind each other, and not know by id what was just made.
_YOUNG = timedelta(minutes=10)
# Of fewer it isn't said that they are most.
_FEW = 20
_BURIED_AT_ONCE = 500


class Reconciliation:
    """Reconciles one registry; with `applies` it settles what it can."""

    def __init__(
        self, parts: WalkParts, file: WalkFile, progress: Progress, *, applies: bool
    ) -> None:
        self._parts = parts
        self._file = file
        self._progress = progress
        self._applies = applies

    async def run(self, *, may_bury_most: bool = False) -> None:
        """Do what is left of it. Raises a `RelproxyError`, and can then be run again."""
        await walk_registry(self._parts, self._file, self._judge, self._progress)
        await self._compare()
        await self._ask()
        if self._applies:
            self._check_not_most(may_bury_most=may_bury_most)
            await self._bury()

    async def in_doubt(self) -> list[JournalRow]:
        """Return this host's entries in doubt, which the settlement or a person settles."""
        rows = await self._parts.journals.in_doubt()
        return [row for row in rows if row.registry == self._parts.registry.name]

    # -- the registry's list

    async def _judge(self, images: Sequence[Listed], asked_at: datetime) -> list[Finding]:
        doubtful = await self.in_doubt()
        known = await remembered(self._parts, [image.id for image in images], doubtful)
        found = [self._finding(image, known, asked_at) for image in images]
        return found if self._applies else [replace(f, change=None) for f in found]

    def _finding(self, image: Listed, known: Remembered, asked_at: datetime) -> Finding:
        record, is_pending = known.record_of(image), image.id in known.pending
        if record is not None and record.deleted_at is not None:
            return _found(image, Outcome.DELETED, "the registry has it, and it was deleted")
        if is_pending:
            return _found(image, Outcome.PENDING)
        if record is not None:
            return self._compared(image, record, asked_at)
        return self._unrecorded(image, asked_at)

    def _compared(self, image: Listed, record: ImageRecord, asked_at: datetime) -> Finding:
        is_told = self._parts.registry.tenancy is Tenancy.REGISTRY and image.owner is not None
        if not is_told or image.owner == record.project:
            return _found(image, Outcome.AGREES)
        new = str(image.owner)
        name = self._parts.registry.name
        change = OwnerChange(name, image.id, image.created_at, new, asked_at)
        detail = f"project {record.project} by record, {new} by the registry"
        return replace(_found(image, Outcome.OWNER_CHANGED, detail), change=change)

    def _unrecorded(self, image: Listed, asked_at: datetime) -> Finding:
        if self._parts.registry.tenancy is Tenancy.RELPROXY:
            return _found(image, Outcome.PUBLIC if image.is_public else Outcome.NO_OWNER)
        if image.capture is None or image.owner is None:
            # A create that names no instance isn't recorded where the registry knows its owner.
            return _found(image, Outcome.NOT_NEEDED)
        name = self._parts.registry.name
        return recorded(Outcome.BYPASSED, image, name, image.owner, asked_at)

    # -- the records

    async def _compare(self) -> None:
        """Note the live records of what the registry hasn't listed."""
        if self._file.fact("is_compared"):
            return
        live = int(self._file.fact("live") or 0)
        async for batch in self._parts.store.walk(self._file.fact("store_place")):
            records = [kept.record for kept in batch if self._is_live(kept)]
            live += len(records)
            keys = [ImageKey(record.image_id, record.created_at) for record in records]
            listed = self._file.has_passed(keys)
            unlisted = [
                Finding(r.image_id, r.created_at, Outcome.UNLISTED, f"project {r.project}")
                if datetime.now(UTC) - r.recorded_at >= _YOUNG
                else Finding(r.image_id, r.created_at, Outcome.YOUNG)
                for r, key in zip(records, keys, strict=True)
                if key not in listed
            ]
            self._file.note(unlisted, {"store_place": batch[-1].place, "live": live})
            self._progress.say("compared", live, share=None)
        self._file.note((), {"is_compared": True})

    def _is_live(self, kept: Kept) -> bool:
        record = kept.record
        return record.registry == self._parts.registry.name and record.deleted_at is None

    async def _ask(self) -> None:
        """Ask by id for each image that has a live record and wasn't listed."""
        left = self._file.counts().get(Outcome.UNLISTED, 0)
        for done, finding in enumerate(self._file.findings(Outcome.UNLISTED), start=1):
            facts, _ = await self._parts.walk.image(finding.image_id)
            is_there = facts is not None and facts.created_at == finding.created_at
            outcome = Outcome.AGREES if is_there else Outcome.GONE
            self._file.decide([replace(finding, outcome=outcome)])
            self._progress.say("asked for", done, share=done / left)

    # -- settling

    def _check_not_most(self, *, may_bury_most: bool) -> None:
        gone = self._file.counts().get(Outcome.GONE, 0)
        live = int(self._file.fact("live") or 0)
        if gone > _FEW and gone * 2 > live and not may_bury_most:
            raise WalkRefusedError(
                f"The registry lacks {gone} of the {live} images that have a record: is it the "
                "right one, and whole? Nothing is buried. If it is: --bury-most."
            )

    async def _bury(self) -> None:
        """Bury what is gone, some hundred at a time."""
        at, name = datetime.now(UTC), self._parts.registry.name
        found = self._file.findings(Outcome.GONE)
        while batch := list(islice(found, _BURIED_AT_ONCE)):
            burials = [Burial(name, f.image_id, at, f.created_at) for f in batch]
            self._file.decide(
                replace(finding, outcome=Outcome.BURIED, change=burial)
                for finding, burial in zip(batch, burials, strict=True)
            )
            await tell(self._parts, self._file, burials)


def _found(image: Listed, outcome: Outcome, detail: str = "") -> Finding:
    return Finding(image.id, image.created_at, outcome, detail)
