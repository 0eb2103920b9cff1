from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relproxy.sockets import Sockets
from relproxy.supervisor import Backoff, Outfit, Supervisor
from relproxy.worker import Worker

PATIENCE_S = 20

# Stand-ins for workers. Each is told its slot and its line, and tells its pid by a file.
_HEAD = """
import json, os, pathlib, socket, sys
worker = json.loads(sys.argv[-1])
line = socket.socket(fileno=worker["line"])
home = pathlib.Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
with open(home / f"lives-{worker['slot']}", "a") as lives:
    print(os.getpid(), file=lives)
"""
SERVES = _HEAD + "line.send(b'.'); line.recv(1)"
REFUSES = _HEAD + "sys.exit(78)"
CRASHES_EARLY = _HEAD + "os.kill(os.getpid(), 9)"
IGNORES_SIGTERM = (
    _HEAD
    + """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
line.send(b'.'); line.recv(1)
"""
)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    bound = Sockets({}, [socket.create_server(("127.0.0.1", 0))])
    yield bound
    bound.close()


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.01)


class Kept:
    """A supervisor under way."""

    def __init__(self, supervisor: Supervisor, home: Path) -> None:
        self.supervisor = supervisor
        self.home = home
        self.run = asyncio.create_task(supervisor.run())

    async def lives(self, slot: int, *, at_least: int) -> list[int]:
        """Return the process ids that a slot has had, once they are so many."""
        await eventually(lambda: len(self._lives(slot)) >= at_least)
        return self._lives(slot)

    def _lives(self, slot: int) -> list[int]:
        file = self.home / f"lives-{slot}"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.run


@asynccontextmanager
async def kept(
    script: str, sockets: Sockets, home: Path, *, count: int = 1, drain_s: float = PATIENCE_S
) -> AsyncIterator[Kept]:
    file = os.memfd_create("configuration")
    outfit = Outfit([sys.executable, "-c", script], sockets, file, home)
    under_way = Kept(Supervisor(outfit, count=count, drain_s=drain_s), home)
    try:
        yield under_way
    finally:
        under_way.supervisor.stop()
        await under_way.ended()
        os.close(file)


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, object]]:
    return [vars(record) for record in caplog.records if record.getMessage() == name]


def test_a_slot_is_filled_at_once_and_then_ever_more_slowly() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(lived_s=1) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_worker_that_never_lives_long_is_waited_for_no_longer_after_a_year() -> None:
    backoff = Backoff()
    assert {backoff.delay_s(lived_s=0) for _ in range(100_000)} == {0, 1, 2, 4, 8, 16, 30}


def test_a_worker_that_lived_is_followed_at_once() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_s(lived_s=0)
    assert backoff.delay_s(lived_s=3600) == 0
    assert backoff.delay_s(lived_s=0) == 1


def test_a_worker_is_told_of_by_one_argument() -> None:
    worker = Worker(slot=3, line=9, listeners={"public": [4, 5], "west": [6]}, admin=[7])
    assert Worker.from_argument(worker.to_argument()) == worker
    assert set(worker.descriptors) == {4, 5, 6, 7, 9}


async def test_a_worker_that_dies_is_followed_by_one_in_its_slot(
    sockets: Sockets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(SERVES, sockets, tmp_path, count=2) as under_way:
        (pid,) = await under_way.lives(1, at_least=1)
        os.kill(pid, signal.SIGKILL)
        first, second = await under_way.lives(1, at_least=2)
        assert first != second
        assert len(await under_way.lives(0, at_least=1)) == 1
    assert await under_way.ended() == 0
    (death,) = events(caplog, "worker died")
    assert (death["worker"], death["reason"], death["restart_s"]) == (1, "signal SIGKILL", 0)
    assert death["levelno"] == logging.ERROR


async def test_a_worker_that_refuses_at_its_first_start_ends_everything(
    sockets: Sockets, tmp_path: Path
) -> None:
    async with kept(REFUSES, sockets, tmp_path, count=3) as under_way:
        assert await under_way.ended() == 78
    assert not any((tmp_path / f"lives-{slot}").exists() for slot in (1, 2))


async def test_a_worker_that_is_killed_before_it_serves_is_started_again(
    sockets: Sockets, tmp_path: Path
) -> None:
    async with kept(CRASHES_EARLY, sockets, tmp_path) as under_way:
        await under_way.lives(0, at_least=2)
        assert not under_way.run.done()


async def test_a_worker_that_served_and_is_refused_now_is_tried_again(
    sockets: Sockets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = _HEAD + (
        "lives = (home / 'lives-0').read_text().split()\n"
        "len(lives) == 2 and sys.exit(78)\n"
        "line.send(b'.'); line.recv(1)"
    )
    async with kept(script, sockets, tmp_path) as under_way:
        (pid,) = await under_way.lives(0, at_least=1)
        os.kill(pid, signal.SIGKILL)
        await under_way.lives(0, at_least=3)
    assert await under_way.ended() == 0
    deaths = events(caplog, "worker died")
    assert [(d["reason"], d["restart_s"]) for d in deaths] == [
        ("signal SIGKILL", 0),
        ("exit status 78", 1),
    ]


async def test_a_worker_that_does_not_drain_is_killed(
    sockets: Sockets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with kept(IGNORES_SIGTERM, sockets, tmp_path, drain_s=0.2) as under_way:
        (pid,) = await under_way.lives(0, at_least=1)
        await eventually(lambda: bool(events(caplog, "worker serves")))
        under_way.supervisor.stop()
        assert await under_way.ended() == 1
    (killed,) = events(caplog, "worker killed")
    assert killed["pid"] == pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_no_worker_is_started_when_there_is_no_memory_for_one(
    sockets: Sockets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = os.memfd_create("configuration")
    outfit = Outfit([str(tmp_path / "missing")], sockets, file, tmp_path)
    assert await Supervisor(outfit, count=2, drain_s=1).run() == os.EX_OSERR
    os.close(file)
    (refusal,) = events(caplog, "worker can't start")
    assert "No such file" in str(refusal["reason"])


async def test_a_stopped_supervisor_holds_no_socket(sockets: Sockets, tmp_path: Path) -> None:
    async with kept(SERVES, sockets, tmp_path) as under_way:
        await under_way.lives(0, at_least=1)
        under_way.supervisor.stop()
        assert [each.fileno() for each in sockets.admin] == [-1]
        assert await under_way.ended() == 0


def told(line: socket.socket) -> Worker:
    return Worker(slot=0, line=line.detach(), listeners={}, admin=[])


async def test_a_worker_says_that_it_serves_and_stops_when_its_supervisor_is_gone() -> None:
    ours, theirs = socket.socketpair()
    stopped = asyncio.Event()
    attending = asyncio.create_task(told(theirs).attend(stopped))
    ours.setblocking(False)
    with ours:
        assert await asyncio.get_running_loop().sock_recv(ours, 1) == b"."
        assert not stopped.is_set()
    async with asyncio.timeout(PATIENCE_S):
        await stopped.wait()
        await attending


async def test_a_worker_stops_when_its_supervisor_was_gone_before_it_served() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    stopped = asyncio.Event()
    await told(theirs).attend(stopped)
    assert stopped.is_set()


def test_the_argument_is_plain_json() -> None:
    worker = Worker(slot=0, line=3, listeners={"public": [4]}, admin=[5])
    assert json.loads(worker.to_argument()) == {
        "slot": 0,
        "line": 3,
        "listeners": {"public": [4]},
        "admin": [5],
    }
