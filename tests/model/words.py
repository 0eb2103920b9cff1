"""What the numbers and names of one story stand for: words that nobody can guess."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from urllib.parse import urlencode

from tests.model.leaks import new_mark
from tests.model.operations import List
from tests.model.world import PROJECTS, Image, Query, Sort, World

INSTALLATIONS = ("6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01", "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02")
PROPERTY = "colour"
_ABSENT = {"absent": "0d0d0d0d-0000-4000-8000-00000000000d", "malformed": "é/..?&="}
_FORMS = {"id": "{}", "id eq": "eq:{}", "id in": "in:{}", "id quoted": "in:{}"}

Pairs = tuple[tuple[str, str], ...]
Pool = tuple[str, ...]


def _three() -> Pool:
    return tuple(new_mark() for _ in range(3))


@dataclass(eq=False)
class Words:
    """The words of one story in one world; `projects` maps a name to what it really is."""

    world: World
    projects: dict[str, str] = field(
        default_factory=lambda: {name: f"{name}-{new_mark()}" for name in PROJECTS}
    )
    tags: Pool = field(default_factory=_three)
    values: Pool = field(default_factory=_three)
    instances: Pool = field(default_factory=_three)

    def image(self, number: int) -> Image | None:
        """Return an image that there is, or was; the present one if the id was taken again."""
        images = [image for image in self.world.images if not image.is_strange]
        if not images:
            return None
        image = images[number % len(images)]
        return self.world.find(image.id) or image

    def image_id(self, number: int) -> str:
        """Return an image's id; where there never was an image, one that nothing has."""
        image = self.image(number)
        return image.id if image else str(uuid.uuid4())

    def everything(self) -> Pool:
        """Return all words that may only be told to whom they concern."""
        return (*self.projects.values(), *self.tags, *self.values, *self.instances)

    def query(self, asked: List) -> Query:
        """Return what a list means."""
        sort, tie = _sort_of(asked)
        said = dict(asked.filters)
        form = next((form for form in _FORMS if form in said), None)
        numbers: tuple[int, ...] = () if form is None else said[form]
        numbers = numbers if form in {"id in", "id quoted"} else numbers[:1]
        instance, installation = said.get("instance_id", (None, None))
        name = self.image(said["name"]) if "name" in said else None
        marker = asked.marker
        if isinstance(marker, int):
            marker = self.image_id(marker)
        colour = self.values[said["property"]] if "property" in said else None
        return Query(
            limit=asked.limit,
            marker=None if marker is None else _ABSENT.get(marker, marker),
            sort=sort,
            tie=tie,
            visibility=said.get("visibility"),
            owner=said.get("owner"),
            status=said.get("status"),
            tags=tuple(self.tags[tag] for tag in said.get("tag", ())),
            member_status=said.get("member_status"),
            is_hidden=said.get("os_hidden"),
            name=None if "name" not in said else name.name if name else "none",
            ids=None if form is None else tuple(map(self.image_id, numbers)),
            disk_format=said.get("disk_format"),
            properties=() if colour is None else ((PROPERTY, colour),),
            instance=None if instance is None else self.instances[instance],
            installation=None if installation is None else INSTALLATIONS[installation],
        )

    def pairs(self, asked: List, query: Query) -> Pairs:
        """Return the parameters that ask so, but for the marker."""
        owner = query.owner and self.projects[query.owner]
        hidden = None if query.is_hidden is None else str(query.is_hidden).lower()
        asked_once = (
            ("limit", None if query.limit is None else str(query.limit)),
            ("visibility", query.visibility),
            ("owner", owner),
            ("status", query.status),
            ("member_status", query.member_status),
            ("os_hidden", hidden),
            ("name", query.name),
            ("id", _ids(asked, query)),
            ("disk_format", query.disk_format),
            ("instance_id", query.instance),
            ("nova_installation_uuid", query.installation),
            *query.properties,
        )
        tags = (("tag", tag) for tag in query.tags)
        said = ((name, value) for name, value in asked_once if value is not None)
        return (*_sort_pairs(asked), *tags, *said)


def target(pairs: Pairs, marker: str | None) -> str:
    """Return the target of a list."""
    more = () if marker is None else (("marker", marker),)
    question = "?" if pairs or more else ""
    return f"/v2/images{question}{urlencode((*pairs, *more))}"


def _sort_of(asked: List) -> tuple[Sort, str]:
    """Return every key with its way, and the way of what breaks ties.

    Glance takes a single direction for all keys, and for the ties too.
    """
    keys, ways = [key for key, _ in asked.sort], [way for _, way in asked.sort]
    if not keys:
        return (), "desc"
    if asked.sort_style == "keys no way":
        ways = ["desc"]
    elif asked.sort_style == "keys one way":
        ways = ways[:1]
    tie = ways[0] if len(ways) == 1 else "desc"
    ways = ways * len(keys) if len(ways) == 1 else ways
    return tuple(zip(keys, ways, strict=True)), tie


def _sort_pairs(asked: List) -> Pairs:
    if not asked.sort:
        return ()
    if asked.sort_style == "new":
        return (("sort", ",".join(f"{key}:{way}" for key, way in asked.sort)),)
    shown = {"keys": len(asked.sort), "keys one way": 1, "keys no way": 0}[asked.sort_style]
    keys = tuple(("sort_key", key) for key, _ in asked.sort)
    return (*keys, *(("sort_dir", way) for _, way in asked.sort[:shown]))


def _ids(asked: List, query: Query) -> str | None:
    form = next((name for name, _ in asked.filters if name in _FORMS), None)
    if form is None or query.ids is None:
        return None
    quote = '"' if form == "id quoted" else ""
    return _FORMS[form].format(",".join(f"{quote}{image_id}{quote}" for image_id in query.ids))
