"""Background work that is named, referenced and awaited: nothing runs that nobody watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")


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


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        _LOG.error(
            "task failed after its caller left", extra={"task": task.get_name()}, exc_info=failure
        )
