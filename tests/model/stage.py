"""Where stories are played: a running relproxy, what is behind it, and a loop of their own."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from tests.model.client import Client
from tests.model.operations import Operation
from tests.model.player import Player
from tests.model.registries import Behind
from tests.model.words import Words
from tests.model.world import Tenancy, World

_STORY_S = 120.0


@dataclass(eq=False, repr=False)
class Stage:
    """A relproxy and the registry behind it; each story has projects of its own."""

    tenancy: Tenancy
    url: str
    own_installation: str
    behind: Behind
    session: aiohttp.ClientSession
    runner: asyncio.Runner
    counts: Counter[str] = field(default_factory=Counter)
    _known: set[str] = field(default_factory=set)

    def play(self, operations: tuple[Operation, ...]) -> None:
        """Play one story to its end, or raise what it shows to be wrong."""
        self.runner.run(self._play(operations))

    async def _play(self, operations: tuple[Operation, ...]) -> None:
        self.counts["stories"] += 1
        self.counts["operations"] += len(operations)
        world = World(
            self.tenancy,
            own_installation=self.own_installation,
            is_careless=self.behind.is_careless,
        )
        world.images.extend(await self.behind.strangers())
        words = Words(world)
        client = Client(self.session, self.url, world, words.projects, self._known, self.counts)
        try:
            async with asyncio.timeout(_STORY_S):
                await Player(client, words, self.behind).play(operations)
        finally:
            await self.behind.end()
