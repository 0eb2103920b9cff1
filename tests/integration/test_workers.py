"""Several workers on one set of addresses, as real processes under a real supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lab.processes import free_port
from lab.relproxy import Relproxy
from lab.stand_in import StandIn
from tests.integration.conftest import LOOPBACK

PATIENCE_S = 30
COUNT = 3
REQUESTS = 'relproxy_requests_total{route="all",status="200",treatment="pass"}'
IN_PROGRESS = "relproxy_requests_in_progress"
TARGET = "/v2/schemas/image"


async def eventually(is_so: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = is_so()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)


class Workers:
    """A relproxy of several workers, and a client that opens a connection for each request."""

    def __init__(self, relproxy: Relproxy, session: aiohttp.ClientSession) -> None:
        self.relproxy = relproxy
        self.session = session

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self.relproxy.log.read_text().splitlines()
        logged = [json.loads(line) for line in lines if line.endswith("}")]
        return [line for line in logged if line["event"] == name]

    @property
    def pids(self) -> dict[int, int]:
        """Slot -> the process id of the worker that served in it last."""
        return {event["worker"]: event["pid"] for event in self.events("worker serves")}

    async def all_serve(self) -> None:
        await eventually(lambda: len(self.pids) == self.relproxy.workers)

    async def get(self, target: str = TARGET) -> int:
        async with self.session.get(self.relproxy.url + target) as answer:
            await answer.read()
            return answer.status

    async def metrics(self) -> dict[str, float]:
        async with self.session.get(f"{self.relproxy.admin_url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        shown = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in shown}

    async def overview(self) -> dict[str, Any]:
        async with self.session.get(f"{self.relproxy.admin_url}/v1/overview") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    @contextmanager
    def alone(self, slot: int) -> Iterator[int]:
        """Have one worker alone to accept connections, by halting the others."""
        halted = [pid for other, pid in self.pids.items() if other != slot]
        with _halted(halted):
            yield self.pids[slot]


@contextmanager
def _halted(pids: list[int]) -> Iterator[None]:
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            while _state(pid) != "T":
                os.sched_yield()
        yield
    finally:
        for pid in pids:
            if _state(pid) == "T":
                os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str | None:
    """Return a process's state as Linux shows it; None and Z are gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def settings(url: str) -> dict[str, Any]:
    return {
        "identity": {"trusted_networks": LOOPBACK},
        "trusted_sources": {"networks": LOOPBACK},
        "registries": [{"name": "glance", "tenancy": "relproxy", "endpoints": [url]}],
        "routes": [{"name": "all", "registry": "glance"}],
        "timeouts": {"shutdown_s": 20},
    }


@pytest.fixture
async def workers(tmp_path: Path, noauth: StandIn) -> AsyncIterator[Workers]:
    relproxy = Relproxy(tmp_path / "relproxy", settings(noauth.url), workers=COUNT)
    await asyncio.to_thread(relproxy.start)
    try:
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(PATIENCE_S)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers={"X-Project-Id": "alice"}
        ) as session:
            # Or a lost request would be sent again behind the test's back.
            session._retry_connection = False  # noqa: SLF001
            started = Workers(relproxy, session)
            await started.all_serve()
            yield started
    finally:
        await asyncio.to_thread(relproxy.stop)


async def test_all_workers_serve_the_same_addresses_and_log_who_they_are(
    workers: Workers,
) -> None:
    for slot in range(COUNT):
        with workers.alone(slot):
            assert await workers.get(f"/nowhere-{slot}") == 404
            assert f'relproxy_build_info{{version="{_version()}"}}' in await workers.metrics()
    refused = {event["target"]: event["worker"] for event in workers.events("request refused")}
    assert refused == {f"/nowhere-{slot}": slot for slot in range(COUNT)}
    # The supervisor accepts nothing, and nothing runs twice.
    assert len(workers.events("serving")) == COUNT
    assert all("worker" in event for event in workers.events("serving"))


def _version() -> str:
    argv = [sys.executable, "-m", "relproxy", "--version"]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    return shown.stdout.split()[1]


async def test_a_worker_that_is_killed_loses_no_later_request_and_is_followed(
    workers: Workers,
) -> None:
    before = workers.pids
    os.kill(before[1], signal.SIGKILL)
    statuses = [await workers.get() for _ in range(50)]
    assert statuses == [200] * 50
    await eventually(lambda: workers.pids[1] != before[1])
    (death,) = workers.events("worker died")
    assert (death["worker"], death["reason"]) == (1, "signal SIGKILL")
    with workers.alone(1) as pid:
        assert pid != before[1]
        assert await workers.get() == 200
    assert {slot: workers.pids[slot] for slot in (0, 2)} == {0: before[0], 2: before[2]}


async def test_a_connection_that_waits_while_a_worker_dies_is_served_by_another(
    workers: Workers,
) -> None:
    """What SO_REUSEPORT would break: each worker would have a queue of its own, to die with it."""
    pids = workers.pids
    with _halted(list(pids.values())):
        asked = [asyncio.create_task(workers.get()) for _ in range(30)]
        await eventually(lambda: _waiting(workers.relproxy.port) == len(asked))
        os.kill(pids[0], signal.SIGKILL)
        await eventually(lambda: bool(workers.events("worker died")))
    assert await asyncio.gather(*asked) == [200] * 30


