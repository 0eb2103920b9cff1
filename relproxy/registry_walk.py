"""A walk through all images of one registry: gently, patiently, from wherever it was broken off.

A page is asked for again where the registry is away for a while, answers half a body or doesn't
take the credentials any more: these are reads. An image that was deleted marks no place; then the
walk goes back to one that it has passed, and comes by some images a second time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from relproxy.errors import (
    AnswerTooLargeError,
    RegistryGarbageError,
    RegistryTimeoutError,
    RelproxyError,
    WalkRefusedError,
)
from relproxy.filters.base import Dialect, Page, Row, check_named
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Headers
from relproxy.pace import Pace
from relproxy.settlement import Asked

_LOG = logging.getLogger(__name__)

_T = TypeVar("_T")
# Status, headers, body.
Answering = Awaitable[tuple[int, Headers, bytes]]

# A page of Glance's takes about as long as ten images by id (16 ms one, 300 ms 250 of them).
_PAGE_COSTS = 10.0
# For one whole answer: Glance takes a second for a page of 1,000.
_ASKED_S = 60.0
_ATTEMPTS = 8
_FIRST_PAUSE_S = 0.5
# What may be otherwise the next time; 401 because a token expired, or was revoked.
_PASSING = frozenset({401, 408, 429, *range(500, 600)})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walk goes on: in which part of the list, behind which image (None: at its start)."""

    part: int = 0
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class WalkedPage:
    """Images as the registry showed them to somebody who asked at `asked_at`.

    `following` is where the walk goes on, None at its end.
    """

    rows: tuple[Row, ...]
    asked_at: datetime
    following: Place | None


class RegistryWalk:
    """Asks one registry; `page_size` images at a time, `per_s` pages a second at most."""

    def __init__(self, asked: Asked, *, max_bytes: int, page_size: int, per_s: float) -> None:
        self._asked = asked
        self._max_bytes = max_bytes
        self._page_size = page_size
        self._pace = Pace(per_s * _PAGE_COSTS)

    async def pages(
        self, place: Place, passed: Callable[[], Iterable[str]]
    ) -> AsyncIterator[WalkedPage]:
        """Yield pages from a place on; `passed` gives ids of images passed before, latest first.

        Raises what the registry's answers were, once it has been asked often enough.
        """
        following: Place | None = place
        while following is not None:
            page = await self._page(following)
            if page is None:
                following = await self._earlier(following, passed())
                continue
            yield page
            following = page.following

    async def image(self, image_id: str) -> tuple[ImageFacts | None, datetime]:
        """Return an image, None where the registry has none, and when it was asked for."""
        dialect = self._asked.dialect

        def read(status: int, headers: Headers, body: bytes) -> ImageFacts | None:
            if status == HTTPStatus.NOT_FOUND:
                return None
            _check_ok(status)
            facts = dialect.image_facts(headers, body)
            check_named(facts.id, image_id)
            # An admin may be shown what was deleted.
            is_deleted = dialect.particulars(headers, body).get("status") == "deleted"
            return None if is_deleted else facts

        def ask() -> Answering:
            return self._asked.image(image_id, max_bytes=self._max_bytes)

        await self._pace.wait(1)
        return await self._patiently(ask, read)

    async def _page(self, place: Place) -> WalkedPage | None:
        """Return the page behind a place; None if there is no image any more to mark it."""
        dialect = self._asked.dialect

        def read(status: int, _: Headers, body: bytes) -> Page | None:
            if place.marker is not None and _is_unknown(dialect, status, body):
                return None
            _check_ok(status)
            return dialect.page(body)

        while True:
            part = dialect.list_parts[place.part]
            target = dialect.part_target(part, limit=self._page_size, marker=place.marker)
            await self._pace.wait(_PAGE_COSTS)
            try:
                page, asked_at = await self._patiently(partial(self._get, target), read)
            except AnswerTooLargeError:
                if self._page_size == 1:
                    raise
                self._page_size //= 2
                continue
            return None if page is None else self._walked(page, place, asked_at)

    def _walked(self, page: Page, place: Place, asked_at: datetime) -> WalkedPage:
        following: Place | None = Place(place.part, page.next_marker)
        if page.next_marker is None:
            is_last = place.part + 1 == len(self._asked.dialect.list_parts)
            following = None if is_last else Place(place.part + 1)
        elif page.next_marker == place.marker or not page.rows:
            raise RegistryGarbageError("The registry's link to the next page leads to the same.")
        return WalkedPage(page.rows, asked_at, following)

    async def _earlier(self, place: Place, passed: Iterable[str]) -> Place:
        """Go back to the last image passed that is still there; twice as far each time."""
        _LOG.warning("marker is gone", extra={"image_id": place.marker})
        step = 1
        for number, image_id in enumerate(passed, start=1):
            if number != step:
                continue
            step *= 2
            facts, _ = await self.image(image_id)
            if facts is not None:
                return Place(place.part, image_id)
        return Place(place.part)

    def _get(self, target: str) -> Answering:
        return self._asked.get(target, max_bytes=self._max_bytes)

    async def _patiently(
        self, ask: Callable[[], Answering], read: Callable[[int, Headers, bytes], _T]
    ) -> tuple[_T, datetime]:
        """Ask until the answer can be read; return what it says and when it was asked for."""
        for attempt in range(_ATTEMPTS - 1):
            try:
                return await _once(ask, read)
            except (AnswerTooLargeError, WalkRefusedError):
                raise
            except RelproxyError as failure:
                _LOG.warning("page asked for again", extra={"reason": failure.sentence})
                await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
        return await _once(ask, read)


async def _once(
    ask: Callable[[], Answering], read: Callable[[int, Headers, bytes], _T]
) -> tuple[_T, datetime]:
    # Before it is asked: whatever happens to an image meanwhile is later than the answer.
    asked_at = datetime.now(UTC)
    try:
        async with asyncio.timeout(_ASKED_S):
            answer = await ask()
    except TimeoutError as failure:
        raise RegistryTimeoutError("The registry did not answer in time.") from failure
    return read(*answer), asked_at


def _is_unknown(dialect: Dialect, status: int, body: bytes) -> bool:
    is_error = status not in _PASSING and status != HTTPStatus.OK
    return is_error and (status == HTTPStatus.NOT_FOUND or dialect.is_unknown_marker(status, body))


def _check_ok(status: int) -> None:
    if status in _PASSING:
        raise RegistryGarbageError(f"The registry answers {status}.")
    if status != HTTPStatus.OK:
        raise WalkRefusedError(
            f"The registry answers {status} to relproxy's own question: see its `credentials`."
        )


def where(place: Place) -> Mapping[str, object]:
    """Return a place to be written down."""
    return {"part": place.part, "marker": place.marker}
