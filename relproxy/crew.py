"""The workers of one configuration: started, kept running, and followed when they die.

They accept on the same sockets, so that a connection that waits while a worker dies is taken by
another one. (With SO_REUSEPORT it would wait for the dead.) Workers are programs of their own,
never forks: what this process has read or opened is not in them but for what `relproxy.worker`
names.

The first worker has to serve before the others start: what it refuses is said once, and what only
one may do, such as a schema's new version, is done by one.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from relproxy.metric_slots import DIRECTORY_VARIABLE, forget_gauges
from relproxy.sockets import Sockets
from relproxy.tasks import TaskSet
from relproxy.worker import REFUSES, RETIRE, Worker

_LOG = logging.getLogger(__name__)

_MAX_DELAY_S = 30.0
# A worker that has lived so long died of something new.
_SETTLED_S = 60.0
# How a worker may end when it was told to: by itself, or before it listened for signals.
_DRAINED = frozenset({0, -signal.SIGTERM, -signal.SIGINT})


class Backoff:
    """How long one slot stays empty: not at all, and from the second death on ever longer."""

    def __init__(self) -> None:
        self._deaths = 0

    def delay_s(self, *, lived_s: float) -> float:
        """Count a death, and return the seconds to wait."""
        self._deaths = 1 if lived_s >= _SETTLED_S else self._deaths + 1
        # No more than is needed: doubled for a month, it would overflow.
        doublings = min(self._deaths - 2, 16)
        return 0.0 if doublings < 0 else min(2.0**doublings, _MAX_DELAY_S)


@dataclass(frozen=True, slots=True)
class _End:
    """How a worker's life ended."""

    has_served: bool
    status: int
    reason: str
    lived_s: float


@dataclass(frozen=True, slots=True)
class Outfit:
    """What every worker is started with."""

    command: Sequence[str]
    sockets: Sockets
    # A file in memory: all workers read the same text, whatever becomes of the operator's file.
    configuration: int
    # And show and believe the same certificates, likewise.
    proofs: int
    metrics: Path
    # A worker that was told to stop has so many seconds for it...
    drain_s: float
    # ...and one that says nothing for so many hangs.
    hang_s: float

    def argv(self, worker: Worker) -> Sequence[str]:
        """Return the command of a worker; of a repeated option the last one counts."""
        config = f"/dev/fd/{self.configuration}"
        return (*self.command, "--config", config, "--as-worker", worker.to_argument())

    def worker(self, slot: int, line: socket.socket) -> Worker:
        """Return what the worker of a slot is told."""
        descriptors = {
            name: [each.fileno() for each in sockets]
            for name, sockets in self.sockets.listeners.items()
        }
        admin = [each.fileno() for each in self.sockets.admin]
        return Worker(slot, line.fileno(), descriptors, admin, self.proofs)

    def close(self) -> None:
        """Close the files in memory, once nobody is started any more."""
        os.close(self.configuration)
        os.close(self.proofs)


def in_memory(text: str) -> int:
    """Return a file that has this text and no name."""
    file = os.memfd_create("relproxy.yaml")
    with os.fdopen(file, "wb", closefd=False) as written:
        written.write(text.encode())
    return file


class Slots:
    """The numbers of all workers that live: a place for what each counts."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return the lowest number that is free."""
        slot = next(number for number in itertools.count() if number not in self._taken)
        self._taken.add(slot)
        return slot

    def give_back(self, slot: int) -> None:
        """Free a number."""
        self._taken.discard(slot)


