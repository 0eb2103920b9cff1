"""Reloading, and restarting one after the other, as real processes under load: nothing fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.processes import free_port
from lab.relproxy import Relproxy
from lab.stand_in import StandIn
from tests.integration.conftest import LOOPBACK

PATIENCE_S = 20
TARGET = "/v2/schemas/image"
ALICE = {"X-Project-Id": "alice"}
each_way = pytest.mark.parametrize("workers", [1, 2])


def settings(*urls: str, **timeouts: float) -> dict[str, Any]:
    return {
        "identity": {"trusted_networks": LOOPBACK},
        "trusted_sources": {"networks": LOOPBACK},
        "registries": [{"name": "glance", "tenancy": "relproxy", "endpoints": list(urls)}],
        "routes": [{"name": "all", "registry": "glance"}],
        "timeouts": {"shutdown_s": 30, **timeouts},
    }


@asynccontextmanager
async def started(
    home: Path, url: str, *, workers: int, **timeouts: float
) -> AsyncIterator[Relproxy]:
    relproxy = Relproxy(home, settings(url, **timeouts), workers=workers)
    await asyncio.to_thread(relproxy.start)
    try:
        await eventually(lambda: shows(relproxy, "serving", workers))
        yield relproxy
    finally:
        await asyncio.to_thread(relproxy.kill)


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await is_so():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.02)


def events(relproxy: Relproxy, name: str) -> list[dict[str, Any]]:
    lines = relproxy.log.read_text().splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [line for line in logged if line["event"] == name]


async def shows(relproxy: Relproxy, event: str, times: int = 1) -> bool:
    return len(events(relproxy, event)) >= times


async def status_of(url: str) -> int:
    """Return the status of an answer over a connection of its own; 0 if there is none."""
    try:
        async with (
            aiohttp.ClientSession(headers=ALICE) as session,
            session.get(url) as answered,
        ):
            await answered.read()
            return answered.status
    except aiohttp.ClientConnectionError:
        return 0


async def metric(relproxy: Relproxy, name: str) -> float | None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{relproxy.admin_url}/metrics") as answered,
    ):
        lines = (await answered.text()).splitlines()
    found = (line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == name)
    return next(map(float, found), None)


@each_way
async def test_a_changed_file_is_served_once_it_was_asked_for(
    tmp_path: Path, noauth: StandIn, workers: int
) -> None:
    async with started(tmp_path, noauth.url, workers=workers) as relproxy:
        assert await metric(relproxy, "relproxy_config_reload_last_successful") == 1
        assert await status_of(f"{relproxy.url}/east{TARGET}") == 404
        relproxy.reload(routes=[{"name": "east", "path_prefix": "/east", "registry": "glance"}])
        await eventually(lambda: shows(relproxy, "configuration reloaded"))
        assert await status_of(f"{relproxy.url}/east{TARGET}") == 200
        assert await status_of(f"{relproxy.url}{TARGET}") == 404
        assert await metric(relproxy, 'relproxy_config_reload_total{result="taken"}') == 1
        assert await asyncio.to_thread(relproxy.stop) == 0


@each_way
async def test_nothing_is_said_any_more_of_an_endpoint_that_is_gone(
    tmp_path: Path, noauth: StandIn, workers: int
) -> None:
    gone, stays = "http://127.0.0.1:1", noauth.url
    up = 'relproxy_endpoint_up{{endpoint="{}",registry="glance"}}'.format
    async with started(tmp_path, stays, workers=workers, notice_s=0) as relproxy:
        registry = settings(stays)["registries"][0]
        relproxy.reload(registries=[{**registry, "endpoints": [stays, gone]}])
        await eventually(lambda: shows(relproxy, "configuration reloaded"))
        assert await metric(relproxy, up(gone)) == 1
        relproxy.reload(registries=[registry])

        async def is_forgotten() -> bool:
            return await metric(relproxy, up(gone)) is None

        await eventually(is_forgotten)
        assert await metric(relproxy, up(stays)) == 1


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "not valid": ({"log": {"level": "LOUD"}}, "log.level"),
    "an address in use": (
        {"listeners": [{"name": "public", "bind": "127.0.0.1:{taken}"}]},
        "the port is in use",
    ),
    "another store": ({"store": {"path": "{home}/other.db"}}, "store.path can't change"),
    "refused when it is opened": (
        {
            "registries": [
                {"name": "other", "tenancy": "relproxy", "endpoints": ["http://127.0.0.1:1"]}
            ],
            "routes": [{"name": "all", "registry": "other"}],
        },
        "glance",
    ),
}


@each_way
@pytest.mark.parametrize(("changed", "why"), REFUSED.values(), ids=REFUSED)
async def test_a_file_that_can_not_be_served_is_refused_and_the_old_one_goes_on(
    tmp_path: Path, noauth: StandIn, workers: int, changed: dict[str, Any], why: str
) -> None:
    async with started(tmp_path, noauth.url, workers=workers) as relproxy:
        taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = taken.sockets[0].getsockname()[1]
        filled = json.dumps(changed).replace("{taken}", str(port))
        # A record names the registry, so that no other name will do.
        assert await Load([relproxy.url]).create("first")
        relproxy.reload(**json.loads(filled.replace("{home}", str(tmp_path))))
        await eventually(lambda: shows(relproxy, "reload refused"))
        (refused,) = events(relproxy, "reload refused")
        assert why in refused["reason"]
        assert await status_of(f"{relproxy.url}{TARGET}") == 200
        assert await metric(relproxy, 'relproxy_config_reload_total{result="refused"}') == 1
        assert await metric(relproxy, "relproxy_config_reload_last_successful") == 0
        relproxy.reload()
        await eventually(lambda: shows(relproxy, "configuration reloaded"))
        assert await metric(relproxy, "relproxy_config_reload_last_successful") == 1
        assert await status_of(f"{relproxy.url}{TARGET}") == 200
        taken.close()
        await taken.wait_closed()
        assert await asyncio.to_thread(relproxy.stop) == 0


@each_way
async def test_listeners_come_and_go_with_a_reload(
    tmp_path: Path, noauth: StandIn, workers: int
) -> None:
    async with started(tmp_path, noauth.url, workers=workers) as relproxy:
        old, new = relproxy.port, free_port()
        kept = {"name": "public", "bind": f"127.0.0.1:{old}"}
        added = {"name": "added", "bind": f"127.0.0.1:{new}"}
        relproxy.reload(listeners=[kept, added])
        await eventually(lambda: shows(relproxy, "configuration reloaded"))
        assert await status_of(f"http://127.0.0.1:{new}{TARGET}") == 200
        assert await status_of(f"http://127.0.0.1:{old}{TARGET}") == 200
        relproxy.reload(listeners=[added])
        await eventually(lambda: shows(relproxy, "configuration reloaded", 2))

        async def is_gone() -> bool:
            return await status_of(f"http://127.0.0.1:{old}{TARGET}") == 0

        await eventually(is_gone)
        assert await status_of(f"http://127.0.0.1:{new}{TARGET}") == 200


@dataclass
class Load:
    """Clients that keep their connections, and never send a request again behind our back."""

    urls: list[str]
    tried: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    is_over: bool = False

    @property
    def url(self) -> str:
        """One of those that take requests now."""
        return self.urls[self.tried.total() % len(self.urls)]

    async def goes_on(self) -> None:
        """Wait until some more of everything was tried."""
        before = self.tried.copy()

        async def is_more() -> bool:
            return all(self.tried[kind] > before[kind] + 4 for kind in ("read", "create", "upload"))

        await eventually(is_more)

    async def read(self) -> None:
        async with self._session() as session:
            while not self.is_over:
                async with self._one("read"), session.get(self.url + TARGET) as answered:
                    await answered.read()
                    self._check(answered, 200)

    async def create(self, name: str) -> str | None:
        async with self._session() as session:
            return await self._create(session, name)

    async def create_on(self, name: str) -> None:
        async with self._session() as session:
            while not self.is_over:
                await self._create(session, f"{name}-{self.tried['create']}")

    async def upload_on(self, name: str) -> None:
        """Create and upload again and again, each time a while long."""

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 1000
                await asyncio.sleep(0.02)

        async with self._session() as session:
            while not self.is_over:
                if (image_id := await self._create(session, name)) is None:
                    continue
                url = f"{self.url}/v2/images/{image_id}/file"
                async with self._one("upload"), session.put(url, data=pieces()) as answered:
                    await answered.read()
                    self._check(answered, 204)

    async def _create(self, session: aiohttp.ClientSession, name: str) -> str | None:
        image_id: str | None = None
        async with (
            self._one("create"),
            session.post(f"{self.url}/v2/images", json={"name": name}) as answered,
        ):
            self._check(answered, 201)
            image_id = (await answered.json())["id"]
            self.made.add(image_id)
        return image_id

    @asynccontextmanager
    async def _one(self, kind: str) -> AsyncIterator[None]:
        self.tried[kind] += 1
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, AssertionError) as failure:
            self.failed.append(f"{kind}: {failure!r}")

    def _check(self, answered: aiohttp.ClientResponse, expected: int) -> None:
        assert answered.status == expected, answered.status

    def _session(self) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(headers=ALICE, timeout=aiohttp.ClientTimeout(PATIENCE_S))
        session._retry_connection = False  # noqa: SLF001
        return session


@asynccontextmanager
async def loaded(load: Load) -> AsyncIterator[None]:
    """Have clients at work for as long as the context lasts."""
    tasks = [asyncio.create_task(load.upload_on(f"of-{maker}")) for maker in range(3)]
    tasks += [asyncio.create_task(load.read()) for _ in range(4)]
    tasks += [asyncio.create_task(load.create_on(f"by-{maker}")) for maker in range(2)]
    try:
        yield
    finally:
        load.is_over = True
        await asyncio.gather(*tasks)


async def listed(relproxy: Relproxy) -> set[str]:
    """Return the ids of all images that relproxy says are alice's."""
    url: str | None = "/v2/images?limit=100"
    found: set[str] = set()
    async with aiohttp.ClientSession(headers=ALICE) as session:
        while url is not None:
            async with session.get(relproxy.url + url) as answered:
                page = await answered.json()
            found |= {image["id"] for image in page["images"]}
            url = page.get("next")
    return found


