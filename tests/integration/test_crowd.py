"""Ten thousand connections at once, and what happens when there is room for no more."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.relproxy import Relproxy
from tests.integration.conftest import eventually
from tests.integration.holdings import held_by
from tests.integration.stage import CREATE, LIST, Stage, message, staged
from tests.integration.wayward import wayward_at

IDLE = 10_000
FEW = 80
# Issue 7 wants 3,000 some day; more than this is a mistake.
MOST_BYTES = 40 * 1024
KEPT = message(*LIST).replace(b"Connection: close", b"Connection: keep-alive")
# The registry isn't asked: there is no record of such an instance.
EMPTY = KEPT.replace(b"limit=3", b"instance_id=none")
NEW = message(*CREATE, body='{"name": "x", "instance_id": "i"}')
KEPT_NEW = NEW.replace(b"Connection: close", b"Connection: keep-alive")
WAITS = '"event": "connections wait"'


@contextlib.asynccontextmanager
async def crowded(home: Path, **settings: Any) -> AsyncIterator[Stage]:
    """Run a relproxy, and the registry behind it."""
    with staged(home, **settings) as stage:
        async with wayward_at(stage.registry_port) as stage.registry:
            stage.is_taken = asyncio.Lock()
            for request in (message(*LIST), EMPTY.replace(b"keep-alive", b"close")):
                assert (await stage.ask(request)).startswith(b"HTTP/1.1 200")
            yield stage


class Idlers:
    """Clients that are connected, and do no more."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.sockets: list[socket.socket] = []

    async def come(self, count: int, *, ask: bytes = b"") -> None:
        """Connect some more; with `ask` each sends a request, and reads its answer."""
        turn = asyncio.Semaphore(64)

        async def one() -> None:
            async with turn:
                await self._one(ask)

        await asyncio.gather(*(one() for _ in range(count)))

    async def _one(self, ask: bytes) -> None:
        loop = asyncio.get_running_loop()
        made = socket.socket()
        self.sockets.append(made)
        made.setblocking(False)
        await loop.sock_connect(made, ("127.0.0.1", self._stage.relproxy.port))
        if ask:
            await loop.sock_sendall(made, ask)
            assert (await loop.sock_recv(made, 2**16)).startswith(b"HTTP/1.1 200")

    async def asks(self, request: bytes) -> bytes:
        """Send a request on the connection that has been there for longest."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sockets[0], request)
        return await loop.sock_recv(self.sockets[0], 2**16)

    def leave(self) -> None:
        """Go, all of them."""
        while self.sockets:
            self.sockets.pop().close()


@contextlib.contextmanager
def idling(stage: Stage) -> Iterator[Idlers]:
    idlers = Idlers(stage)
    try:
        yield idlers
    finally:
        idlers.leave()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process, and those that it starts, have what ten thousand clients need."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2 * IDLE:
        pytest.skip(f"needs {2 * IDLE} descriptors, `ulimit -Hn` says {before[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def few_descriptors(granted: int) -> Iterator[None]:
    """Let the processes that are started meanwhile have so few; this one keeps its own."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    started = Relproxy.start

    def start(self: Relproxy) -> None:
        started(self)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (granted, before[1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Relproxy, "start", start)
        yield


def said(stage: Stage, event: str) -> int:
    """Return how many lines of the log have this in them."""
    return stage.relproxy.log.read_text().count(event)


@pytest.mark.usefixtures("many_descriptors")
async def test_ten_thousand_idle_connections_cost_little_and_stop_nobody(
    tmp_path: Path, effort: int
) -> None:
    # So many have done a request; the others have said nothing.
    has_asked = IDLE // 2 if effort > 1 else IDLE // 10
    async with crowded(tmp_path, concurrency={"connections": IDLE + 100}) as stage:
        baseline = await stage.quiet()
        with idling(stage) as idlers:
            memory = stage.memory()
            await idlers.come(IDLE - has_asked)
            silent = stage.memory()
            await idlers.come(has_asked, ask=EMPTY)
            used = stage.memory()
            assert (await stage.metrics())["relproxy_client_connections"] == IDLE
            assert (await stage.ask(message(*LIST))).startswith(b"HTTP/1.1 200")
            each = (silent - memory) / (IDLE - has_asked), (used - silent) / has_asked
            print("bytes for each silent, used connection:", *map(int, each))  # noqa: T201
            assert max(each) <= MOST_BYTES
        await stage.returns_to(baseline)


async def test_who_comes_when_there_is_no_room_waits_and_is_served(tmp_path: Path) -> None:
    async with crowded(tmp_path, concurrency={"connections": 20}) as stage:
        baseline = await stage.quiet()
        with idling(stage) as idlers:
            await idlers.come(30)

            async def connections() -> float:
                return (await stage.metrics())["relproxy_client_connections"]

            await eventually(connections, 20.0)
            waiting = asyncio.ensure_future(stage.ask(message(*LIST)))
            await stage.metrics()
            assert not waiting.done()
            told = await stage.metrics()
            assert told["relproxy_client_connections_max"] == 20
            assert told["relproxy_accept_pauses_total"] >= 1
            idlers.leave()
            assert (await waiting).startswith(b"HTTP/1.1 200")
        await stage.returns_to(baseline)
        assert said(stage, WAITS) == 1


async def test_a_process_without_descriptors_neither_spins_nor_stops(tmp_path: Path) -> None:
    """The crowd may be larger than what is there: then accepting itself fails."""
    with few_descriptors(FEW):
        stack = crowded(tmp_path, concurrency={"connections": 500})
        async with stack as stage:
            baseline = await stage.quiet()
            with idling(stage) as idlers:
                await idlers.come(20, ask=EMPTY)
                await idlers.come(100)

                async def pauses() -> bool:
                    return said(stage, WAITS) > 0

                async def is_full() -> bool:
                    held = held_by(stage.pids, stage.ports)
                    return held["registry"] == 0 and held.total() == FEW

                await eventually(pauses, expected=True)
                # Who is served goes on being served, as far as that needs no descriptor.
                before = cpu_s(stage.pids[0])
                # Each needs one more: to look for journals, or to ask the registry.
                for asked in (EMPTY, KEPT, KEPT_NEW):
                    await eventually(is_full, expected=True)
                    answer = await idlers.asks(asked)
                    assert answer.startswith(b"HTTP/1.1 503"), answer
                # A loop that spins computes all the time, also while nothing is asked.
                await asyncio.sleep(2)
                assert cpu_s(stage.pids[0]) - before < 1
                assert said(stage, WAITS) == 1
                idlers.leave()
            assert (await stage.ask(message(*LIST))).startswith(b"HTTP/1.1 200")
            assert (await stage.ask(NEW)).startswith(b"HTTP/1.1 201")
            await stage.returns_to(baseline)
            # That relproxy has no descriptor says nothing about the registry.
            assert not said(stage, '"event": "last endpoint fails"')
            assert not said(stage, '"status": 500')


def cpu_s(pid: int) -> float:
    """Return the seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