@dataclass(slots=True)
class _Hand:
    """A running worker, and this end of its line."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    has_served: bool = False
    refusal: bytes = b""


class Crew:
    """The workers that serve one configuration."""

    def __init__(self, outfit: Outfit, slots: Slots, *, count: int) -> None:
        self.outfit = outfit
        self.status = 0
        self.refusal = ""
        self._slots = slots
        self._count = count
        self._tasks = TaskSet()
        self._keepers: list[asyncio.Task[None]] = []
        self._running: dict[int, _Hand] = {}
        self._changed = asyncio.Event()
        self._is_ending = False

    async def begin(self) -> bool:
        """Start all workers, the first one alone; tell whether all of them serve.

        False where they don't because the first can't, or were told to end meanwhile.
        """
        for number in range(1, self._count + 1):
            keeper = self._tasks.start(self._keep(self._slots.take()), name="worker")
            # A keeper that ends before all are told to is broken: better none than too few.
            keeper.add_done_callback(self._keeper_ended)
            self._keepers.append(keeper)
            if number in {1, self._count}:
                await self._until(functools.partial(self._has_begun, number))
        return not self._is_ending

    @property
    def is_serving(self) -> bool:
        """Whether any worker serves."""
        return any(hand.has_served for hand in self._running.values())

    async def is_told_to_end(self) -> None:
        """Wait until this crew is told to end, or can't go on."""
        await self._until(lambda: self._is_ending)

    async def ended(self) -> int:
        """Wait until all have ended, and return the exit status.

        0 if every worker drained; that of a worker which at its slot's first start ended by itself
        before it served, because the next one would do the same.
        """
        await asyncio.wait(self._keepers, timeout=self.outfit.drain_s)
        self.kill()
        await asyncio.gather(*self._keepers)
        return self.status

    def stop(self) -> None:
        """Have every worker drain, and start none any more."""
        self._end()
        # Or connections would go on to wait here, with nobody to accept them.
        self.outfit.sockets.close()
        for hand in self._running.values():
            hand.process.terminate()

    def retire(self) -> None:
        """Have every worker end because others serve, and start none any more."""
        self._end()
        for hand in self._running.values():
            with suppress(OSError):
                hand.line.send(RETIRE)

    def kill(self) -> None:
        """End every worker that hasn't ended yet."""
        self._end()
        for slot, hand in self._running.items():
            _LOG.error("worker killed", extra={"worker": slot, "pid": hand.process.pid})
            hand.process.kill()

    def _has_begun(self, count: int) -> bool:
        serving = sum(hand.has_served for hand in self._running.values())
        return self._is_ending or serving >= count

    def _keeper_ended(self, _: asyncio.Task[None]) -> None:
        if not self._is_ending:
            self.stop()

    def _end(self) -> None:
        self._is_ending = True
        self._changed.set()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    async def _keep(self, slot: int) -> None:
        try:
            await self._lives(slot)
        finally:
            self._slots.give_back(slot)

    async def _lives(self, slot: int) -> None:
        """Keep one worker running in a slot until the crew ends."""
        backoff = Backoff()
        has_served = False
        while not self._is_ending:
            end = await self._life(slot)
            forget_gauges(slot, self.outfit.metrics)
            fields = {"worker": slot, "reason": end.reason}
            if self._is_ending:
                if end.status not in _DRAINED:
                    _LOG.error("worker died while draining", extra=fields)
                    self.status = self.status or 1
                return
            has_served |= end.has_served
            if not has_served and end.status > 0:
                _LOG.error("worker can't start", extra=fields)
                self.status, self.refusal = end.status, end.reason
                return
            delay_s = backoff.delay_s(lived_s=end.lived_s)
            _LOG.error("worker died", extra={**fields, "restart_s": delay_s})
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self.is_told_to_end()

    async def _life(self, slot: int) -> _End:
        """Start a worker, and wait until it has ended."""
        begun = time.monotonic()
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs:
                    process = self._started(self.outfit.worker(slot, theirs))
            except OSError as failure:
                # No memory, or no process left: for now.
                return _End(False, os.EX_OSERR, str(failure), 0.0)
            hand = self._running[slot] = _Hand(process, ours)
            await self._hears(slot, hand)
            status = await _ended(process)
            del self._running[slot]
        reason = hand.refusal.decode() or _reason(status)
        return _End(hand.has_served, status, reason, time.monotonic() - begun)

    async def _hears(self, slot: int, hand: _Hand) -> None:
        """Take what a worker says until it says no more; kill one whose event loop stands still."""
        loop = asyncio.get_running_loop()
        hand.line.setblocking(False)
        silence: asyncio.TimerHandle | None = None
        with suppress(ConnectionError):
            while said := await loop.sock_recv(hand.line, 4096):
                if said.startswith(REFUSES) or hand.refusal:
                    hand.refusal += said.removeprefix(REFUSES)
                    continue
                if not hand.has_served:
                    hand.has_served = True
                    _LOG.info("worker serves", extra={"worker": slot, "pid": hand.process.pid})
                    self._changed.set()
                if silence is not None:
                    silence.cancel()
                silence = loop.call_later(self.outfit.hang_s, self._end_silence, slot, hand)
        if silence is not None:
            silence.cancel()

    def _end_silence(self, slot: int, hand: _Hand) -> None:
        _LOG.error("worker hangs", extra={"worker": slot, "pid": hand.process.pid})
        hand.process.kill()

    def _started(self, worker: Worker) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - this program itself
            self.outfit.argv(worker),
            stdin=subprocess.DEVNULL,
            pass_fds=(self.outfit.configuration, *worker.descriptors),
            env={**os.environ, DIRECTORY_VARIABLE: str(self.outfit.metrics)},
        )


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait until a process has ended; return its exit status, negative for a signal.

    Not asyncio's own process: its watcher loses the status of a process that ends just when it is
    told to, and makes it 255.
    """
    ended = asyncio.Event()
    if process.poll() is None:
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(process.pid)
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    return process.wait()


def _reason(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
