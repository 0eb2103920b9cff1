from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lab.processes import free_port
from lab.relproxy import Relproxy, command
from lab.stand_in import StandIn


def settings(url: str) -> dict[str, Any]:
    return {
        "registries": [{"name": "glance", "tenancy": "registry", "endpoints": [url]}],
        "routes": [{"name": "all", "registry": "glance"}],
        "timeouts": {"shutdown_s": 20},
    }


def test_a_port_in_use_is_one_line_and_exit_78(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        file = tmp_path / "relproxy.yaml"
        configuration = {
            "listeners": [{"name": "public", "bind": bind}],
            "admin": {"bind": "127.0.0.1:0"},
            "store": {"path": str(tmp_path / "r.db")},
            **settings("http://127.0.0.1:1"),
        }
        file.write_text(yaml.safe_dump(configuration))
        finished = command("serve", "--config", str(file))
    assert finished.returncode == os.EX_CONFIG
    assert finished.stderr == f"listener 'public': can't listen on {bind}: the port is in use.\n"


def test_a_bad_configuration_starts_nothing_and_names_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "relproxy.yaml"
    file.write_text("listeners: [{name: a, bind: nonsense}]\nadmin: {bind: 0.0.0.0:1}\n")
    finished = command("serve", "--config", str(file))
    assert finished.returncode == os.EX_CONFIG
    lines = finished.stderr.splitlines()
    assert len(lines) == 5
    assert all(line.startswith(f"{file}:") for line in lines)
    assert command("check", "--config", str(file)).stdout.splitlines() == lines


def test_a_store_that_can_not_be_opened_is_a_sentence_and_exit_78(tmp_path: Path) -> None:
    file = tmp_path / "relproxy.yaml"
    configuration = {
        "listeners": [{"name": "public", "bind": "127.0.0.1:0"}],
        "admin": {"bind": "127.0.0.1:0"},
        "store": {"path": str(tmp_path / "missing" / "r.db")},
        **settings("http://127.0.0.1:1"),
    }
    file.write_text(yaml.safe_dump(configuration))
    finished = command("serve", "--config", str(file))
    assert finished.returncode == os.EX_CONFIG
    last = finished.stderr.splitlines()[-1]
    assert last == f"The store {tmp_path}/missing/r.db can't be opened: No such file or directory."
    assert "Traceback" not in finished.stderr


async def test_an_upload_under_way_arrives_whole_though_relproxy_is_told_to_stop(
    tmp_path: Path, noauth: StandIn
) -> None:
    relproxy = Relproxy(tmp_path / "relproxy", settings(noauth.url), free_port(), free_port())
    await asyncio.to_thread(relproxy.start)
    try:
        image_id = noauth.add_image(name="big")["id"]
        stopping = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"first half, "
            await stopping.wait()
            yield b"second half"

        url = f"{relproxy.url}/v2/images/{image_id}/file"
        async with aiohttp.ClientSession() as session:
            upload = asyncio.create_task(_put(session, url, pieces()))
            await noauth.await_requests(1)
            os.kill(relproxy.pid, signal.SIGTERM)
            await _refused(relproxy.port)
            stopping.set()
            assert await upload == 204
        assert noauth.requests[-1].length == len(b"first half, second half")
        assert await asyncio.to_thread(relproxy.await_end) == 0
    finally:
        await asyncio.to_thread(relproxy.stop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_running_request_finish(
    tmp_path: Path, noauth: StandIn, number: signal.Signals
) -> None:
    relproxy = Relproxy(tmp_path / "relproxy", settings(noauth.url), free_port(), free_port())
    await asyncio.to_thread(relproxy.start)
    try:
        noauth.faults.delay = asyncio.Event()
        async with aiohttp.ClientSession() as session:
            running = asyncio.create_task(_status(session, f"{relproxy.url}/v2/schemas/image"))
            await noauth.await_requests(1)
            os.kill(relproxy.pid, number)
            await _refused(relproxy.port)
            noauth.faults.delay.set()
            assert await running == 200
        assert await asyncio.to_thread(relproxy.await_end) == 0
    finally:
        await asyncio.to_thread(relproxy.stop)


async def _status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        return answer.status


async def _put(session: aiohttp.ClientSession, url: str, body: AsyncIterator[bytes]) -> int:
    async with session.put(url, data=body) as answer:
        return answer.status


async def _refused(port: int) -> None:
    """Wait until the listener takes no more connections."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return
            writer.close()
            await asyncio.sleep(0)
