"""A registry in memory, as `relproxy.paging` sees one: pages of images in one total order."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from relproxy.errors import ListChangedError
from relproxy.filters.base import Page, Row
from relproxy.filters.query import ListQuery, parse_list_query
from relproxy.filters.visibility import ImageFacts
from relproxy.paging import Found, PageBudget, Pager

EVERYTHING = parse_list_query("")


@dataclass(frozen=True)
class Asked:
    """One request that the registry got: the ids of its `in:` filter, if it had one."""

    ids: tuple[str, ...] | None
    limit: int
    marker: str | None


@dataclass
class FakeRegistry:
    """Images in their order, each with its visibility; `marker` and `next` work as in Glance.

    `before_page` is called with the number of each request before it is answered; `ends` has the
    last image of every page that was.
    """

    images: dict[str, str]
    max_limit: int = 1000
    before_page: Callable[[int], None] = field(default=lambda _: None)
    asked: list[Asked] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._place = {image_id: place for place, image_id in enumerate(self.images)}

    def delete(self, image_id: str) -> None:
        """Forget an image."""
        self.images.pop(image_id, None)

    async def fetch(self, query: ListQuery, limit: int, marker: str | None) -> Page:
        """Return the page that Glance would return."""
        self.before_page(len(self.asked))
        ids = query.filter("id")
        wanted = None if ids is None else tuple(ids.removeprefix("in:").split(","))
        self.asked.append(Asked(wanted, limit, marker))
        if marker is not None and marker not in self.images:
            raise ListChangedError("There is no image with this marker.")
        begin = -1 if marker is None else self._place[marker]
        found = (
            Row(ImageFacts(image_id, None, visibility, "now"), image_id.encode())
            for image_id, visibility in self.images.items()
            if self._place[image_id] > begin
            and (wanted is None or image_id in wanted)
            and query.filter("visibility") in {None, visibility}
        )
        size = min(limit, self.max_limit)
        rows = tuple(itertools.islice(found, size))
        self.ends += [row.facts.id or "" for row in rows[-1:]]
        is_full = 0 < size == len(rows)
        return Page(rows, rows[-1].facts.id if is_full else None, envelope=None)


def only(visible: Collection[str]) -> Callable[[Sequence[Row]], Awaitable[Sequence[Row]]]:
    """Return the rule that shows these images and no others."""

    async def keep(rows: Sequence[Row]) -> Sequence[Row]:
        return [row for row in rows if row.facts.id in visible]

    return keep


def by_ids(ids: Iterable[str], *, size: int) -> list[ListQuery]:
    """Return streams that ask for these ids, `size` of them each."""
    ordered = list(ids)
    return [
        EVERYTHING.within("id", f"in:{','.join(ordered[start : start + size])}")
        for start in range(0, len(ordered), size)
    ]


PUBLIC = EVERYTHING.within("visibility", "public")


def pager(
    registry: FakeRegistry,
    visible: Collection[str],
    *,
    pages: int = 10_000,
    max_limit: int = 1000,
    max_ids: int = 200,
) -> Pager:
    """Return a pager that shows the visible images of a registry."""
    return Pager(
        registry.fetch,
        only(visible),
        budget=PageBudget(pages),
        max_limit=max_limit,
        max_ids=max_ids,
    )


def ids_of(found: Found) -> list[str]:
    """Return the ids of what was found, in its order."""
    return [row.facts.id or "" for row in found.rows]