@each_way
async def test_no_request_fails_while_the_configuration_is_reloaded_again_and_again(
    tmp_path: Path, noauth: StandIn, workers: int, effort: int
) -> None:
    reloads = 1 if effort == 1 else 10
    async with started(tmp_path, noauth.url, workers=workers, notice_s=2) as relproxy:
        load = Load([relproxy.url])
        async with loaded(load):
            for number in range(1, reloads + 1):
                await load.goes_on()
                relproxy.reload(timeouts=settings("", notice_s=2)["timeouts"])
                await eventually(partial(shows, relproxy, "configuration reloaded", number))
            await load.goes_on()
            # The last one's predecessor has ended as well: its journal is another's now.
            await eventually(lambda: shows(relproxy, "journal adopted"))
        assert load.failed == []
        assert await listed(relproxy) == load.made
        assert events(relproxy, "worker died") == events(relproxy, "worker killed") == []
        assert await asyncio.to_thread(relproxy.stop) == 0
        told = f"{dict(load.tried)} tried, {len(load.failed)} failed"
        print(f"{workers} workers, {reloads} reloads: {told}")  # noqa: T201 - shown by -s


async def test_no_request_fails_while_one_relproxy_after_the_other_is_restarted(
    tmp_path: Path, noauth: StandIn
) -> None:
    """Behind a balancer that asks each for its readiness, and gives it a second to notice."""
    shared = {
        **settings(noauth.url, notice_s=1),
        "store": {"path": str(tmp_path / "relproxy.db")},
        "journal": {"directory": str(tmp_path / "journal"), "allow_volatile": True},
    }
    all_of_them = [Relproxy(tmp_path / name, shared) for name in ("one", "two")]
    load = Load([])
    balancing: asyncio.Task[None] | None = None
    try:
        for relproxy in all_of_them:
            await asyncio.to_thread(relproxy.start)
        balancing = asyncio.create_task(balanced(load, all_of_them))
        await eventually(lambda: uses(load, 2))
        async with loaded(load):
            for relproxy in all_of_them:
                await load.goes_on()
                assert await asyncio.to_thread(relproxy.stop) == 0
                await asyncio.to_thread(relproxy.start)
                await eventually(lambda: uses(load, 2))
            await load.goes_on()
        assert load.failed == []
        assert await listed(all_of_them[0]) == load.made
        print(f"2 restarts: {dict(load.tried)} tried, {len(load.failed)} failed")  # noqa: T201 - shown by -s
    finally:
        if balancing is not None:
            balancing.cancel()
        for relproxy in all_of_them:
            await asyncio.to_thread(relproxy.kill)


