"""Background work that is named, referenced and awaited: nothing runs that nobody watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_Key = TypeVar("_Key", bound=Hashable)


class TaskSet:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, _Result], *, name: str) -> asyncio.Task[_Result]:
        """Start `work` as a task that this set refers to until it is done."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, work: Coroutine[Any, Any, _Result], *, name: str) -> _Result:
        """Run `work` to its end even if the caller is cancelled meanwhile, and return its result.

        If the caller goes away, a failure of the work is logged, because nobody else will see it.
        """
        task = self.start(work, name=name)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    async def cancel(self) -> None:
        """End the running tasks."""
        await self.drain(0)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the running tasks, then cancel those that are still running."""
        if not self._tasks:
            return
        _, running = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


class Shared(Generic[_Key, _Result]):
    """Work that many ask for at the same time and that is done once, for all of them.

    It goes on if one of them is cancelled, and even if all are: so it has to end by itself.
    """

    def __init__(self) -> None:
        self._under_way: dict[_Key, asyncio.Task[_Result]] = {}

    async def once(
        self, key: _Key, work: Callable[[], Coroutine[Any, Any, _Result]], *, name: str
    ) -> _Result:
        """Return the result of the work under way for `key`, which is started if there is none."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(work(), name=name)
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    async def cancel(self) -> None:
        """End what is under way."""
        running = list(self._under_way.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, key: _Key, task: asyncio.Task[_Result]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            # Looked at here too: whoever asked may have gone.
            task.exception()


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        _LOG.error(
            "task failed after its caller left", extra={"task": task.get_name()}, exc_info=failure
        )
