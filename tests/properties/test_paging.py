"""Promise 3, for any registry: full pages, in order, each visible image once, or a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relproxy.errors import ListChangedError, ListTooCostlyError
from relproxy.filters.query import ListQuery
from relproxy.paging import Found, Pager
from tests.unit.fake_registry import EVERYTHING, PUBLIC, FakeRegistry, by_ids, ids_of, pager

Find = Callable[[Pager, Found], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """A registry, what is visible in it, and by which streams that can be asked for."""

    images: dict[str, str]
    visible: frozenset[str]
    own: tuple[str, ...]
    stream_size: int
    max_limit: int
    max_ids: int

    @property
    def in_order(self) -> list[str]:
        return [image for image in self.images if image in self.visible]

    @property
    def streams(self) -> tuple[ListQuery, ...]:
        return (*by_ids(self.own, size=self.stream_size), PUBLIC)

    def registry(self) -> FakeRegistry:
        return FakeRegistry(dict(self.images), max_limit=self.max_limit)

    def pager(self, registry: FakeRegistry, *, pages: int = 100_000) -> Pager:
        return pager(
            registry, self.visible, pages=pages, max_limit=self.max_limit, max_ids=self.max_ids
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a registry where a project sees its own images and the public ones.

    Ids say nothing of the order, and the records name them in another one; some of them are of
    images that don't exist.
    """
    kinds = draw(st.lists(st.sampled_from(["public", "own", "own public", "foreign"]), max_size=40))
    names = draw(st.permutations([f"i{number}" for number in range(len(kinds))]))
    own = [name for name, kind in zip(names, kinds, strict=True) if "own" in kind]
    gone = [f"gone{number}" for number in range(draw(st.integers(0, 3)))]
    images = {
        name: "public" if "public" in kind else "private"
        for name, kind in zip(names, kinds, strict=True)
    }
    visible = frozenset(own) | {name for name, kind in images.items() if kind == "public"}
    recorded = tuple(draw(st.permutations([*own, *gone])))
    stream_size = draw(st.integers(max(1, len(recorded) // 4), 20))
    streams = -(-len(recorded) // stream_size) + 1
    return Case(
        images=images,
        visible=visible,
        own=recorded,
        stream_size=stream_size,
        max_limit=draw(st.integers(streams, streams + 30)),
        max_ids=draw(st.integers(streams, streams + 30)),
    )


def walked(case: Case) -> Find:
    del case
    return lambda finder, found: finder.walk(EVERYTHING, found)


def merged(case: Case) -> Find:
    return lambda finder, found: finder.merge(EVERYTHING, case.streams, found)


def walked_then_merged(case: Case) -> Find:
    async def find(finder: Pager, found: Found) -> None:
        await finder.walk(EVERYTHING, found, at_most=2)
        if found.missing:
            await finder.merge(EVERYTHING, case.streams, found)

    return find


WAYS = [
    pytest.param(walked, id="by a walk"),
    pytest.param(merged, id="by a merge"),
    pytest.param(walked_then_merged, id="by a walk and a merge"),
]


async def one_page(
    case: Case, registry: FakeRegistry, find: Find, *, limit: int, marker: str | None, pages: int
) -> tuple[list[str], bool]:
    """Return a page as a list request makes it, and whether there is a next one."""
    found = Found(wanted=limit + 1, marker=marker)
    await find(case.pager(registry, pages=pages), found)
    ids = ids_of(found)
    return ids[:limit], len(ids) > limit


async def all_pages(case: Case, find: Find, limit: int) -> list[list[str]]:
    """Follow `next` to the end."""
    registry = case.registry()
    pages: list[list[str]] = []
    marker, has_more = None, True
    while has_more:
        page, has_more = await one_page(
            case, registry, find, limit=limit, marker=marker, pages=100_000
        )
        pages.append(page)
        marker = page[-1] if page else None
        assert len(pages) <= len(case.visible) + 1
    return pages


@pytest.mark.parametrize("way", WAYS)
@given(case=cases(), limit=st.integers(1, 12))
def test_walking_all_pages_gives_each_visible_image_once_in_order(
    way: Callable[[Case], Find], case: Case, limit: int
) -> None:
    pages = asyncio.run(all_pages(case, way(case), limit))

    assert [image for page in pages for image in page] == case.in_order
    assert all(len(page) == limit for page in pages[:-1])
    # Never an empty page behind another one: openstacksdk would have followed a link to nothing.
    assert len(pages) == 1 or pages[-1]


@pytest.mark.parametrize("way", WAYS)
@given(case=cases(), limit=st.integers(1, 12), data=st.data())
def test_a_page_is_full_and_has_a_next_one_exactly_when_one_more_image_is_visible(
    way: Callable[[Case], Find], case: Case, limit: int, data: st.DataObject
) -> None:
    marker = data.draw(st.none() | st.sampled_from([*case.images]) if case.images else st.none())
    behind = [*case.images]
    if marker is not None:
        behind = behind[behind.index(marker) + 1 :]
    expected = [image for image in behind if image in case.visible]

    page, has_more = asyncio.run(
        one_page(case, case.registry(), way(case), limit=limit, marker=marker, pages=100_000)
    )

    assert page == expected[:limit]
    assert has_more is (len(expected) > limit)


@pytest.mark.parametrize("way", WAYS)
@given(case=cases(), limit=st.integers(1, 12), pages=st.integers(0, 12))
def test_a_list_that_costs_too_much_is_refused_and_never_cut(
    way: Callable[[Case], Find], case: Case, limit: int, pages: int
) -> None:
    registry = case.registry()
    try:
        page, has_more = asyncio.run(
            one_page(case, registry, way(case), limit=limit, marker=None, pages=pages)
        )
    except ListTooCostlyError:
        assert len(registry.asked) == pages
        return

    assert len(registry.asked) <= pages
    assert page == case.in_order[:limit]
    assert has_more is (len(case.in_order) > limit)


@pytest.mark.parametrize("way", WAYS)
@given(case=cases(), limit=st.integers(1, 12))
def test_no_request_is_over_what_one_request_may_hold(
    way: Callable[[Case], Find], case: Case, limit: int
) -> None:
    registry = case.registry()
    asyncio.run(one_page(case, registry, way(case), limit=limit, marker=None, pages=100_000))

    assert all(asked.limit <= case.max_limit for asked in registry.asked)
    ordering = [
        asked for asked in registry.asked if asked.ids and len(asked.ids) > case.stream_size
    ]
    assert all(len(asked.ids or ()) <= case.max_ids for asked in ordering)


@pytest.mark.parametrize("way", WAYS)
@given(case=cases(), limit=st.integers(1, 12), data=st.data())
def test_images_that_are_deleted_meanwhile_never_hide_another(
    way: Callable[[Case], Find], case: Case, limit: int, data: st.DataObject
) -> None:
    # At one moment, the ends of some of the pages before it: what a merge counts on.
    moment = data.draw(st.integers(1, 8))
    backwards = data.draw(st.sets(st.integers(1, 5), min_size=1, max_size=2))
    registry = case.registry()
    deleted: set[str] = set()

    def delete(request: int) -> None:
        if request != moment:
            return
        deleted.update(registry.ends[-n] for n in backwards if n <= len(registry.ends))
        for image in deleted:
            registry.delete(image)

    registry.before_page = delete
    try:
        page, has_more = asyncio.run(
            one_page(case, registry, way(case), limit=limit, marker=None, pages=500)
        )
    except (ListChangedError, ListTooCostlyError):
        return

    lasting = [image for image in case.in_order if image not in deleted]
    seen = [image for image in page if image not in deleted]
    assert len(page) == len(set(page))
    assert page == [image for image in case.in_order if image in set(page)]
    # Whatever lasted is there, without a gap, up to the end of the page.
    assert seen == lasting[: len(seen)]
    if has_more:
        assert len(page) == limit
    else:
        assert seen == lasting
