"""What `relproxy import` and `relproxy reconcile` have in common: the way through a registry.

For each page the journals and the store are asked what they have of its images; what is to be done
about them is judged, written down in the walk's file, and told to the store.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from relproxy.config import Registry
from relproxy.errors import BadRequestError, RecordNotKeptError, RegistryGarbageError
from relproxy.failpoints import failpoint
from relproxy.filters.base import Dialect, Row
from relproxy.filters.capture import BodyMetadata, MetadataHeaders, read_capture
from relproxy.filters.json_edit import NotJSONError
from relproxy.messages import Headers
from relproxy.model import Capture, Change, CreatedImage, Grade, ImageRecord
from relproxy.registry_walk import Place, RegistryWalk, where
from relproxy.store.base import Store
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal import check_recordable
from relproxy.store.journal_row import Row as JournalRow
from relproxy.walk_file import Finding, WalkFile

# No metadata headers come with a list.
_NO_NAMES = MetadataHeaders("", "")
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class Outcome(enum.StrEnum):
    """What became of one image, or has to."""

    RECORDED = "recorded"
    COMPLETED = "instance added"
    KNOWN = "known"
    PENDING = "on its way"
    NOT_NEEDED = "needs no record"
    PUBLIC = "public, no owner"
    NO_OWNER = "no owner"
    OTHER_OWNER = "another owner"
    DELETED = "deleted by record"
    UNFIT = "can't be kept"
    UNREADABLE = "unreadable"
    AGREES = "agrees"
    BYPASSED = "bypassed"
    OWNER_CHANGED = "owner changed"
    UNLISTED = "not listed"
    YOUNG = "young"
    GONE = "gone"
    BURIED = "buried"


class Progress(Protocol):
    """Who is told how far a walk has come."""

    def say(self, doing: str, done: int, *, share: float | None) -> None:
        """Say that so many images are done, `share` (0 to 1) of them all as far as is known."""
        ...


@dataclass(frozen=True, slots=True)
class WalkParts:
    """What a walk works with; `installation` is whose the instances are that name none."""

    registry: Registry
    walk: RegistryWalk
    dialect: Dialect
    store: Store
    journals: HostJournals
    installation: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One image as the registry lists it, its id in lower case; `capture` is what it says of it."""

    id: str
    created_at: str
    owner: str | None
    is_public: bool
    capture: Capture | None

    def record(self, registry: str, project: str, asked_at: datetime) -> ImageRecord:
        """Return the record by which it is imported.

        As of when it was created: so is any that was captured, and whatever was deleted since is
        not brought back. Raises `RecordNotKeptError`.
        """
        check_recordable(CreatedImage(self.id, self.created_at, self.owner), project)
        at = max(_EARLIEST, min(_moment(self.created_at, asked_at), asked_at))
        made = ImageRecord(registry, self.id, self.created_at, project, self.capture, at)
        return replace(made, is_imported=True)


@dataclass(slots=True)
class Remembered:
    """What is known of a page's images: records by image id, and what journals still have."""

    records: dict[str, list[ImageRecord]] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()

    def record_of(self, image: Listed) -> ImageRecord | None:
        """Return the record of the very image, not of another that had its id."""
        found = self.records.get(image.id, [])
        return next((r for r in found if r.created_at == image.created_at), None)


Judge = Callable[[Sequence[Listed], datetime], Awaitable[Iterable[Finding]]]


async def walk_registry(parts: WalkParts, file: WalkFile, judge: Judge, progress: Progress) -> None:
    """Go through the registry's list, or on with it, and do what `judge` finds."""
    await tell_rest(parts, file)
    if file.fact("is_walked"):
        return
    place = Place(**(file.fact("place") or {}))
    done = sum(file.counts().values())
    first = _first_moment(file)
    async for page in parts.walk.pages(place, file.passed):
        listed, findings = _read(page.rows, parts)
        findings += await judge(listed, page.asked_at)
        going_on = page.following
        facts = {"is_walked": True} if going_on is None else {"place": where(going_on)}
        failpoint("before-note")
        changes = file.note(findings, facts)
        failpoint("after-note")
        await tell(parts, file, changes)
        done += len(page.rows)
        first = first or (_moment(listed[0].created_at, page.asked_at) if listed else None)
        progress.say("listed", done, share=_share(first, listed, page.asked_at))


