"""What the flow asks of a store: small protocols, each with one verb or a few of one kind."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from relproxy.model import CreatedImage, ImageKey, ImageRecord, InstanceQuery, Intent, Ownership


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


class Tombstones(Protocol):
    """Which images are gone?"""

    async def bury(self, registry: str, image_id: str) -> None:
        """Mark the records of an image as those of a deleted one; harmless if there are none.

        They stay readable as relations, own nothing and are found for nobody's instance. Raises
        `StoreUnavailableError`.
        """
        ...


class Store(OwnerLookup, ImageLookup, Relations, Tombstones, Protocol):
    """The shared, durable records."""

    async def open(self) -> None:
        """Connect and bring the schema up to date. Raises `StoreUnavailableError`."""
        ...

    async def close(self) -> None:
        """Give up every connection."""
        ...

    async def put(self, records: Sequence[ImageRecord]) -> None:
        """Write records durably, all or none; writing one again changes nothing.

        A record that exists keeps its project, and a claimed instance is replaced by a vouched one
        only. Raises `StoreUnavailableError`.
        """
        ...

    async def check(self) -> None:
        """Do the least that shows the store works. Raises `StoreUnavailableError`."""
        ...


class Delivery(enum.Enum):
    """Where a completed create is, when its client is answered."""

    CONFIRMED = "confirmed"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Entry:
    """One create in the journal."""

    intent: Intent


class Journal(Protocol):
    """Creates under way: an intent before one leaves, its end when it is known."""

    async def begin(self, intent: Intent) -> Entry:
        """Take an intent, before the create leaves for the registry."""
        ...

    async def complete(self, entry: Entry, record_of: CreatedImage) -> Delivery:
        """Record the image that the registry made. Raises `RecordNotKeptError`."""
        ...

    async def abandon(self, entry: Entry) -> None:
        """Give an intent up: the registry made no image."""
        ...

    async def doubt(self, entry: Entry, reason: str) -> None:
        """Leave an intent open: the registry may have made the image."""
        ...
