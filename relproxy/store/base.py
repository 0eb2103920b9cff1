"""What the flow asks of a store: small protocols, each with one verb or a few of one kind."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relproxy.errors import BadRequestError, StoreRefusedError
from relproxy.model import (
    Burial,
    Change,
    CreatedImage,
    Grade,
    ImageKey,
    ImageRecord,
    InstanceQuery,
    Intent,
    OwnerChange,
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

        Only where the record's instance counts (`ImageRecord.counted`): what a project has claimed
        is found for nobody once the image is another's. Raises `StoreUnavailableError`.
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
    """A record as it is kept; `place` is where it stands among all, for a walk to go on from."""

    record: ImageRecord
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
        """Make changes durable, all or none.

        What a store holds in the end is a function of the set of changes that it was told, in
        whatever order, however often, through however many connections. So it keeps an owner
        change and a burial for a record that comes after it.

        A record that exists keeps its project, whatever a second capture says: of two that name
        different ones the first to be told holds, which alone is a matter of order. Of records of
        one project the earliest time holds, a vouched instance before a claimed one, a claimed
        one before none, and of two of one grade the smaller. An owner change doesn't count here:
        what was put with the project that the record was made for is put again with that.

        What was imported gives way to what wasn't, whichever was told first: the project and the
        instance are then those of the record that wasn't. The earliest time of both holds, because
        the image was there by then.

        Of owner changes the latest holds, see `OwnerChange`. A burial marks the records that it
        `buries`, with the earliest time of several: they stay readable as relations, own nothing
        and are found for nobody's instance.

        A registry that was renamed is meant by its old name too.

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
        """Let every record of the registry `old` name `new`, those too that are put later.

        Raises `StoreUnavailableError`, and `BadRequestError` if no record names `old`, some
        already name `new`, or that is the old name of another registry.
        """
        ...

    async def renamed(self) -> Mapping[str, str]:
        """Return the old names of registries -> those that they have now.

        Raises `StoreUnavailableError`.
        """
        ...

    async def take_for_renamed(self, old: str, new: str) -> None:
        """Let what is put under the name `old` name `new`, as if that had been renamed here.

        Raises `StoreUnavailableError`, and `BadRequestError` if records name `old`.
        """
        ...

    async def free_name(self, old: str) -> None:
        """Let the old name of a registry be another registry's.

        Raises `StoreUnavailableError`, and `BadRequestError` if it is no registry's old name.
        """
        ...

    async def changes(self, image_ids: Collection[str]) -> Sequence[OwnerChange | Burial]:
        """Return what is known of owner changes and deletions of images, in every registry.

        Of images without a record too. Raises `StoreUnavailableError`.
        """
        ...

    async def records(
        self, query: RelationQuery, *, limit: int, before: Place | None
    ) -> Sequence[ImageRecord]:
        """Return at most `limit` records that stand before a place (None: all do), newest first.

        Where an instance or installation is asked for, those alone whose instance counts. Raises
        `StoreUnavailableError`, and `BadRequestError` for a place that can't be one.
        """
        ...

    async def records_of(self, image_ids: Collection[str]) -> Sequence[ImageRecord]:
        """Return every record of some images, in every registry.

        Raises `StoreUnavailableError`.
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

    def walk_changes(self) -> AsyncIterator[Sequence[OwnerChange | Burial]]:
        """Yield the owner changes and burials that are kept, each image's side by side.

        Raises `StoreUnavailableError`.
        """
        ...

    async def purge(self, *, deleted_before: datetime, at_most: int) -> int:
        """Forget records of images that were deleted before then; return how much it was.

        And burials of then, and owner changes whose record hasn't come since then. `at_most` bounds
        one call. Raises `StoreUnavailableError`.
        """
        ...


def check_renaming(old: str, new: str, names: Collection[str], renamed: Mapping[str, str]) -> None:
    """Raise `BadRequestError` unless records name the registry `old` and `new` is free."""
    if old not in names and old in renamed:
        raise BadRequestError(f"'{old}' was renamed already: records name it '{renamed[old]}'.")
    if old not in names:
        raise BadRequestError(f"No record names a registry '{old}'.")
    if new in names:
        raise BadRequestError(f"Records name a registry '{new}' already.")
    if renamed.get(new, old) != old:
        raise BadRequestError(
            f"'{new}' is the old name of '{renamed[new]}', and journals may still use it for that: "
            f"`relproxy registry free {new}` once they don't."
        )


def check_names(
    configured: Collection[str], names: Collection[str], renamed: Mapping[str, str]
) -> None:
    """Raise `StoreRefusedError` unless the configuration names what the records do.

    `configured` and `names` are registries, by configuration and by record.
    """
    if unknown := sorted(set(names).difference(configured)):
        raise StoreRefusedError(
            f"Records name registries that the configuration doesn't: {', '.join(unknown)}. Add "
            "them, or rename them in the records: `relproxy registry rename OLD NEW`."
        )
    for old in sorted(renamed.keys() & set(configured)):
        raise StoreRefusedError(
            f"The configuration has a registry '{old}', and that is the old name of "
            f"'{renamed[old]}': its images would be taken for those of '{renamed[old]}'. Name it "
            f"otherwise; or `relproxy registry free {old}`, once every journal has delivered what "
            "it had under the old name."
        )


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

    @property
    def is_strangers(self) -> bool:
        """Tell whether it is a create of which nobody trusted says whose it is, or whence."""
        capture = self.intent.capture
        is_vouched = capture is not None and capture.grade is Grade.VOUCHED
        is_known = self.intent.caller_project is not None or is_vouched
        return self.kind is EntryKind.CREATE and not is_known


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
