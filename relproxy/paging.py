"""Exact pages from filtered ones: `limit` visible images whenever so many exist.

A *walk* reads one stream of upstream pages and keeps what is visible until enough is there. Where
one stream can't say what is wanted (more ids than a URL holds; "own or public" on a registry that
can't say *or*), several streams are *merged*, and the registry itself says in which order: a round
takes the first few images of each stream, asks for those candidates together, and keeps the merged
order up to where a stream may have more to say. No order is ever compared here: the registry sorts
by full timestamps that it shows cut to the second, and by its database's collation.

Both cost upstream requests, and one list may cost only so many (`PageBudget`). A page that is too
large is asked for again in halves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from relproxy.errors import AnswerTooLargeError, ListTooCostlyError
from relproxy.filters.base import Page, Row
from relproxy.filters.query import ListQuery

# One upstream page: what is asked, how many images, after which one.
Fetch = Callable[[ListQuery, int, str | None], Awaitable[Page]]
# Which of these rows may the caller see?
Keep = Callable[[Sequence[Row]], Awaitable[Sequence[Row]]]

_TOO_COSTLY = (
    "This list needs more work than one request may cost: narrow it with a filter, or ask for "
    "fewer images."
)


@dataclass(slots=True)
class PageBudget:
    """How many more upstream pages this list may cost."""

    left: int

    def spend(self) -> None:
        """Take one page off; raises `ListTooCostlyError` when none is left."""
        if self.left <= 0:
            raise ListTooCostlyError(_TOO_COSTLY)
        self.left -= 1


@dataclass(slots=True)
class Found:
    """Visible rows in the registry's order, and how far the registry was read to find them."""

    wanted: int
    marker: str | None
    rows: list[Row] = field(default_factory=list)
    is_exhausted: bool = False

    @property
    def missing(self) -> int:
        """Return how many rows are still wanted and may exist."""
        return 0 if self.is_exhausted else max(0, self.wanted - len(self.rows))


class Pager:
    """Finds the visible rows of one list request."""

    def __init__(
        self, fetch: Fetch, keep: Keep, *, budget: PageBudget, max_limit: int, max_ids: int
    ) -> None:
        self._fetch = fetch
        self._keep = keep
        self._budget = budget
        self._max_limit = max_limit
        self._max_candidates = min(max_ids, max_limit)

    async def walk(
        self,
        query: ListQuery,
        found: Found,
        *,
        at_most: int | None = None,
        first_size: int | None = None,
    ) -> None:
        """Read one stream until enough is found, or `at_most` pages were read.

        The first page is of as many images as are wanted, or of `first_size`.
        """
        size = first_size or found.wanted
        while found.missing and at_most != 0:
            size = min(size, self._max_limit)
            page = await self._page(query, size, found.marker)
            kept = await self._take(page.rows, found)
            found.marker = page.next_marker
            found.is_exhausted = page.next_marker is None
            # All visible: ask for what is missing. Something hidden: look further at a time.
            size = found.missing if kept == len(page.rows) else size * 2
            at_most = None if at_most is None else at_most - 1

    async def merge(self, query: ListQuery, streams: Sequence[ListQuery], found: Found) -> None:
        """Merge `streams`, each of them `query` with one more filter, until enough is found."""
        if len(streams) > self._max_candidates:
            # Not one candidate of each would fit the question in which order they come.
            raise ListTooCostlyError(_TOO_COSTLY)
        sources = [_Source(stream, found.marker) for stream in streams]
        while found.missing:
            for source in sources:
                await self._refill(source, found.missing)
            live = [source for source in sources if source.rows]
            if len(live) > 1:
                certain = await self._ordered(query, live)
            else:
                # One stream is in the registry's order already.
                certain = [row for source in live for row in source.rows]
            await self._take(certain, found)
            _drop(sources, {row.facts.id for row in certain})
            found.is_exhausted = not any(s.rows or s.has_more for s in sources)

    async def _refill(self, source: _Source, wanted: int) -> None:
        while not source.rows and source.has_more:
            page = await self._page(source.query, min(wanted, self._max_limit), source.marker)
            # A row without an id that two readers would read alike is nobody's to see.
            source.rows = [row for row in page.rows if row.facts.id is not None]
            source.marker = page.next_marker
            source.has_more = page.next_marker is not None

    async def _ordered(self, query: ListQuery, live: Sequence[_Source]) -> Sequence[Row]:
        """Let the registry sort the first rows of each source; return those whose place is certain.

        Candidates that were deleted meanwhile are dropped from their sources.
        """
        share = max(1, self._max_candidates // len(live))
        asked = [[row.facts.id or "" for row in source.rows[:share]] for source in live]
        ids = tuple(dict.fromkeys(image_id for some in asked for image_id in some))
        limit = min(len(ids) + 1, self._max_limit)
        # One more than there are: a page that is exactly full has a `next` though nothing follows.
        page = await self._page(query.within("id", f"in:{','.join(ids)}"), limit, None)
        if page.next_marker is not None and len(page.rows) < len(ids):
            # The registry gives fewer images at a time than it was thought to: ask for fewer.
            self._max_candidates = max(len(live), min(len(page.rows), self._max_candidates // 2))
            return ()
        places = {row.facts.id: place for place, row in enumerate(page.rows)}
        _drop(live, set(ids) - set(places))
        certain = len(page.rows)
        for source, some in zip(live, asked, strict=True):
            if source.has_more or len(source.rows) > sum(i in places for i in some):
                # What comes behind the last of these isn't known yet.
                known = [places[image_id] for image_id in some if image_id in places]
                certain = min(certain, known[-1] + 1 if known else 0)
        return page.rows[:certain]

    async def _page(self, query: ListQuery, limit: int, marker: str | None) -> Page:
        self._budget.spend()
        try:
            return await self._fetch(query, limit, marker)
        except AnswerTooLargeError:
            if limit <= 1:
                raise
            self._max_limit = limit // 2
            return await self._page(query, self._max_limit, marker)

    async def _take(self, rows: Sequence[Row], found: Found) -> int:
        """Keep the visible rows; return how many there were."""
        kept = await self._keep(rows)
        found.rows.extend(kept)
        return len(kept)


@dataclass(slots=True)
class _Source:
    """One stream of a merge: rows that were read and not placed yet, and whether there are more."""

    query: ListQuery
    marker: str | None
    rows: list[Row] = field(default_factory=list)
    has_more: bool = True


def _drop(sources: Sequence[_Source], ids: AbstractSet[str | None]) -> None:
    """Take rows out of every source: an image may be in several of them."""
    for source in sources:
        source.rows = [row for row in source.rows if row.facts.id not in ids]
