"""Whatever clients and registries do, nothing of it is left: what a real relproxy holds is counted.

Descriptors and connections are counted from outside, tasks and what is under way from inside; they
return to what they were. Memory may grow while something is done for the first time, not when it is
done as often again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from lab.stand_in_keystone import PASSWORD, KeystoneFaults, StandInKeystone
from tests.integration.conftest import EVENTUALLY_S, eventually
from tests.integration.leaving import NEW, QUICK, SLOW, Scenario
from tests.integration.stage import CREATE, DOWNLOAD, LIST, UPLOAD, Stage, message, named, staged
from tests.integration.wayward import wayward_at

MiB = 1024**2
# What one more time may add to the most that was in use before, or some time soon does. What leaks
# adds as much each time.
GROWTH_BYTES = MiB // 2
TIMES = 8
_AT_ONCE = 8


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("alone")) as stage:
        yield stage


@pytest.fixture
async def stage(running: Stage) -> AsyncIterator[Stage]:
    # What was made in one test may be asked for in the next.
    images = running.registry.images
    running.is_taken = asyncio.Lock()
    async with wayward_at(running.registry_port, images) as running.registry:
        await warm(running)
        yield running


async def warm(stage: Stage) -> None:
    """Do each kind of request, well."""
    for request in (LIST, DOWNLOAD, UPLOAD):
        assert (await stage.ask(message(*request))).startswith(b"HTTP/1.1 20")
    assert (await stage.ask(message(*CREATE, body=NEW))).startswith(b"HTTP/1.1 201")


async def perform(stage: Stage, scenarios: Iterable[Scenario]) -> None:
    """Do all of them, some at once."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(scenario: Scenario) -> None:
        async with turn:
            async with asyncio.timeout(EVENTUALLY_S):
                await scenario(stage)

    await asyncio.gather(*map(one, scenarios))


async def leaves_nothing(stage: Stage, scenarios: list[Scenario]) -> None:
    baseline = await stage.quiet()
    memory: list[int] = []
    for _ in range(TIMES):
        await perform(stage, scenarios)
        await stage.returns_to(baseline)
        memory.append(stage.memory())
        if len(memory) > 1 and memory[-1] <= max(memory[:-1]) + GROWTH_BYTES:
            break
    else:
        pytest.fail(f"it grows each time: {memory}")
    print([f"{each / MiB:.1f} MiB" for each in memory])  # noqa: T201 - shown by -s


def among_others(scenario: Scenario) -> Scenario:
    """Return a scenario that may be answered otherwise than alone.

    A registry that hangs up behind a whole answer, without having said so, may meet the next
    request on that connection, which then is somebody else's.
    """

    async def one(stage: Stage) -> None:
        with contextlib.suppress(AssertionError):
            await scenario(stage)

    return one


@pytest.mark.parametrize("scenario", QUICK.values(), ids=QUICK)
async def test_nothing_is_left_when(stage: Stage, scenario: Scenario, effort: int) -> None:
    await leaves_nothing(stage, [scenario] * (12 * min(effort, 10)))


@pytest.mark.parametrize("scenario", SLOW.values(), ids=SLOW)
async def test_nothing_is_left_after_a_timeout_when(
    stage: Stage, scenario: Scenario, effort: int
) -> None:
    await leaves_nothing(stage, [scenario] * (8 * min(effort, 10)))


async def test_nothing_is_left_of_everything_at_once(stage: Stage, seed: int, effort: int) -> None:
    chosen = random.Random(seed).choices(
        [*QUICK.values()] * 4 + [*SLOW.values()], k=80 * min(effort, 10)
    )
    await leaves_nothing(stage, [among_others(each) for each in chosen])


async def test_two_workers_keep_nothing_of_everything_at_once(
    tmp_path: Path, seed: int, effort: int
) -> None:
    chosen = random.Random(seed).choices([*QUICK.values()], k=40 * min(effort, 10))
    with staged(tmp_path, workers=2) as stage:
        stage.is_taken = asyncio.Lock()
        async with wayward_at(stage.registry_port) as stage.registry:

            async def serving() -> int:
                return stage.relproxy.log.read_text().count('"event": "worker serves"')

            await eventually(serving, 2)
            for _ in range(10):
                await warm(stage)
            await leaves_nothing(stage, [among_others(each) for each in chosen])


async def test_nothing_is_left_when_keystone_fails(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    async with StandInKeystone() as keystone:
        credentials = {
            "auth_url": keystone.auth_url,
            "username": "relproxy",
            "project": "service",
            "password_file": str(tmp_path / "password"),
        }
        keystone.add("good", "alice", "member")
        with staged(tmp_path, identity={"keystone": {"credentials": credentials}}) as stage:
            async with wayward_at(stage.registry_port) as stage.registry:
                assert (await stage.ask(with_token("good"))).startswith(b"HTTP/1.1 200")
                await leaves_nothing(stage, [keystone_fails(keystone)] * 20)


def with_token(token: str) -> bytes:
    head = message(*LIST).removesuffix(b"\r\n")
    return head + f"X-Auth-Token: {token}\r\n\r\n".encode()


def keystone_fails(keystone: StandInKeystone) -> Scenario:
    """Return the scenario in which it hangs up, breaks off, or says that it can't."""

    async def in_each_way(stage: Stage) -> None:
        for faults in ({"drop": True}, {"body": b'{"token": '}, {"status": 500}, {"status": 401}):
            keystone.faults = KeystoneFaults(**faults)
            assert (await stage.ask(with_token(named()))).startswith(b"HTTP/1.1 503")

    return in_each_way
