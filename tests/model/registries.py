"""The registries that the machine is put in front of, as far as it reaches them past relproxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp

from lab.stand_in import StandIn
from tests.model.operations import Knobs
from tests.model.words import PROPERTY
from tests.model.world import Image, Query, World

_START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
AS_ADMIN = {
    "X-Identity-Status": "Confirmed",
    "X-Project-Id": "operations",
    "X-Roles": "admin,member,reader",
    "Accept": "application/json",
}


class Behind(Protocol):
    """What stands behind relproxy."""

    default_limit: int
    relproxys_max_limit: int
    takes_chosen_ids: bool
    takes_ids_again: bool
    sorts_what_is_nothing: bool
    is_careless: bool

    async def strangers(self) -> Sequence[Image]:
        """Return the images that are there already."""
        ...

    async def end(self) -> None:
        """Delete what a story has left."""
        ...

    def now(self) -> datetime:
        """Return what the registry's clock says next."""
        ...

    def wait(self, microseconds: int) -> None:
        """Let the registry's clock go on."""
        ...

    def is_taken(self, world: World, image_id: str) -> bool:
        """Tell whether nothing can be created under an id any more."""
        ...

    def taking_ids_again(self) -> AbstractContextManager[None]:
        """Let ids of deleted images be taken again, for a while."""
        ...

    async def create(self, fields: Mapping[str, str]) -> None:
        """Make an image behind relproxy's back."""
        ...

    async def delete(self, image_id: str) -> None:
        """Delete an image behind relproxy's back."""
        ...

    async def order(self, world: World, query: Query) -> Sequence[Image]:
        """Return the images in the order that a query asks for; some may be left out."""
        ...

    async def everything(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the document of every image of the story by its id."""
        ...


@dataclass
class _Direct:
    """What its admin does with a registry past relproxy."""

    session: aiohttp.ClientSession
    address: str

    async def create(self, fields: Mapping[str, str]) -> None:
        async with self.session.post(self.address, json=fields, headers=AS_ADMIN) as answer:
            assert answer.status == 201, await answer.text()

    async def delete(self, image_id: str) -> None:
        address = f"{self.address}/{image_id}"
        async with self.session.delete(address, headers=AS_ADMIN) as answer:
            assert answer.status == 204, await answer.text()


@dataclass
class StandInBehind(_Direct):
    """A stand-in whose clock stands still unless it is told: the model knows its full times."""

    glance: StandIn
    default_limit: int = 5
    relproxys_max_limit: int = 7
    takes_chosen_ids: bool = True
    takes_ids_again: bool = True
    sorts_what_is_nothing: bool = True
    is_careless: bool = False
    _now: datetime = _START
    _step: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        self.glance.clock = lambda: self._now
        self.glance.keeps_data = True
        self.glance.default_limit = self.default_limit

    def begin(self, knobs: Knobs) -> None:
        """Set everything for a story; a frozen clock makes ties, where only ids differ."""
        self.glance.max_limit = knobs.max_limit
        self.glance.lists_everything = self.is_careless = knobs.is_careless and self.glance.trusting
        self._step = timedelta(microseconds=0 if knobs.is_frozen else 1)

    async def strangers(self) -> Sequence[Image]:
        return ()

    async def end(self) -> None:
        self.glance.empty()

    def now(self) -> datetime:
        self._now += self._step
        return self._now

    def wait(self, microseconds: int) -> None:
        self._now += timedelta(microseconds=microseconds)

    def is_taken(self, world: World, image_id: str) -> bool:
        if self.glance.reuses_ids:
            return world.find(image_id) is not None
        return any(image.id == image_id for image in world.images)

    @contextmanager
    def taking_ids_again(self) -> Iterator[None]:
        self.glance.reuses_ids = True
        try:
            yield
        finally:
            self.glance.reuses_ids = False

    async def order(self, world: World, query: Query) -> Sequence[Image]:
        return world.order(query)

    async def everything(self) -> Mapping[str, Mapping[str, Any]]:
        return self.glance.images


@dataclass
class GlanceBehind(_Direct):
    """A real Glance, which is asked itself, as its admin, how it sorts.

    On SQLite it loses its way behind an image without a size: its marker is then compared with ''.
    """

    default_limit: int = 25
    relproxys_max_limit: int = 1000
    takes_chosen_ids: bool = False
    takes_ids_again: bool = False
    sorts_what_is_nothing: bool = False
    is_careless: bool = False
    _strangers: set[str] = field(default_factory=set)
    # What it has said since something was made or changed.
    _orders: dict[tuple[Any, ...], Sequence[str]] = field(default_factory=dict)

    async def strangers(self) -> Sequence[Image]:
        self._strangers.clear()
        self._orders.clear()
        found = await self.everything()
        self._strangers.update(found)
        return [_stranger(document) for document in found.values()]

    async def end(self) -> None:
        for image_id in await self.everything():
            await self.delete(image_id)

    def now(self) -> datetime:
        self._orders.clear()
        return datetime.now(UTC)

    def wait(self, microseconds: int) -> None:
        del microseconds

    def is_taken(self, world: World, image_id: str) -> bool:
        return any(image.id == image_id for image in world.images)

    def taking_ids_again(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def order(self, world: World, query: Query) -> Sequence[Image]:
        sort = [("sort", ",".join(f"{key}:{way}" for key, way in query.sort))] * bool(query.sort)
        if len(query.sort) > 1 and query.tie == "asc":
            keys = [("sort_key", key) for key, _ in query.sort]
            sort = [*keys, ("sort_dir", query.sort[0][1])]
        sort.append(("os_hidden", str(bool(query.is_hidden)).lower()))
        asked = tuple(sort)
        if asked not in self._orders:
            self._orders[asked] = [image["id"] for image in await self._listed(*asked)]
        live = {image.id: image for image in world.images if not image.is_gone}
        return [live[image_id] for image_id in self._orders[asked] if image_id in live]

    async def everything(self) -> Mapping[str, Mapping[str, Any]]:
        shown = [*await self._listed(), *await self._listed(("os_hidden", "true"))]
        return {image["id"]: image for image in shown if image["id"] not in self._strangers}

    async def _listed(self, *parameters: tuple[str, str]) -> list[dict[str, Any]]:
        query = urlencode([*parameters, ("visibility", "all"), ("limit", "1000")])
        async with self.session.get(f"{self.address}?{query}", headers=AS_ADMIN) as answer:
            document = await answer.json()
        assert "next" not in document
        images: list[dict[str, Any]] = document["images"]
        return images


def _stranger(document: Mapping[str, Any]) -> Image:
    """Return an image that another test has left; nobody of a story owns it."""
    custom = (PROPERTY, "instance_uuid")
    return Image(
        id=document["id"],
        name=document["name"],
        # Whatever it is called there: the projects of a story have names of their own.
        owner=f"stranger {document['owner']}",
        record=None,
        visibility=document["visibility"],
        created=datetime.fromisoformat(document["created_at"]),
        updated=datetime.fromisoformat(document["updated_at"]),
        disk_format=document["disk_format"],
        container_format=document["container_format"],
        data=b"?" if document["status"] == "active" else None,
        is_hidden=document["os_hidden"],
        is_strange=True,
        tags=frozenset(document["tags"]),
        properties={name: document[name] for name in custom if name in document},
    )
