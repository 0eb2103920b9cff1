from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from relproxy.crew import Backoff, Outfit, in_memory
from relproxy.errors import WorkersRefusedError
from relproxy.sockets import Sockets
from relproxy.supervisor import Supervisor
from relproxy.worker import Order, Orders, Worker

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
RETIRES = (
    _HEAD
    + """
import threading
def beat():
    while True: line.send(b'.'); threading.Event().wait(0.1)
threading.Thread(target=beat, daemon=True).start()
line.recv(1)
"""
)
SILENT = _HEAD + "line.recv(1)"
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

    def __init__(self, supervisor: Supervisor, outfit: Outfit, home: Path) -> None:
        self.supervisor = supervisor
        self.outfit = outfit
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
    script: str,
    sockets: Sockets,
    home: Path,
    *,
    count: int = 1,
    drain_s: float = PATIENCE_S,
    hang_s: float = PATIENCE_S,
) -> AsyncIterator[Kept]:
    file = os.memfd_create("configuration")
    outfit = Outfit(
        [sys.executable, "-c", script],
        sockets,
        file,
        os.memfd_create("proofs"),
        home,
        drain_s=drain_s,
        hang_s=hang_s,
    )
    under_way = Kept(Supervisor(outfit, count=count), outfit, home)
    try:
        yield under_way
    finally:
        under_way.supervisor.stop()
        await under_way.ended()
        with suppress(OSError):
            outfit.close()


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
    worker = Worker(slot=3, line=9, listeners={"public": [4, 5], "west": [6]}, admin=[7], proofs=8)
    assert Worker.from_argument(worker.to_argument()) == worker
    assert set(worker.descriptors) == {4, 5, 6, 7, 8, 9}


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
        await eventually(lambda: under_way.supervisor.is_serving)
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


async def test_a_worker_that_says_nothing_any_more_is_killed_and_followed(
    sockets: Sockets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(IGNORES_SIGTERM, sockets, tmp_path, hang_s=0.2) as under_way:
        lives = await under_way.lives(0, at_least=2)
        assert events(caplog, "worker hangs")[0]["pid"] == lives[0]
        with pytest.raises(ProcessLookupError):
            os.kill(lives[0], 0)
        # Those that ignore SIGTERM are killed in the end too.
        under_way.supervisor.heed()
        under_way.supervisor.heed()


async def test_a_worker_that_goes_on_saying_that_it_serves_stays(
    sockets: Sockets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beats = _HEAD + (
        "import time\n"
        "for _ in range(20): line.send(b'.'); time.sleep(0.05)\n"
        "os.kill(os.getpid(), 9)"
    )
    async with kept(beats, sockets, tmp_path, hang_s=0.5) as under_way:
        await under_way.lives(0, at_least=2)
    assert events(caplog, "worker hangs") == []


async def test_new_workers_serve_before_the_old_ones_retire(
    sockets: Sockets, tmp_path: Path
) -> None:
    async with kept(RETIRES, sockets, tmp_path, count=2) as under_way:
        await under_way.lives(1, at_least=1)
        supervisor, outfit = under_way.supervisor, under_way.outfit
        await supervisor.replace(replace(outfit, configuration=in_memory("new")))
        assert len(await under_way.lives(2, at_least=1) + await under_way.lives(3, at_least=1)) == 2
        await eventually(lambda: len(supervisor._crews) == 1)  # noqa: SLF001
        # Their numbers are free, and nobody followed them.
        await supervisor.replace(replace(outfit, configuration=in_memory("newer")))
        assert len(await under_way.lives(0, at_least=2)) == 2
    assert await under_way.ended() == 0


@pytest.mark.parametrize(
    ("script", "why"),
    [(_HEAD + "line.send(b'!No store.'); sys.exit(78)", "No store."), (SILENT, "don't serve")],
    ids=["says why", "says nothing"],
)
async def test_workers_that_can_not_begin_leave_the_old_ones_where_they_are(
    sockets: Sockets, tmp_path: Path, script: str, why: str
) -> None:
    async with kept(RETIRES, sockets, tmp_path) as under_way:
        (before,) = await under_way.lives(0, at_least=1)
        outfit = replace(
            under_way.outfit,
            command=[sys.executable, "-c", script],
            configuration=in_memory("new"),
        )
        with pytest.raises(WorkersRefusedError, match=why):
            await under_way.supervisor.replace(outfit, begin_s=2)
        os.kill(before, 0)
        assert await under_way.lives(0, at_least=1) == [before]
    assert await under_way.ended() == 0


async def test_a_stop_while_new_workers_begin_kills_none(
    sockets: Sockets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(RETIRES, sockets, tmp_path) as under_way:
        await under_way.lives(0, at_least=1)
        outfit = replace(
            under_way.outfit,
            command=[sys.executable, "-c", SILENT],
            configuration=in_memory("new"),
        )
        replacing = asyncio.create_task(under_way.supervisor.replace(outfit))
        await under_way.lives(1, at_least=1)
        under_way.supervisor.heed()
        with pytest.raises(WorkersRefusedError, match="told to stop"):
            await replacing
        assert await under_way.ended() == 0
    assert events(caplog, "worker killed") == []


async def test_no_worker_is_started_when_there_is_no_memory_for_one(
    sockets: Sockets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = os.memfd_create("configuration")
    missing = [str(tmp_path / "missing")]
    proofs = os.memfd_create("proofs")
    outfit = Outfit(missing, sockets, file, proofs, tmp_path, drain_s=1, hang_s=PATIENCE_S)
    assert await Supervisor(outfit, count=2).run() == os.EX_OSERR
    outfit.close()
    (refusal,) = events(caplog, "worker can't start")
    assert "No such file" in str(refusal["reason"])


async def test_a_stopped_supervisor_holds_no_socket(sockets: Sockets, tmp_path: Path) -> None:
    async with kept(SERVES, sockets, tmp_path) as under_way:
        await under_way.lives(0, at_least=1)
        under_way.supervisor.stop()
        assert [each.fileno() for each in sockets.admin] == [-1]
        assert await under_way.ended() == 0


def told(line: socket.socket) -> Worker:
    return Worker(slot=0, line=line.detach(), listeners={}, admin=[], proofs=-1)


async def test_a_worker_says_that_it_serves_and_stops_when_its_supervisor_is_gone() -> None:
    ours, theirs = socket.socketpair()
    orders = Orders()
    attending = asyncio.create_task(told(theirs).attend(orders))
    ours.setblocking(False)
    with ours:
        assert await asyncio.get_running_loop().sock_recv(ours, 1) == b"."
        assert not orders.are_given
    async with asyncio.timeout(PATIENCE_S):
        assert await orders.wait() is Order.ABANDONED
        await attending


async def test_a_worker_stops_when_its_supervisor_was_gone_before_it_served() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    orders = Orders()
    await told(theirs).attend(orders)
    assert await orders.wait() is Order.ABANDONED


async def test_a_worker_that_is_replaced_retires_though_its_supervisor_goes_too() -> None:
    ours, theirs = socket.socketpair()
    orders = Orders()
    with ours:
        ours.send(b"r")
    await told(theirs).attend(orders)
    assert await orders.wait() is Order.RETIRE


def test_the_argument_is_plain_json() -> None:
    worker = Worker(slot=0, line=3, listeners={"public": [4]}, admin=[5], proofs=6)
    assert json.loads(worker.to_argument()) == {
        "slot": 0,
        "line": 3,
        "listeners": {"public": [4]},
        "admin": [5],
        "proofs": 6,
    }
