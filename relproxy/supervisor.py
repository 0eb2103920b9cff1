"""The supervisor of several workers: keeps a crew of them running, and replaces it.

It accepts nothing itself. A new configuration gets workers of its own, on the same sockets where it
has the same addresses. Those of the old one retire once all of the new ones serve, so that at no
time nobody accepts.
"""

from __future__ import annotations

import asyncio

from relproxy.crew import Crew, Outfit, Slots
from relproxy.errors import WorkersRefusedError
from relproxy.tasks import TaskSet

# For new workers to open what they need, a store that is away included, before they are given up.
_BEGIN_S = 60.0


class Supervisor:
    """Keeps workers running until it is told to stop, and replaces them when it is told to."""

    def __init__(self, outfit: Outfit, *, count: int) -> None:
        self._count = count
        self._slots = Slots()
        self._crew = Crew(outfit, self._slots, count=count)
        self._crews = [self._crew]
        # How these end says nothing of how the others did.
        self._refused: list[Crew] = []
        self._retirements = TaskSet()
        self._is_stopping = False
        self._has_begun = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """Whether any worker's event loop runs: those that hang are killed."""
        return self._crew.is_serving

    async def until_begun(self) -> None:
        """Wait until the first workers serve, all of them."""
        await self._has_begun.wait()

    async def run(self) -> int:
        """Return the exit status once everything has ended; see `Crew.ended`."""
        if await self._crew.begin():
            self._has_begun.set()
        # Told to end is the one that serves, and it may be replaced meanwhile.
        while not self._is_stopping:
            crew = self._crew
            await crew.is_told_to_end()
            if crew is self._crew:
                break
        self.stop()
        crews = list(self._crews)
        await asyncio.gather(*(crew.ended() for crew in crews))
        statuses = (crew.status for crew in crews if crew not in self._refused)
        return next((status for status in statuses if status), 0)

    def stop(self) -> None:
        """Have every worker drain, and start none any more."""
        self._is_stopping = True
        for crew in self._crews:
            crew.stop()

    def heed(self) -> None:
        """Do what a signal says: stop; and what a second one says: at once."""
        if self._is_stopping:
            for crew in self._crews:
                crew.kill()
        self.stop()

    async def replace(self, outfit: Outfit, *, begin_s: float = _BEGIN_S) -> None:
        """Have other workers serve, and those that do retire once all of the others serve.

        Raises `WorkersRefusedError` if they don't; then nothing has changed.
        """
        crew = Crew(outfit, self._slots, count=self._count)
        self._crews.append(crew)
        why = f"The new workers don't serve after {begin_s:g} s."
        try:
            async with asyncio.timeout(begin_s):
                serves = await crew.begin()
                why = crew.refusal or "relproxy was told to stop."
        except TimeoutError:
            serves = False
        if not serves:
            # Not killed: those of them that serve may have requests to finish.
            crew.retire()
            self._refused.append(crew)
            self._retirements.start(self._forgotten(crew), name="refused workers")
            raise WorkersRefusedError(why)
        # From here on its end is the end of all.
        old, self._crew = self._crew, crew
        old.retire()
        self._retirements.start(self._forgotten(old), name="retiring workers")

    async def _forgotten(self, crew: Crew) -> None:
        await crew.ended()
        if not self._is_stopping:
            self._crews.remove(crew)
            if crew in self._refused:
                self._refused.remove(crew)
            crew.outfit.close()
