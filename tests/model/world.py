"""The model: what there is, whose it is, what each may see, and in which order.

Nothing of relproxy's is in here, and nothing of the stand-in's: what DESIGN.md promises and what
Glance 33 does (glance/db/sqlalchemy/api.py, `_select_images_query`, `_image_get_all`,
`_paginate_query`) is said a second time, so that the two can disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Tenancy = Literal["relproxy", "registry"]

ADMIN = "ops"
PROJECTS = ("alice", "bob", "carol", ADMIN)
NOBODY = "nobody"

Sort = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Record:
    """What relproxy knows of an image: its project, and its instance if one was named.

    `claimed_for` is the project that a claim was recorded for: it counts for no other owner.
    """

    project: str
    installation: str | None = None
    instance: str | None = None
    claimed_for: str | None = None


@dataclass(eq=False)
class Image:
    """One image; `record` is None where relproxy keeps none, `owner` is what the registry says.

    One that is strange was there before the story, and stays as it is.
    """

    id: str
    name: str
    owner: str | None
    record: Record | None
    visibility: str
    created: datetime
    updated: datetime
    disk_format: str | None = None
    container_format: str | None = None
    data: bytes | None = None
    is_hidden: bool = False
    is_gone: bool = False
    is_strange: bool = False
    tags: frozenset[str] = frozenset()
    properties: dict[str, str] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        if self.is_gone:
            return "deleted"
        return "queued" if self.data is None else "active"

    @property
    def size(self) -> int | None:
        return None if self.data is None else len(self.data)


@dataclass(frozen=True)
class Query:
    """What a list asks for; None: not at all. `tie` is the way of what breaks ties."""

    limit: int | None = None
    marker: str | None = None
    sort: Sort = ()
    tie: str = "desc"
    visibility: str | None = None
    owner: str | None = None
    status: str | None = None
    tags: tuple[str, ...] = ()
    member_status: str | None = None
    is_hidden: bool | None = None
    name: str | None = None
    ids: tuple[str, ...] | None = None
    disk_format: str | None = None
    properties: tuple[tuple[str, str], ...] = ()
    instance: str | None = None
    installation: str | None = None


@dataclass(eq=False)
class World:
    """All images that ever were, behind one relproxy of one tenancy.

    A careless registry lists everything to everyone: then only relproxy's own rule is left.
    """

    tenancy: Tenancy
    images: list[Image] = field(default_factory=list)
    own_installation: str = ""
    is_careless: bool = False

    @property
    def is_only_wall(self) -> bool:
        return self.tenancy == "relproxy"

    def find(self, image_id: str) -> Image | None:
        """Return the image that has the id now; an id may have been another's before."""
        live = (image for image in self.images if image.id == image_id and not image.is_gone)
        return next(live, None)

    def owns(self, who: str, image: Image) -> bool:
        """Tell whose an image is: by record alone where the registry knows no customers."""
        if self.is_only_wall:
            return image.record is not None and image.record.project == who
        return image.owner == who

    def reads(self, who: str, image: Image) -> bool:
        """Tell whether somebody may read an image by its id, and begin a page behind it."""
        if image.is_gone:
            return False
        if who == ADMIN or image.visibility == "public" or self.owns(who, image):
            return True
        if self.is_only_wall:
            return False
        is_shared = image.visibility == "shared" and who in image.members
        return is_shared or image.visibility == "community" or image.owner is None

    def lists(self, who: str, image: Image, query: Query) -> bool:
        """Tell whether a list of theirs has the image, on whichever page."""
        return (
            not image.is_gone
            and self._is_offered(who, image, query)
            and self._is_of_visibility(who, image, query)
            and _passes(image, query)
            and self._is_of_instance(who, image, query)
        )

    def _is_offered(self, who: str, image: Image, query: Query) -> bool:
        if who == ADMIN or image.visibility == "public" or self.owns(who, image):
            return True
        if self.is_only_wall:
            return False
        if self.is_careless:
            # Who shares with whom is the registry's to know: what it lists as shared is shown.
            is_asked_for = query.visibility in {"all", "community"}
            return image.visibility == "shared" or (
                image.visibility == "community" and is_asked_for
            )
        if image.visibility == "shared" and who in image.members:
            return query.member_status in ("all", image.members[who]) or (
                query.member_status is None and image.members[who] == "accepted"
            )
        return image.visibility == "community"

    def _is_of_visibility(self, who: str, image: Image, query: Query) -> bool:
        """Glance leaves community images out, but for the caller's own, if nobody asks."""
        if query.visibility is not None:
            return query.visibility in ("all", image.visibility)
        if self.is_careless and who == ADMIN:
            return True
        knows_caller = not self.is_only_wall
        return image.visibility != "community" or (knows_caller and image.owner == who)

    def _is_of_instance(self, who: str, image: Image, query: Query) -> bool:
        if query.instance is None:
            return True
        record = image.record
        return (
            record is not None
            and record.instance == query.instance
            and record.installation == (query.installation or self.own_installation)
            and record.claimed_for in (None, record.project)
            and who in (ADMIN, record.project)
        )

    def order(self, query: Query) -> list[Image]:
        """Return all images as the registry sorts: by its full times, ties by id."""
        ranked = list(self.images)
        for key, direction in reversed(_complete(query.sort, query.tie)):
            ranked.sort(key=lambda image: _rank(image, key), reverse=direction == "desc")
        return ranked

    def marker(self, who: str, image_id: str) -> Image | None:
        """Return the image behind which somebody may begin; Glance's admin even a deleted one."""
        image = self.find(image_id)
        if image is not None:
            return image if self.is_careless or self.reads(who, image) else None
        gone = [image for image in self.images if image.id == image_id and who == ADMIN]
        return gone[-1] if gone else None

    def expected(self, who: str, query: Query, order: Sequence[Image]) -> list[Image] | None:
        """Return the images of all pages in the registry's order, or None for a refusal."""
        behind = order
        if query.marker is not None:
            marker = self.marker(who, query.marker)
            if marker is None:
                return None
            behind = order[order.index(marker) + 1 :]
        return [image for image in behind if self.lists(who, image, query)]


def _passes(image: Image, query: Query) -> bool:
    asked = (
        (query.owner, image.owner),
        (query.status, image.status),
        (query.name, image.name),
        (query.disk_format, image.disk_format),
        *((value, image.properties.get(name)) for name, value in query.properties),
    )
    return (
        all(wanted in (None, is_so) for wanted, is_so in asked)
        and image.is_hidden == bool(query.is_hidden)
        and (query.ids is None or image.id in query.ids)
        and image.tags.issuperset(query.tags)
    )


def _complete(sort: Sort, tie: str) -> Sort:
    given = sort or (("created_at", "desc"),)
    keys = [key for key, _ in given]
    return (*given, *((key, tie) for key in ("created_at", "id") if key not in keys))


def _rank(image: Image, key: str) -> str | int | datetime:
    """Return what an image sorts by; nothing is less than anything."""
    if key == "created_at":
        return image.created
    if key == "updated_at":
        return image.updated
    if key == "size":
        return image.size or 0
    value: str | None = getattr(image, key)
    return value or ""
