"""Creates by the hundred while everything around them fails, and what must be so afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp

from lab.relproxy import Relproxy
from lab.stand_in import StandIn
from lab.stand_in_query import RefusedError
from lab.stand_in_wire import DroppedError
from tests.durability.conftest import PATIENCE_S, Ledger, all_records, in_doubt

Fault = Callable[[], Awaitable[None]]

# How long the registry may still be at work on a create that nobody waits for any more.
LATEST_S = 0.5
LEAST_KILLS = 3


@dataclass
class Storm:
    """One storm: `attempts` creates through `relproxies`, `at_once` of them at a time."""

    glance: StandIn
    relproxies: Sequence[Relproxy]
    session: aiohttp.ClientSession
    seed: int
    attempts: int
    at_once: int
    faults: dict[str, Fault] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._released = asyncio.Event()
        self._over = asyncio.Event()
        self._left = self.attempts

    async def rage(self) -> None:
        """Run it, from the first relproxy's start until every client has its answer, or none."""
        self.glance.faults.before_create = self._before_create
        self.glance.faults.after_create = self._after_create
        await asyncio.gather(*(asyncio.to_thread(r.start) for r in self.relproxies))
        chaos = asyncio.create_task(self._chaos())
        clients = [asyncio.create_task(self._client()) for _ in range(self.at_once)]
        try:
            await asyncio.gather(*clients)
        finally:
            # What it has killed it starts again first.
            self._over.set()
            await chaos
            self._released.set()
        self.glance.faults.before_create = self.glance.faults.after_create = None

    async def calm(self) -> tuple[int, int]:
        """Wait until nothing is in doubt, then check; return the records and the images made."""
        first = self.relproxies[0]
        deadline = time.monotonic() + PATIENCE_S
        while doubtful := await in_doubt(self.session, first):
            assert time.monotonic() < deadline, f"{len(doubtful)} stay in doubt: {doubtful[:3]}"
            await asyncio.sleep(0.1)
        for relproxy in self.relproxies:
            records = await all_records(self.session, relproxy)
            self.ledger.check(self.glance, records, [])
        return len(records), len(self.glance.images)

    async def _client(self) -> None:
        # Every storm has its share of kills, however quick its creates are.
        while self._left > 0 or self.happened["kill"] < LEAST_KILLS:
            self._left -= 1
            relproxy = self._random.choice(self.relproxies)
            patience_s = self._random.choice((None,) * 19 + (self._random.uniform(0, 0.05),))
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    attempt = await self.ledger.create(self.session, relproxy.url, "alice")
                    self.happened[f"answered {attempt.status}"] += 1
                    if attempt.status is None:
                        # Nobody is there: the next one waits for the restart, as a balancer would.
                        await asyncio.sleep(self._random.uniform(0, 0.2))

    async def _before_create(self) -> None:
        fate = self._random.random()
        if fate < 0.05:
            self.happened["500 before"] += 1
            raise RefusedError(500)
        if fate < 0.08:
            self.happened["413"] += 1
            raise RefusedError(413)
        if fate < 0.12:
            self.happened["cut before"] += 1
            raise DroppedError
        if fate < 0.30:
            self.happened["late"] += 1
            await asyncio.sleep(self._random.uniform(0, LATEST_S / 2))

    async def _after_create(self) -> None:
        fate = self._random.random()
        if fate < 0.06:
            self.happened["500 after"] += 1
            raise RefusedError(500)
        if fate < 0.12:
            self.happened["cut after"] += 1
            raise DroppedError
        if fate < 0.15:
            self.happened["never"] += 1
            await self._released.wait()

    async def _chaos(self) -> None:
        while not self._over.is_set():
            await asyncio.sleep(self._random.uniform(0.1, 0.5))
            names = ["kill", *self.faults]
            name = self._random.choice(names)
            self.happened[name] += 1
            if name == "kill":
                await self._kill(self._random.choice(self.relproxies))
            else:
                await self.faults[name]()

    async def _kill(self, relproxy: Relproxy) -> None:
        await asyncio.to_thread(relproxy.kill)
        await asyncio.to_thread(relproxy.start)
