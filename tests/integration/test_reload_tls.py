"""Certificates of the other side, changed under a running relproxy: taken whole, or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lab.relproxy import Relproxy, command
from lab.stand_in import StandIn
from tests.authority import Authority
from tests.integration.test_reload import (
    TARGET,
    each_way,
    events,
    eventually,
    settings,
    shows,
    status_of,
)


@pytest.fixture
async def glance(authority: Authority) -> AsyncIterator[StandIn]:
    async with StandIn(tls=authority.context()) as started:
        yield started


def secured(url: str, ca_file: Path) -> dict[str, Any]:
    whole = settings(url)
    whole["registries"][0]["tls"] = {"ca_file": str(ca_file)}
    return whole


@each_way
async def test_a_new_file_counts_from_a_reload_on_and_a_bad_one_never(
    tmp_path: Path, glance: StandIn, authority: Authority, stranger: Authority, workers: int
) -> None:
    ca_file = tmp_path / "ca.pem"
    good, others = authority.ca_file.read_text(), stranger.ca_file.read_text()
    ca_file.write_text(good)
    relproxy = Relproxy(tmp_path / "relproxy", secured(glance.url, ca_file), workers=workers)
    await asyncio.to_thread(relproxy.start)
    try:
        await eventually(lambda: shows(relproxy, "serving", workers))
        url = f"{relproxy.url}{TARGET}"
        assert await status_of(url) == 200

        ca_file.write_text("nothing of use")
        relproxy.reload()
        await eventually(lambda: shows(relproxy, "reload refused"))
        (refused,) = events(relproxy, "reload refused")
        assert "registries[0].tls.ca_file" in refused["reason"]
        assert "holds no certificate" in refused["reason"]
        assert await status_of(url) == 200

        ca_file.write_text(others)
        glance.faults.delay = asyncio.Event()
        before = len(glance.requests)
        under_way = asyncio.ensure_future(status_of(url))
        await glance.await_requests(before + 1)
        relproxy.reload()
        await eventually(lambda: shows(relproxy, "configuration reloaded"))
        assert await status_of(url) == 502
        glance.faults.delay.set()
        assert await under_way == 200

        ca_file.write_text(good)
        relproxy.reload()
        await eventually(lambda: shows(relproxy, "configuration reloaded", 2))
        assert await status_of(url) == 200
    finally:
        await asyncio.to_thread(relproxy.kill)


async def test_who_follows_a_dead_worker_believes_what_its_siblings_do_whatever_files_hold(
    tmp_path: Path, glance: StandIn, authority: Authority
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.ca_file.read_bytes())
    relproxy = Relproxy(tmp_path / "relproxy", secured(glance.url, ca_file), workers=2)
    await asyncio.to_thread(relproxy.start)
    try:
        await eventually(lambda: shows(relproxy, "worker serves", 2))
        # Somebody is just writing it.
        ca_file.write_text("nothing of use")
        for line in events(relproxy, "worker serves"):
            os.kill(line["pid"], signal.SIGKILL)
        await eventually(lambda: shows(relproxy, "worker serves", 4))
        assert await status_of(f"{relproxy.url}{TARGET}") == 200
        assert events(relproxy, "worker can't start") == []
    finally:
        await asyncio.to_thread(relproxy.kill)


@pytest.mark.parametrize("verb", [("check",), ("serve",), ("serve", "--workers", "2")], ids=str)
def test_a_file_that_can_not_be_used_is_said_before_anything_is_served(
    tmp_path: Path, verb: tuple[str, ...]
) -> None:
    relproxy = Relproxy(
        tmp_path / "relproxy", secured("https://127.0.0.1:1", tmp_path / "nowhere.pem")
    )
    relproxy.write()
    ended = command(*verb, "--config", str(relproxy.configuration))
    assert ended.returncode == (1 if verb == ("check",) else os.EX_CONFIG)
    sentence = f"registries[0].tls.ca_file: {tmp_path}/nowhere.pem can't be read: No such file"
    assert sentence in ended.stdout + ended.stderr


async def test_the_command_that_explains_asks_over_tls(
    tmp_path: Path, glance: StandIn, authority: Authority
) -> None:
    image = glance.add_image(name="a", visibility="public")
    relproxy = Relproxy(tmp_path / "relproxy", secured(glance.url, authority.ca_file))
    await asyncio.to_thread(relproxy.start)
    try:
        arguments = ("--project", "alice", "--image", image["id"])
        ended = await asyncio.to_thread(
            command, "explain", "--config", str(relproxy.configuration), *arguments
        )
        assert ended.returncode == 0
        assert "in lists: shown" in ended.stdout
        assert "not learned" not in ended.stdout
    finally:
        await asyncio.to_thread(relproxy.stop)