async def remembered(
    parts: WalkParts, ids: Sequence[str], also: Iterable[JournalRow] = ()
) -> Remembered:
    """Ask the journals, then the store, as the flow does; `also` are further entries."""
    name = parts.registry.name
    rows = [*(await parts.journals.pending_of_images(ids)), *also]
    pending = frozenset(r.image_id for r in rows if r.registry == name and r.image_id is not None)
    found = Remembered(pending=pending)
    for record in await parts.store.records_of(ids):
        if record.registry == name:
            found.records.setdefault(record.image_id, []).append(record)
    return found


async def tell(parts: WalkParts, file: WalkFile, changes: Sequence[Change]) -> None:
    """Tell the store what was written down, and write down that it has taken it."""
    if changes:
        await parts.store.put(changes)
        failpoint("before-told")
        file.mark_told(changes)


async def tell_rest(parts: WalkParts, file: WalkFile) -> None:
    """Tell the store what it may not have been told before a crash."""
    while changes := file.untold():
        await tell(parts, file, changes)


def recorded(
    outcome: Outcome, image: Listed, registry: str, project: str, asked_at: datetime
) -> Finding:
    """Return the finding that an image is recorded, or why it can't be."""
    try:
        record = image.record(registry, project, asked_at)
    except RecordNotKeptError as failure:
        return Finding(image.id, image.created_at, Outcome.UNFIT, failure.sentence)
    return Finding(image.id, image.created_at, outcome, f"project {project}", record)


def _read(rows: Sequence[Row], parts: WalkParts) -> tuple[list[Listed], list[Finding]]:
    """Return the images that could be read, and findings of those that couldn't."""
    listed: list[Listed] = []
    unreadable: list[Finding] = []
    for row in rows:
        facts = row.facts
        if facts.id is None or facts.created_at is None or facts.visibility is None:
            digest = hashlib.sha256(row.raw).hexdigest()
            unreadable.append(Finding(f"?{digest}", "", Outcome.UNREADABLE))
            continue
        is_public = facts.visibility == "public"
        capture = _captured(parts.dialect, row.raw, parts.installation)
        owner = facts.owner or None
        listed.append(Listed(facts.id.lower(), facts.created_at, owner, is_public, capture))
    return listed, unreadable


def _captured(dialect: Dialect, raw: bytes, installation: str | None) -> Capture | None:
    """Return the instance that an image's properties name, if they do whole."""
    try:
        metadata: BodyMetadata = dialect.listed_metadata(raw)
        capture = read_capture(
            Headers(), metadata, names=_NO_NAMES, is_trusted=False, route_installation=installation
        )
    except (BadRequestError, NotJSONError, RegistryGarbageError):
        # Any member may have set them to anything.
        return None
    return capture and replace(capture, grade=Grade.IMPORTED)


def _moment(created_at: str, otherwise: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(created_at)
    except ValueError:
        return otherwise
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _first_moment(file: WalkFile) -> datetime | None:
    first = next(file.findings(*Outcome), None)
    return _moment(first.created_at, file.begun_at) if first else None


def _share(first: datetime | None, listed: Sequence[Listed], now: datetime) -> float | None:
    """Estimate how much is done by when images were created: the list goes from old to new."""
    if first is None or not listed or first >= now:
        return None
    last = _moment(listed[-1].created_at, now)
    return min(1.0, max(0.0, (last - first) / (now - first)))


def counted(counts: Mapping[str, int]) -> str:
    """Return counts as one line."""
    said = ", ".join(f"{counts[o]} {o}" for o in Outcome if counts.get(o))
    return f"{sum(counts.values())} images" + (f": {said}" if said else "")
