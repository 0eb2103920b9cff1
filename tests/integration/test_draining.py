"""How a relproxy leaves, as a real process that is sent real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.relproxy import Relproxy
from lab.stand_in import StandIn
from tests.integration.conftest import LOOPBACK

PATIENCE_S = 30
# Longer than any of these tests: what ends earlier was not waited for.
LONG_S = 600
TARGET = "/v2/schemas/image"
HEAD = f"GET {TARGET} HTTP/1.1\r\nHost: images\r\nX-Project-Id: alice\r\n\r\n".encode()


def settings(url: str, **timeouts: float) -> dict[str, Any]:
    return {
        "identity": {"trusted_networks": LOOPBACK},
        "registries": [{"name": "glance", "tenancy": "relproxy", "endpoints": [url]}],
        "routes": [{"name": "all", "registry": "glance"}],
        "timeouts": {"shutdown_s": LONG_S, **timeouts},
    }


@asynccontextmanager
async def started(
    home: Path, url: str, *, workers: int = 1, **timeouts: float
) -> AsyncIterator[Relproxy]:
    relproxy = Relproxy(home / "relproxy", settings(url, **timeouts), workers=workers)
    await asyncio.to_thread(relproxy.start)
    try:
        yield relproxy
    finally:
        await asyncio.to_thread(relproxy.kill)


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await is_so():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(
    relproxy: Relproxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relproxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Return the status of the next answer, and whether it says that the connection closes."""
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.splitlines()[1:])
        }
        await reader.readexactly(int(fields[b"content-length"]))
    return int(head.split()[1]), fields.get(b"connection") == b"close"


async def at_end(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(PATIENCE_S):
        return await reader.read() == b""


async def is_red(relproxy: Relproxy) -> bool:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{relproxy.admin_url}/readyz") as answered,
    ):
        return (answered.status, (await answered.json())["status"]) == (503, "draining")


async def refuses(relproxy: Relproxy) -> bool:
    """Tell whether no connection is taken any more."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", relproxy.port)
    except ConnectionError:
        return True
    writer.close()
    return False


def events(relproxy: Relproxy, name: str) -> Iterator[dict[str, Any]]:
    for line in relproxy.log.read_text().splitlines():
        if line.startswith("{") and (event := json.loads(line))["event"] == name:
            yield event


async def ended(relproxy: Relproxy) -> int:
    return await asyncio.to_thread(relproxy.await_end)


@pytest.mark.parametrize("workers", [1, 2])
async def test_who_is_told_to_stop_is_not_ready_and_serves_until_others_had_time_to_notice(
    tmp_path: Path, noauth: StandIn, workers: int
) -> None:
    async with (
        started(tmp_path, noauth.url, workers=workers, notice_s=LONG_S) as relproxy,
        connected(relproxy) as (reader, writer),
    ):
        writer.write(HEAD)
        assert await answer(reader) == (200, False)
        os.kill(relproxy.pid, signal.SIGTERM)
        await eventually(lambda: is_red(relproxy))
        async with connected(relproxy) as (late, late_writer):
            late_writer.write(HEAD)
            assert await answer(late) == (200, True)
            assert await at_end(late)
        # Its next answer tells the old connection; nobody closes it before.
        writer.write(HEAD)
        assert await answer(reader) == (200, True)
        assert await at_end(reader)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_connections_do_not_hold_up_a_stop(
    tmp_path: Path, noauth: StandIn, number: signal.Signals
) -> None:
    async with (
        started(tmp_path, noauth.url) as relproxy,
        connected(relproxy) as (used, writer),
        connected(relproxy) as (unused, _),
    ):
        writer.write(HEAD)
        assert await answer(used) == (200, False)
        os.kill(relproxy.pid, number)
        assert await at_end(used)
        assert await at_end(unused)
        assert await ended(relproxy) == 0


async def test_a_request_of_which_a_part_has_come_is_served_though_no_connection_is_taken(
    tmp_path: Path, noauth: StandIn
) -> None:
    async with (
        started(tmp_path, noauth.url) as relproxy,
        connected(relproxy) as (reader, writer),
        connected(relproxy) as (canary, other),
    ):
        writer.write(HEAD)
        assert await answer(reader) == (200, False)
        writer.write(HEAD[:-2])
        other.write(HEAD)
        assert await answer(canary) == (200, False)
        os.kill(relproxy.pid, signal.SIGTERM)
        # The idle one goes, and with it all that were idle.
        assert await at_end(canary)
        assert await refuses(relproxy)
        writer.write(HEAD[-2:])
        assert await answer(reader) == (200, True)
        assert await ended(relproxy) == 0


async def test_a_download_under_way_is_finished_and_its_connection_closed(
    tmp_path: Path, noauth: StandIn
) -> None:
    async with started(tmp_path, noauth.url) as relproxy:
        noauth.faults.delay = asyncio.Event()
        async with connected(relproxy) as (reader, writer):
            writer.write(HEAD)
            await noauth.await_requests(1)
            os.kill(relproxy.pid, signal.SIGTERM)
            await eventually(lambda: refuses(relproxy))
            noauth.faults.delay.set()
            assert await answer(reader) == (200, True)
            assert await at_end(reader)
        assert await ended(relproxy) == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_signal_ends_it_at_once(
    tmp_path: Path, noauth: StandIn, workers: int
) -> None:
    async with started(tmp_path, noauth.url, workers=workers) as relproxy:
        noauth.faults.delay = asyncio.Event()
        async with connected(relproxy) as (reader, writer):
            writer.write(HEAD)
            await noauth.await_requests(1)
            os.kill(relproxy.pid, signal.SIGTERM)
            await eventually(lambda: refuses(relproxy))
            os.kill(relproxy.pid, signal.SIGTERM)
            assert await ended(relproxy) == 1
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await answer(reader)
        assert list(events(relproxy, "ended at once" if workers == 1 else "worker killed"))


async def test_a_request_that_is_not_done_in_time_is_cut_off(
    tmp_path: Path, noauth: StandIn
) -> None:
    async with started(tmp_path, noauth.url, shutdown_s=0.2) as relproxy:
        noauth.faults.delay = asyncio.Event()
        async with connected(relproxy) as (_, writer):
            writer.write(HEAD)
            await noauth.await_requests(1)
            os.kill(relproxy.pid, signal.SIGTERM)
            assert await ended(relproxy) == 0


async def test_what_the_store_has_not_taken_is_delivered_before_it_ends(
    tmp_path: Path, noauth: StandIn
) -> None:
    async with started(tmp_path, noauth.url) as relproxy:
        store = sqlite3.connect(relproxy.home / "relproxy.db", isolation_level=None)
        with closing(store):
            store.execute("BEGIN IMMEDIATE")
            assert await created(relproxy) == (201, "pending")
            os.kill(relproxy.pid, signal.SIGTERM)
            await eventually(lambda: refuses(relproxy))
            store.execute("ROLLBACK")
            assert await ended(relproxy) == 0
            assert store.execute("SELECT count(*) FROM image_record").fetchone() == (1,)


async def created(relproxy: Relproxy) -> tuple[int, str | None]:
    headers = {"X-Project-Id": "alice"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{relproxy.url}/v2/images", json={"name": "image"}) as answered,
    ):
        return answered.status, answered.headers.get("X-Relproxy-Record")
