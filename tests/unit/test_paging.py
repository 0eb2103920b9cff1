from __future__ import annotations

import pytest

from relproxy.errors import ListTooCostlyError
from relproxy.filters.base import Page, Row
from relproxy.filters.query import ListQuery
from relproxy.filters.visibility import ImageFacts
from relproxy.paging import Found, PageBudget, Pager
from tests.unit.fake_registry import (
    EVERYTHING,
    PUBLIC,
    Asked,
    FakeRegistry,
    by_ids,
    ids_of,
    only,
    pager,
)


def registry(order: str, *, public: str = "", max_limit: int = 1000) -> FakeRegistry:
    """Return a registry whose images have one letter each, in this order."""
    images = {image: "public" if image in public else "private" for image in order}
    return FakeRegistry(images, max_limit=max_limit)


# -- budget


def test_a_budget_allows_as_many_pages_as_it_says() -> None:
    budget = PageBudget(2)

    budget.spend()
    budget.spend()
    with pytest.raises(ListTooCostlyError):
        budget.spend()


# -- walk


async def test_a_page_that_is_all_visible_costs_one_request() -> None:
    glance = registry("abcdefgh")
    found = Found(wanted=4, marker=None)

    await pager(glance, "abcdefgh").walk(EVERYTHING, found)

    assert ids_of(found) == list("abcd")
    assert glance.asked == [Asked(None, 4, None)]
    assert not found.missing


async def test_a_walk_begins_behind_its_marker() -> None:
    glance = registry("abcdefgh")
    found = Found(wanted=3, marker="c")

    await pager(glance, "abcdefgh").walk(EVERYTHING, found)

    assert ids_of(found) == list("def")


async def test_a_walk_goes_on_until_enough_is_visible() -> None:
    glance = registry("abcdefghijkl")
    found = Found(wanted=3, marker=None)

    await pager(glance, "bkl").walk(EVERYTHING, found)

    assert ids_of(found) == list("bkl")


async def test_a_walk_looks_further_at_a_time_where_much_is_hidden() -> None:
    glance = registry("abcdefghijklmnopqrstuvwxyz")
    found = Found(wanted=2, marker=None)

    await pager(glance, "z").walk(EVERYTHING, found)

    assert [asked.limit for asked in glance.asked] == [2, 4, 8, 16]
    assert found.is_exhausted


async def test_a_walk_asks_for_no_more_than_the_registry_gives() -> None:
    glance = registry("abcdefghij", max_limit=3)
    found = Found(wanted=5, marker=None)

    await pager(glance, "aj", max_limit=3).walk(EVERYTHING, found)

    assert ids_of(found) == list("aj")
    assert {asked.limit for asked in glance.asked} == {3}


async def test_a_registry_that_gives_less_than_was_asked_for_is_asked_again() -> None:
    glance = registry("abcdefghij", max_limit=2)
    found = Found(wanted=5, marker=None)

    await pager(glance, "abcdefghij").walk(EVERYTHING, found)

    assert ids_of(found)[:5] == list("abcde")


async def test_a_walk_ends_with_the_registry() -> None:
    glance = registry("abc")
    found = Found(wanted=5, marker=None)

    await pager(glance, "ac").walk(EVERYTHING, found)

    assert ids_of(found) == list("ac")
    assert found.is_exhausted
    assert found.missing == 0


async def test_an_empty_registry_is_an_empty_page() -> None:
    found = Found(wanted=5, marker=None)

    await pager(registry(""), "").walk(EVERYTHING, found)

    assert ids_of(found) == []
    assert found.is_exhausted


async def test_nothing_is_asked_where_nothing_is_wanted() -> None:
    glance = registry("abc")

    await pager(glance, "abc").walk(EVERYTHING, Found(wanted=0, marker=None))
    await pager(glance, "abc").merge(EVERYTHING, (PUBLIC,), Found(wanted=0, marker=None))

    assert glance.asked == []


async def test_a_walk_stops_after_the_pages_that_it_may_read() -> None:
    glance = registry("abcdefghijkl")
    found = Found(wanted=2, marker=None)

    await pager(glance, "al").walk(EVERYTHING, found, at_most=2)

    assert len(glance.asked) == 2
    assert ids_of(found) == ["a"]
    assert found.missing == 1
    assert found.marker == "f"


async def test_a_walk_that_costs_too_much_shows_nothing() -> None:
    glance = registry("abcdefghijkl")

    with pytest.raises(ListTooCostlyError):
        await pager(glance, "l", pages=2).walk(EVERYTHING, Found(wanted=1, marker=None))

    assert len(glance.asked) == 2


# -- merge


async def test_streams_are_merged_in_the_order_of_the_registry() -> None:
    glance = registry("abcdefgh", public="bf")
    found = Found(wanted=10, marker=None)

    await pager(glance, "abcdef").merge(EVERYTHING, (*by_ids("eac", size=2), PUBLIC), found)

    assert ids_of(found) == list("abcef")
    assert found.is_exhausted


async def test_an_image_in_several_streams_is_found_once() -> None:
    glance = registry("abc", public="abc")
    found = Found(wanted=10, marker=None)

    await pager(glance, "abc").merge(EVERYTHING, (*by_ids("abc", size=3), PUBLIC), found)

    assert ids_of(found) == list("abc")


async def test_a_merge_begins_behind_its_marker() -> None:
    glance = registry("abcdefgh", public="adg")
    found = Found(wanted=10, marker="c")

    await pager(glance, "abcdefgh").merge(EVERYTHING, (*by_ids("bch", size=3), PUBLIC), found)

    assert ids_of(found) == list("dgh")