def _waiting(port: int) -> int:
    """Return how many connections to a listening port of 127.0.0.1 nobody has accepted."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            return int(fields[4].rpartition(":")[2], 16)
    return 0


async def test_metrics_are_those_of_all_workers_and_outlive_each(
    workers: Workers, noauth: StandIn
) -> None:
    for slot in range(COUNT):
        with workers.alone(slot):
            for _ in range(slot + 1):
                assert await workers.get() == 200
    for slot in range(COUNT):
        with workers.alone(slot):
            assert (await workers.metrics())[REQUESTS] == 6
            assert (await workers.overview())["routes"][0]["requests"] == {"200": 6}
    noauth.faults.delay = asyncio.Event()
    with workers.alone(2) as pid:
        lost = asyncio.create_task(workers.get())
        await noauth.await_requests(7)
        assert (await workers.metrics())[IN_PROGRESS] == 1
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientError):
            await lost
    noauth.faults.delay = None
    assert (await workers.metrics())[REQUESTS] == 6
    await eventually(lambda: workers.pids[2] != pid)
    with workers.alone(2):
        assert await workers.get() == 200
    metrics = await workers.metrics()
    assert metrics[REQUESTS] == 7
    assert metrics[IN_PROGRESS] == 0
    assert metrics[f'relproxy_build_info{{version="{_version()}"}}'] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_supervisor_drains_every_worker(
    workers: Workers, noauth: StandIn, number: signal.Signals
) -> None:
    noauth.faults.delay = asyncio.Event()
    under_way = []
    for slot in range(COUNT):
        with workers.alone(slot):
            under_way.append(asyncio.create_task(workers.get()))
            await noauth.await_requests(slot + 1)
    os.kill(workers.relproxy.pid, number)
    await eventually(lambda: _is_closed(workers.relproxy.port))
    assert not any(task.done() for task in under_way)
    noauth.faults.delay.set()
    assert await asyncio.gather(*under_way) == [200] * COUNT
    assert await asyncio.to_thread(workers.relproxy.await_end) == 0
    assert workers.events("worker died") == []
    assert all(_state(pid) in {None, "Z"} for pid in workers.pids.values())


def _is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_workers_whose_supervisor_was_killed_drain_and_end(
    workers: Workers, noauth: StandIn
) -> None:
    noauth.faults.delay = asyncio.Event()
    under_way = asyncio.create_task(workers.get())
    await noauth.await_requests(1)
    os.kill(workers.relproxy.pid, signal.SIGKILL)
    await eventually(lambda: _is_closed(workers.relproxy.port))
    assert not under_way.done()
    noauth.faults.delay.set()
    assert await under_way == 200
    pids = workers.pids.values()
    await eventually(lambda: all(_state(pid) in {None, "Z"} for pid in pids))
    assert len(workers.events("supervisor is gone")) == COUNT


async def test_a_worker_that_follows_reads_what_the_supervisor_has_read(
    workers: Workers,
) -> None:
    (workers.relproxy.home / "relproxy.yaml").write_text("listeners: nonsense")
    before = workers.pids[0]
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: workers.pids[0] != before)
    with workers.alone(0):
        assert await workers.get() == 200


async def test_a_recorded_create_is_seen_through_every_worker(workers: Workers) -> None:
    url = f"{workers.relproxy.url}/v2/images"
    for maker in range(COUNT):
        with workers.alone(maker):
            async with workers.session.post(url, json={"name": f"by-{maker}"}) as answer:
                assert answer.status == 201
    expected = {f"by-{maker}" for maker in range(COUNT)}
    for reader in range(COUNT):
        with workers.alone(reader):
            async with workers.session.get(url) as answer:
                assert {image["name"] for image in (await answer.json())["images"]} == expected


def serve(tmp_path: Path, **changed: Any) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "relproxy.yaml"
    configuration = {
        "listeners": [{"name": "public", "bind": "127.0.0.1:0"}],
        "admin": {"bind": "127.0.0.1:0"},
        "journal": {"directory": str(tmp_path / "journal"), "allow_volatile": True},
        "store": {"path": str(tmp_path / "relproxy.db")},
        **settings("http://127.0.0.1:1"),
        **changed,
    }
    file.write_text(yaml.safe_dump(configuration))
    argv = [sys.executable, "-m", "relproxy", "serve", "--config", str(file), "--workers", "3"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_an_address_in_use_is_told_once_and_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        finished = serve(tmp_path, listeners=[{"name": "public", "bind": bind}])
    assert finished.returncode == os.EX_CONFIG
    assert finished.stderr == f"listener 'public': can't listen on {bind}: the port is in use.\n"
    assert not (tmp_path / "relproxy.db").exists()


def test_a_bad_configuration_is_told_once(tmp_path: Path) -> None:
    finished = serve(tmp_path, log={"level": "LOUD"})
    assert finished.returncode == os.EX_CONFIG
    (line,) = finished.stderr.splitlines()
    assert "log.level" in line


def test_what_the_first_worker_refuses_is_told_once_and_ends_everything(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "relproxy.db"
    finished = serve(tmp_path, store={"path": str(path)})
    assert finished.returncode == os.EX_CONFIG
    said = [line for line in finished.stderr.splitlines() if not line.startswith("{")]
    assert said == [f"The store {path} can't be opened: No such file or directory."]
    logged = [json.loads(line) for line in finished.stderr.splitlines() if line.startswith("{")]
    assert [(line["event"], line["worker"]) for line in logged] == [("worker can't start", 0)]


@pytest.mark.parametrize("count", ["0", "-1", "257", "two", "²"])
def test_a_count_of_workers_that_makes_no_sense_is_refused(count: str) -> None:
    argv = [sys.executable, "-m", "relproxy", "serve", "--config", "x", f"--workers={count}"]
    finished = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert "a number from 1 to 256" in finished.stderr


def test_ports_are_free_for_the_next_supervisor_at_once(tmp_path: Path) -> None:
    home = tmp_path / "relproxy"
    relproxy = Relproxy(home, settings("http://127.0.0.1:1"), free_port(), free_port(), workers=2)
    for _ in range(2):
        relproxy.start()
        assert relproxy.stop() == 0