async def uses(load: Load, count: int) -> bool:
    return len(load.urls) == count


async def balanced(load: Load, all_of_them: list[Relproxy]) -> None:
    """Lead the load to those that are ready."""
    while True:
        ready = [r.url for r in all_of_them if await status_of(f"{r.admin_url}/readyz") == 200]
        load.urls[:] = ready
        await asyncio.sleep(0.05)


@each_way
async def test_systemd_is_told_of_start_reloads_and_stop(
    tmp_path: Path, noauth: StandIn, workers: int
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        heard: list[list[str]] = []

        async def until(first: str) -> list[str]:
            while not heard or heard[-1][0] != first:
                said = await asyncio.to_thread(systemd.recv, 65536)
                heard.append(said.decode().split("\n"))
            return heard.pop()

        relproxy = Relproxy(
            tmp_path / "relproxy",
            settings(noauth.url),
            workers=workers,
            environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"},
        )
        await asyncio.to_thread(relproxy.start)
        try:
            assert await until("READY=1") == ["READY=1", "STATUS=Serving."]
            assert await until("WATCHDOG=1") == ["WATCHDOG=1"]
            relproxy.reload(log={"level": "LOUD"})
            assert (await until("RELOADING=1"))[1].startswith("MONOTONIC_USEC=")
            assert "log.level" in (await until("READY=1"))[1]
            relproxy.reload()
            await until("RELOADING=1")
            assert await until("READY=1") == [
                "READY=1",
                "STATUS=Serving; the configuration was reloaded.",
            ]
            os.kill(relproxy.pid, signal.SIGTERM)
            assert (await until("STOPPING=1"))[0] == "STOPPING=1"
            assert await asyncio.to_thread(relproxy.await_end) == 0
        finally:
            await asyncio.to_thread(relproxy.kill)
