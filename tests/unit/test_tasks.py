from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from relproxy.tasks import Shared, TaskSet


class Work:
    """Work that begins, waits to be let on, and ends."""

    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure
        self.begun = asyncio.Event()
        self.let_on = asyncio.Event()
        self.ended = asyncio.Event()
        self.was_cancelled = False

    async def do(self) -> str:
        self.begun.set()
        try:
            await self.let_on.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        self.ended.set()
        if self._failure is not None:
            raise self._failure
        return "done"


async def left_alone(tasks: TaskSet, work: Work) -> None:
    """Have a caller wait for `work`, and cancel that caller once the work has begun."""
    caller = asyncio.create_task(tasks.finish(work.do(), name="create"))
    await work.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_work_is_finished_and_returns_its_result() -> None:
    tasks, work = TaskSet(), Work()
    work.let_on.set()

    assert await tasks.finish(work.do(), name="create") == "done"
    assert len(tasks) == 0


async def test_a_failure_of_the_work_reaches_the_caller() -> None:
    work = Work(ValueError("no"))
    work.let_on.set()

    with pytest.raises(ValueError, match="no"):
        await TaskSet().finish(work.do(), name="create")


async def test_work_goes_on_when_its_caller_is_cancelled() -> None:
    tasks, work = TaskSet(), Work()

    await left_alone(tasks, work)

    assert len(tasks) == 1
    work.let_on.set()
    await work.ended.wait()
    assert not work.was_cancelled


async def test_work_goes_on_when_its_caller_is_cancelled_twice() -> None:
    tasks, work = TaskSet(), Work()
    caller = asyncio.create_task(tasks.finish(work.do(), name="create"))
    await work.begun.wait()

    caller.cancel()
    caller.cancel()
    await asyncio.wait({caller})
    work.let_on.set()
    await work.ended.wait()

    assert not work.was_cancelled


async def test_work_goes_on_when_its_caller_runs_out_of_time() -> None:
    tasks, work = TaskSet(), Work()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await tasks.finish(work.do(), name="create")
    work.let_on.set()
    await tasks.drain(5)

    assert work.ended.is_set()


async def test_a_failure_after_the_caller_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tasks, work = TaskSet(), Work(ValueError("no"))
    await left_alone(tasks, work)

    with caplog.at_level(logging.ERROR):
        work.let_on.set()
        await tasks.drain(5)

    (record,) = caplog.records
    assert record.getMessage() == "task failed after its caller left"
    assert vars(record)["task"] == "create"


async def test_a_success_after_the_caller_left_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks, work = TaskSet(), Work()
    await left_alone(tasks, work)

    work.let_on.set()
    await tasks.drain(5)

    assert caplog.records == []


async def test_a_started_task_is_named_and_referred_to_until_it_is_done() -> None:
    tasks, work = TaskSet(), Work()

    task = tasks.start(work.do(), name="relay")

    assert task.get_name() == "relay"
    assert len(tasks) == 1
    work.let_on.set()
    assert await task == "done"
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_a_drain_waits_for_what_runs() -> None:
    tasks, work = TaskSet(), Work()
    tasks.start(work.do(), name="create")
    drained = asyncio.create_task(tasks.drain(60))
    await work.begun.wait()
    assert not drained.done()

    work.let_on.set()
    await drained

    assert work.ended.is_set()
    assert len(tasks) == 0


async def test_a_drain_waits_no_longer_than_it_may() -> None:
    tasks, quick, slow = TaskSet(), Work(), Work()
    quick.let_on.set()
    tasks.start(quick.do(), name="quick")
    tasks.start(slow.do(), name="slow")

    await tasks.drain(0.01)

    assert quick.ended.is_set()
    assert slow.was_cancelled
    assert len(tasks) == 0


async def test_a_drain_outlives_the_failure_of_a_task() -> None:
    tasks, failing, other = TaskSet(), Work(ValueError("no")), Work()
    failing.let_on.set()
    other.let_on.set()
    failed = tasks.start(failing.do(), name="failing")
    tasks.start(other.do(), name="other")

    await tasks.drain(5)

    assert other.ended.is_set()
    assert isinstance(failed.exception(), ValueError)


async def test_a_drain_of_nothing_returns() -> None:
    await TaskSet().drain(60)


# -- work that is shared


async def test_work_is_done_once_for_all_who_ask_meanwhile() -> None:
    shared: Shared[str, str] = Shared()
    works = [Work(), Work()]
    for work in works:
        work.let_on.set()

    asking = [
        shared.once("a", works[0].do, name="a"),
        shared.once("a", works[1].do, name="a"),
    ]

    assert await asyncio.gather(*asking) == ["done", "done"]
    assert (works[0].begun.is_set(), works[1].begun.is_set()) == (True, False)


async def test_work_is_done_anew_for_who_asks_afterwards_or_for_something_else() -> None:
    shared: Shared[str, str] = Shared()
    for key in ("a", "a", "b"):
        work = Work()
        work.let_on.set()
        assert await shared.once(key, work.do, name=key) == "done"
        assert work.ended.is_set()


async def test_shared_work_goes_on_without_the_one_who_asked_first() -> None:
    shared: Shared[str, str] = Shared()
    work = Work()
    first = asyncio.create_task(shared.once("a", work.do, name="a"))
    await work.begun.wait()
    second = asyncio.create_task(shared.once("a", work.do, name="a"))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.let_on.set()

    assert await second == "done"
    assert not work.was_cancelled


async def test_a_failure_of_shared_work_is_everybodys_and_is_not_kept() -> None:
    shared: Shared[str, str] = Shared()
    work = Work(ValueError("no"))
    asking = [asyncio.create_task(shared.once("a", work.do, name="a")) for _ in range(3)]
    await work.begun.wait()
    work.let_on.set()

    found = await asyncio.gather(*asking, return_exceptions=True)

    assert [type(answer) for answer in found] == [ValueError] * 3
    assert await shared.once("a", finished, name="a") == "done"


async def test_a_failure_that_nobody_waits_for_any_more_is_nobodys_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared: Shared[str, str] = Shared()
    work = Work(ValueError("no"))
    caller = asyncio.create_task(shared.once("a", work.do, name="a"))
    await work.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    work.let_on.set()
    await work.ended.wait()
    assert await shared.once("b", finished, name="b") == "done"
    gc.collect()

    assert "never retrieved" not in caplog.text


async def test_shared_work_ends_when_it_is_cancelled_as_a_whole() -> None:
    shared: Shared[str, str] = Shared()
    work = Work()
    caller = asyncio.create_task(shared.once("a", work.do, name="a"))
    await work.begun.wait()

    await shared.cancel()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert work.was_cancelled


async def finished() -> str:
    return "done"