async def test_a_merge_filters_what_the_streams_bring() -> None:
    glance = registry("abcd", public="abcd")
    found = Found(wanted=10, marker=None)

    await pager(glance, "bd").merge(EVERYTHING, (PUBLIC,), found)

    assert ids_of(found) == list("bd")


async def test_a_merge_of_no_streams_finds_nothing() -> None:
    glance = registry("abc")
    found = Found(wanted=10, marker=None)

    await pager(glance, "abc").merge(EVERYTHING, (), found)

    assert ids_of(found) == []
    assert found.is_exhausted


async def test_a_merge_of_empty_streams_finds_nothing() -> None:
    glance = registry("abc")
    found = Found(wanted=10, marker=None)

    await pager(glance, "abc").merge(EVERYTHING, (*by_ids("xyz", size=2), PUBLIC), found)

    assert ids_of(found) == []
    assert found.is_exhausted


async def test_a_merge_asks_for_no_more_ids_than_one_request_holds() -> None:
    order = "abcdefghijklmnopqrstuvwxyz"
    glance = registry(order, public="bdfhjlnprtvxz")
    found = Found(wanted=26, marker=None)

    await pager(glance, order, max_ids=7).merge(
        EVERYTHING, (*by_ids("acegikmoqsuwy", size=7), PUBLIC), found
    )

    assert ids_of(found) == list(order)
    assert all(asked.ids is None or len(asked.ids) <= 7 for asked in glance.asked)


@pytest.mark.parametrize(("max_ids", "max_limit"), [(2, 1000), (200, 2)])
async def test_more_streams_than_a_request_holds_ids_are_never_half_a_page(
    max_ids: int, max_limit: int
) -> None:
    glance = registry("abcdef", public="f", max_limit=max_limit)
    found = Found(wanted=10, marker=None)
    streams = (*by_ids("abcde", size=2), PUBLIC)

    with pytest.raises(ListTooCostlyError):
        await pager(glance, "abcdef", max_ids=max_ids, max_limit=max_limit).merge(
            EVERYTHING, streams, found
        )


async def test_a_merge_keeps_the_filters_of_the_client() -> None:
    glance = registry("abcd", public="ab")
    found = Found(wanted=10, marker=None)

    await pager(glance, "abcd").merge(PUBLIC, [PUBLIC.within("id", "in:a,c,d")], found)

    assert ids_of(found) == ["a"]


async def test_a_merge_that_costs_too_much_shows_nothing() -> None:
    glance = registry("abcdefgh", public="aceg")

    with pytest.raises(ListTooCostlyError):
        await pager(glance, "abcdefgh", pages=5, max_ids=2).merge(
            EVERYTHING, (*by_ids("bdfh", size=4), PUBLIC), Found(wanted=8, marker=None)
        )

    assert len(glance.asked) == 5


async def test_a_merge_takes_up_where_a_walk_stopped() -> None:
    glance = registry("abcdefghijkl", public="ak")
    own = "bhl"
    found = Found(wanted=6, marker=None)
    finder = pager(glance, "abhkl")

    await finder.walk(EVERYTHING, found, at_most=1)
    await finder.merge(EVERYTHING, (*by_ids(own, size=2), PUBLIC), found)

    assert ids_of(found) == list("abhkl")


# -- images that go away meanwhile


async def test_an_end_that_is_deleted_before_the_question_of_order_hides_nothing_behind_it() -> (
    None
):
    # The first stream ends at b and may have more; b is gone when the order is asked for.
    glance = registry("abcxyz", public="xyz")
    found = Found(wanted=10, marker=None)

    def delete_b(request: int) -> None:
        if request == 2:
            glance.delete("b")

    glance.before_page = delete_b
    await pager(glance, "abcxyz", max_ids=4).merge(
        EVERYTHING, (*by_ids("abc", size=3), PUBLIC), found
    )

    assert [image for image in ids_of(found) if image != "b"] == list("acxyz")


async def test_every_end_that_is_deleted_only_costs_another_round() -> None:
    glance = registry("abcxyz", public="xyz")
    found = Found(wanted=10, marker=None)

    def delete_ends(request: int) -> None:
        if request == 2:
            glance.delete("b")
            glance.delete("y")

    glance.before_page = delete_ends
    await pager(glance, "abcxyz", max_ids=4).merge(
        EVERYTHING, (*by_ids("abc", size=3), PUBLIC), found
    )

    assert ids_of(found) == list("acxz")


async def test_a_page_of_unreadable_rows_does_not_end_its_stream() -> None:
    images = {"a": "private", "b": "public", "c": "public", "d": "private"}
    registry = FakeRegistry(images)

    async def fetch(query: ListQuery, limit: int, marker: str | None) -> Page:
        page = await registry.fetch(query, limit, marker)
        unreadable = ImageFacts(None, None, None, None)
        rows = tuple(Row(unreadable, r.raw) if r.facts.id == "b" else r for r in page.rows)
        return Page(rows, page.next_marker, page.envelope)

    found = Found(wanted=1, marker=None)
    readable = Pager(fetch, only(images), budget=PageBudget(50), max_limit=1000, max_ids=9)
    for expected in ("a", "c", "d"):
        await readable.merge(EVERYTHING, [*by_ids("ad", size=2), PUBLIC], found)
        assert ids_of(found)[-1:] == [expected]
        found = Found(wanted=1, marker=expected)
