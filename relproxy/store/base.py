"""What the flow asks of a store: small protocols, each with one verb or a few of one kind."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relproxy.errors import BadRequestError
from relproxy.model import (
    Change,
    CreatedImage,
    ImageKey,
    ImageRecord,
    InstanceQuery,
    Intent,
    Ownership,
)
from relproxy.store.place import Place


class OwnerLookup(Protocol):
    """Whose images are these?"""

    async def owners(self, registry: str, image_ids: Collection[str]) -> Mapping[str, Ownership]:
        """Return image id -> ownership for the ids that have a record; the newest record of each.

        Ids are canonical (lower case). Raises `StoreUnavailableError`.
        """
        ...


class ImageLookup(Protocol):
    """Which images?"""

    async def images_of_instance(self, registry: str, query: InstanceQuery) -> Sequence[ImageKey]:
        """Return an instance's images in one registry, newest record first.

        Raises `StoreUnavailableError`.
        """
        ...

    async def images_of_project(
        self, registry: str, project: str, *, at_most: int
    ) -> Sequence[str] | None:
        """Return the ids of a project's images; None where there are more than `at_most`.

        Raises `StoreUnavailableError`.
        """
        ...


@dataclass(frozen=True, slots=True)
class RelationQuery:
    """What the admin listener asks, across all registries; None stands for any."""

    instance_id: str | None = None
    installation: str | None = None
    image_id: str | None = None
    project: str | None = None


@dataclass(frozen=True, slots=True)
class RelationPage:
    """Records, newest first, and the cursor of the next page (None on the last one)."""

    records: tuple[ImageRecord, ...]
    next_cursor: str | None


class Relations(Protocol):
    """Who relates to whom?"""

    async def relations(
        self, query: RelationQuery, *, limit: int, cursor: str | None
    ) -> RelationPage:
        """Return one page of records.

        Raises `StoreUnavailableError`, and `BadRequestError` for a cursor that isn't one.
        """
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as it is kept; `owned_since` is when its owner was changed last, or None.

    `place` is where it stands among all, for a walk to go on from.
    """

    record: ImageRecord
    owned_since: datetime | None
    place: str


class Store(OwnerLookup, ImageLookup, Protocol):
    """The shared, durable records."""

    async def open(self) -> None:
        """Connect and bring the schema up to date. Raises `StoreUnavailableError`."""
        ...

    async def close(self) -> None:
        """Give up every connection."""
        ...

    async def put(self, changes: Sequence[Change]) -> str | None:
        """Make changes durable in their order, all or none; making one again changes nothing.

        A record that exists keeps its project, whatever a second capture says, and a claimed
        instance is replaced by a vouched one only. A burial marks the image's live records that
        were recorded until then; they stay readable as relations, own nothing and are found for
        nobody's instance. An owner change applies to a record that exists and whose owner was not
        changed later.

        Returns the identity of the server that took them, which changes when another takes its
        place and may lack what the first had acknowledged (PostgreSQL: system identifier and
        timeline); None for a store that can't be replaced so. Raises `StoreUnavailableError`, and
        `RecordRefusedError` if one of the changes can never be taken.
        """
        ...

    async def check(self) -> None:
        """Do the least that shows the store works. Raises `StoreUnavailableError`."""
        ...

    async def claim(self, host: str, *, by_force: bool = False) -> None:
        """Say which host writes; `host` is the identity of its directory of journals.

        Raises `StoreRefusedError` if the store can belong to one host only and has another, which
        `by_force` takes it from; `StoreUnavailableError`.
        """
        ...

    async def registries(self) -> frozenset[str]:
        """Return the names of the registries that records name, or ever named.

        Raises `StoreUnavailableError`.
        """
        ...

    async def rename_registry(self, old: str, new: str) -> None:
        """Let every record of the registry `old` name `new`.

        Raises `StoreUnavailableError`, and `BadRequestError` if no record names `old` or some
        already name `new`.
        """
        ...

    async def records(
        self, query: RelationQuery, *, limit: int, before: Place | None
    ) -> Sequence[ImageRecord]:
        """Return at most `limit` records that stand before a place (None: all do), newest first.

        Raises `StoreUnavailableError`, and `BadRequestError` for a place that can't be one.
        """
        ...

    def place(self, record: ImageRecord) -> Place:
        """Return where a record stands, or would stand, in the order of `records`."""
        ...

    def walk(self, after: str | None) -> AsyncIterator[Sequence[Kept]]:
        """Yield every record behind the place `after`, oldest first, some hundred at a time.

        Raises `StoreUnavailableError`, and `BadRequestError` for a place that isn't one.
        """
        ...

    async def purge(self, *, deleted_before: datetime, at_most: int) -> int:
        """Forget records of images that were deleted before then; return how many it was.

        `at_most` bounds one call. Raises `StoreUnavailableError`.
        """
        ...


def check_renaming(old: str, new: str, names: Collection[str]) -> None:
    """Raise `BadRequestError` unless records name the registry `old` and none `new`."""
    if old not in names:
        raise BadRequestError(f"No record names a registry '{old}'.")
    if new in names:
        raise BadRequestError(f"Records name a registry '{new}' already.")


class Delivery(enum.Enum):
    """Where a completed create is, when its client is answered."""

    CONFIRMED = "confirmed"
    PENDING = "pending"


class EntryKind(enum.StrEnum):
    """What an entry of the journal is about."""

    CREATE = "create"
    OWNER = "owner"
    BURIAL = "burial"


class EntryState(enum.StrEnum):
    """Where an entry is; `relproxy.store.journal.NEXT` says what may follow."""

    BEGUN = "begun"
    IN_DOUBT = "in_doubt"
    COMPLETED = "completed"
    DELIVERED = "delivered"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Entry:
    """One create, or one change of an owner, in the journal."""

    id: str
    kind: EntryKind
    intent: Intent
    begun_at: datetime


class Journal(Protocol):
    """Creates under way: an intent before one leaves, its end when it is known."""

    async def begin(self, intent: Intent, kind: EntryKind = EntryKind.CREATE) -> Entry:
        """Make an intent durable, before it leaves for the registry.

        Raises `JournalUnavailableError`.
        """
        ...

    async def complete(
        self, entry: Entry, image: CreatedImage, *, at: datetime | None = None
    ) -> Delivery:
        """Make durable what the registry has done, then see whether the store has it in time.

        `at` is from when on it is known to be so; None stands for now. Raises
        `JournalUnavailableError` and `RecordNotKeptError`.
        """
        ...

    async def abandon(self, entry: Entry) -> None:
        """Give an intent up: the registry did nothing. Raises nothing."""
        ...

    async def doubt(self, entry: Entry, reason: str) -> None:
        """Leave an intent to be settled: the registry may have done it. Raises nothing."""
        ...

    async def bury(self, registry: str, image: ImageKey) -> Delivery:
        """Make durable that an image is gone, whichever had this id where that isn't known.

        Raises `JournalUnavailableError`.
        """
        ...
