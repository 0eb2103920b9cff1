"""The supervisor of several workers: binds, starts them, and starts anew whichever dies.

It accepts nothing itself. All workers accept on the same sockets, so that a connection that waits
while a worker dies is taken by another one. (With SO_REUSEPORT it would wait for the dead.) Workers
are programs of their own, never forks: what this process has read or opened is not in them but for
what `relproxy.worker` names.

The first worker has to serve before the others start: what it refuses is said once, and what only
one may do, such as a schema's new version, is done by one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from relproxy.metrics import DIRECTORY_VARIABLE, forget_gauges
from relproxy.sockets import Sockets
from relproxy.tasks import TaskSet
from relproxy.worker import Worker

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
    metrics: Path

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
        return Worker(slot, line.fileno(), descriptors, admin)


async def supervise(
    command: Sequence[str], sockets: Sockets, configuration: bytes, *, count: int, drain_s: float
) -> int:
    """Keep `count` workers running until SIGTERM or SIGINT, and return the exit status.

    `command` is a worker's, but for what `Outfit` adds; `configuration` is the text of the file
    that was checked. A worker that was told to stop has `drain_s` seconds for it.
    """
    file = os.memfd_create("relproxy.yaml")
    with os.fdopen(file, "wb") as written, TemporaryDirectory(prefix="relproxy-") as directory:
        written.write(configuration)
        written.flush()
        supervisor = Supervisor(
            Outfit(command, sockets, file, Path(directory)), count=count, drain_s=drain_s
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        return await supervisor.run()


class Supervisor:
    """Keeps workers running until it is told to stop."""

    def __init__(self, outfit: Outfit, *, count: int, drain_s: float) -> None:
        self._outfit = outfit
        self._count = count
        self._drain_s = drain_s
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._has_begun = asyncio.Event()
        self._is_stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Return the exit status once everything has ended.

        0 if every worker drained; that of a worker which at its slot's first start ended by itself
        before it served, because the next one would do the same.
        """
        tasks = TaskSet()
        keepers: list[asyncio.Task[None]] = []
        for slot in range(self._count):
            keepers.append(tasks.start(self._keep(slot), name=f"worker {slot}"))
            # A keeper that ends before all are told to is broken: better none than too few.
            keepers[-1].add_done_callback(lambda _: self.stop())
            await self._has_begun.wait()
        await self._is_stopping.wait()
        await asyncio.wait(keepers, timeout=self._drain_s)
        for slot, process in self._running.items():
            _LOG.error("worker killed", extra={"worker": slot, "pid": process.pid})
            process.kill()
        await asyncio.gather(*keepers)
        return self._status

    def stop(self) -> None:
        """Have every worker drain, and start none any more."""
        self._is_stopping.set()
        self._has_begun.set()
        # Or connections would go on to wait here, with nobody to accept them.
        self._outfit.sockets.close()
        for process in self._running.values():
            process.terminate()

    async def _keep(self, slot: int) -> None:
        backoff = Backoff()
        has_served = False
        while not self._is_stopping.is_set():
            end = await self._life(slot)
            forget_gauges(slot, self._outfit.metrics)
            fields = {"worker": slot, "reason": end.reason}
            if self._is_stopping.is_set():
                if end.status not in _DRAINED:
                    _LOG.error("worker died while draining", extra=fields)
                    self._status = self._status or 1
                return
            has_served |= end.has_served
            if not has_served and end.status > 0:
                _LOG.error("worker can't start", extra=fields)
                self._status = end.status
                return
            delay_s = backoff.delay_s(lived_s=end.lived_s)
            _LOG.error("worker died", extra={**fields, "restart_s": delay_s})
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._is_stopping.wait()

    async def _life(self, slot: int) -> _End:
        """Start a worker, and wait until it has ended."""
        begun = time.monotonic()
        has_served = False
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs:
                    process = self._started(self._outfit.worker(slot, theirs))
            except OSError as failure:
                # No memory, or no process left: for now.
                return _End(False, os.EX_OSERR, str(failure), 0.0)
            self._running[slot] = process
            if await _hears(ours):
                has_served = True
                self._has_begun.set()
                _LOG.info("worker serves", extra={"worker": slot, "pid": process.pid})
            status = await _ended(process)
            del self._running[slot]
        return _End(has_served, status, _reason(status), time.monotonic() - begun)

    def _started(self, worker: Worker) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - this program itself
            self._outfit.argv(worker),
            stdin=subprocess.DEVNULL,
            pass_fds=(self._outfit.configuration, *worker.descriptors),
            env={**os.environ, DIRECTORY_VARIABLE: str(self._outfit.metrics)},
        )


async def _hears(line: socket.socket) -> bool:
    """Tell whether the worker has said that it serves; False if it ended without."""
    line.setblocking(False)
    try:
        return bool(await asyncio.get_running_loop().sock_recv(line, 1))
    except ConnectionError:
        return False


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
