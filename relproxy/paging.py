"""Exact pages from filtered ones: `limit` visible images whenever so many exist.

A *walk* reads one stream of upstream pages and keeps what is visible until enough is there. Where
one stream can't say what is wanted (more ids than a URL holds; "own or public" on a registry that
can't say *or*), several streams are *merged*, and the registry itself says in which order: a round
takes the first few images of each stream, asks for those candidates together, and keeps the merged
order up to where a stream may have more to say. No order is ever compared here: the registry sorts
by full timestamps that it shows cut to the second, and by its database's collation.

Both cost upstream requests, and one list may cost only so many (`PageBudget`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from relproxy.errors import ListTooCostlyError
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

    async def walk(self, query: ListQuery, found: Found, *, at_most: int | None = None) -> None:
        """Read one stream until enough is found, or `at_most` pages were read."""
        size = found.wanted
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
        if not streams:
            found.is_exhausted = True
        while found.missing:
            share = max(1, min(self._max_candidates // len(streams), found.missing))
            pages = [await self._page(stream, share, found.marker) for stream in streams]
            ids = dict.fromkeys(row.facts.id for page in pages for row in page.rows if row.facts.id)
            # The ends of the streams that have more: what comes behind one isn't certain yet.
            frontier = {page.next_marker for page in pages if page.next_marker is not None}
            certain = await self._ordered(query, tuple(ids), frontier)
            await self._take(certain, found)
            if certain:
                found.marker = certain[-1].facts.id
            found.is_exhausted = not frontier

    async def _ordered(
        self, query: ListQuery, ids: tuple[str, ...], frontier: set[str]
    ) -> Sequence[Row]:
        """Let the registry sort the candidates; return those whose place is certain.

        Returns none if the end of a stream was deleted meanwhile: that round proved nothing.
        """
        if not ids:
            return ()
        page = await self._page(query.within("id", f"in:{','.join(ids)}"), len(ids), None)
        if not frontier:
            return page.rows
        ends = [index for index, row in enumerate(page.rows) if row.facts.id in frontier]
        if len(ends) < len(frontier):
            return ()
        return page.rows[: ends[0] + 1]

    async def _page(self, query: ListQuery, limit: int, marker: str | None) -> Page:
        self._budget.spend()
        return await self._fetch(query, limit, marker)

    async def _take(self, rows: Sequence[Row], found: Found) -> int:
        """Keep the visible rows; return how many there were."""
        kept = await self._keep(rows)
        found.rows.extend(kept)
        return len(kept)
