"""Walks lists and checks each page against the model."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from tests.model import operations as do
from tests.model.client import Client
from tests.model.registries import Behind
from tests.model.words import Pairs, Words, target
from tests.model.world import NOBODY, Image, Query


class ListCheck:
    """Checks lists of one story."""

    def __init__(self, client: Client, words: Words, behind: Behind) -> None:
        self._client = client
        self._words = words
        self._world = client.world
        self._behind = behind

    async def check(self, asked: do.List) -> None:
        """Ask for a list and follow it to its end."""
        self._client.counts["lists"] += 1
        if not self._behind.sorts_what_is_nothing:
            asked = replace(asked, sort=tuple(pair for pair in asked.sort if pair[0] != "size"))
        query = self._words.query(asked)
        pairs = self._words.pairs(asked, query)
        if query.ids is not None and query.instance is not None:
            is_401 = asked.who == NOBODY and self._world.is_only_wall
            await self._refused(asked.who, query, pairs, 401 if is_401 else 400)
            return
        if asked.who == NOBODY:
            await self._refused(asked.who, query, pairs, 401)
            return
        order = await self._behind.order(self._world, query)
        marker = query.marker and self._world.marker(asked.who, query.marker)
        if marker and marker not in order:
            return  # a registry that is asked for its order shows only what it would list
        expected = self._world.expected(asked.who, query, order)
        if expected is None:
            await self._refused(asked.who, query, pairs, 400)
        else:
            await self._walked(asked, query, pairs, expected)

    async def _refused(self, who: str, query: Query, pairs: Pairs, status: int) -> None:
        """What refuses a marker says the same of one that is foreign, gone, or never was."""
        answer = await self._client.ask(who, "GET", target(pairs, query.marker))
        assert answer.status == status, (who, query, answer)
        if query.marker is not None:
            absent = str(uuid4())
            twin = await self._client.ask(who, "GET", target(pairs, absent))
            if len(query.marker) == len(absent):
                assert answer.alike(query.marker) == twin.alike(absent), (who, query)

    async def _walked(
        self, asked: do.List, query: Query, pairs: Pairs, expected: list[Image]
    ) -> None:
        limit = self._behind.default_limit if query.limit is None else query.limit
        limit = min(limit, self._behind.relproxys_max_limit)
        place, address = 0, target(pairs, query.marker)
        while True:
            self._client.counts["pages"] += 1
            answer = await self._client.ask(asked.who, "GET", address, about=expected)
            assert answer.status == 200, (asked, query, answer)
            page = answer.json()
            shown = [(image["id"], image["name"]) for image in page["images"]]
            wanted = expected[place : place + limit]
            assert shown == [(i.id, i.name) for i in wanted], (asked, query, expected, answer)
            assert page["first"] == target(pairs, None), (asked, answer)
            place += limit
            if not limit or place >= len(expected):
                assert "next" not in page, (asked, query, expected, answer)
                return
            address = target(pairs, wanted[-1].id)
            assert page.get("next") == address, (asked, query, expected, answer)
