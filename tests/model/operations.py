"""What projects do, as values.

Images and words are meant by number, modulo what there is: so a story stays one when a part of it
is taken away, and shrinks to what matters. A failing story is printed as these values, and can be
played again from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VISIBILITIES = ("private", "shared", "public", "community")
STATUSES = ("accepted", "pending", "rejected")
SORT_KEYS = (
    *("name", "status", "container_format", "disk_format", "size", "id", "created_at"),
    "updated_at",
)


@dataclass(frozen=True)
class Create:
    """`capture` says how an instance is named: not, by headers, by properties, or as Nova does."""

    who: str
    visibility: str | None = None
    capture: str | None = None
    instance: int = 0
    installation: int | None = None
    id_of: int | None = None
    owner: str | None = None
    formats: int = 0
    tag: int | None = None
    hidden: bool = False


@dataclass(frozen=True)
class CreateAgain:
    """The id of a deleted image is taken again, some seconds later."""

    who: str
    image: int
    capture: str | None = None
    instance: int = 0


@dataclass(frozen=True)
class Appear:
    """An image is made behind relproxy's back; maybe with the id of one that was deleted."""

    owner: str
    visibility: str = "private"
    again: int | None = None


@dataclass(frozen=True)
class Upload:
    who: str
    image: int
    size: int = 1


@dataclass(frozen=True)
class Change:
    """A PATCH: `what` is name, tags, os_hidden, a property, visibility or owner."""

    who: str
    image: int
    what: str
    value: Any = 0


@dataclass(frozen=True)
class Tag:
    who: str
    image: int
    tag: int = 0
    is_taken_off: bool = False


@dataclass(frozen=True)
class Share:
    who: str
    image: int
    member: str


@dataclass(frozen=True)
class Reply:
    """A member accepts or rejects what was shared with it; or somebody tries to in its place."""

    who: str
    image: int
    member: str
    status: str = "accepted"


@dataclass(frozen=True)
class Unshare:
    who: str
    image: int
    member: str


@dataclass(frozen=True)
class Members:
    who: str
    image: int


@dataclass(frozen=True)
class Delete:
    who: str
    image: int


@dataclass(frozen=True)
class Vanish:
    """The image is deleted behind relproxy's back."""

    image: int


@dataclass(frozen=True)
class Show:
    who: str
    image: int


@dataclass(frozen=True)
class Download:
    who: str
    image: int


@dataclass(frozen=True)
class Wait:
    """The registry's clock goes on by so many microseconds."""

    microseconds: int


@dataclass(frozen=True)
class List:
    """`marker` is an image by number, "absent" or "malformed"; `filters` are (name, value)."""

    who: str
    limit: int | None = None
    sort: tuple[tuple[str, str], ...] = ()
    sort_style: str = "new"
    marker: int | str | None = None
    filters: tuple[tuple[str, Any], ...] = ()


# What is done to one image.
ById = (
    Upload | Change | Tag | Share | Reply | Unshare | Members | Delete | Show | Download | Vanish
    | CreateAgain
)  # fmt: skip
Operation = Create | Appear | Wait | List | ById


@dataclass(frozen=True)
class Knobs:
    """How the registry and relproxy are set for one story.

    `max_limit` is the registry's own; relproxy was told 7. `ids_bytes` is the room that relproxy
    takes one id to need: more makes it ask in several streams. Without `streams` it walks. A
    careless registry lists everything to everyone, and leaves it to relproxy to be the wall.
    """

    max_limit: int = 7
    ids_bytes: int = 37
    streams: int = 8
    is_frozen: bool = False
    is_careless: bool = False


@dataclass(frozen=True)
class Story:
    knobs: Knobs
    operations: tuple[Operation, ...]
