from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from relproxy.systemd import Herald, herald_of

PATIENCE_S = 20


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@relproxy-{uuid.uuid4()}"


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        bound.settimeout(PATIENCE_S)
        yield bound


def heard(systemd: socket.socket) -> list[str]:
    return systemd.recv(4096).decode().split("\n")


def test_each_state_is_one_datagram(systemd: socket.socket, address: str) -> None:
    herald = Herald(address)
    herald.ready("Serving.")
    assert heard(systemd) == ["READY=1", "STATUS=Serving."]
    herald.reloading()
    reloading, clock, status = heard(systemd)
    assert (reloading, status) == ("RELOADING=1", "STATUS=Reloading.")
    assert int(clock.removeprefix("MONOTONIC_USEC=")) > 0
    herald.ready("a\nREADY=0")
    assert heard(systemd) == ["READY=1", "STATUS=a READY=0"]
    herald.stopping()
    assert heard(systemd) == ["STOPPING=1", "STATUS=Draining."]


def test_where_nobody_is_named_or_nobody_listens_nothing_happens(tmp_path: Path) -> None:
    Herald(None).ready("Serving.")
    Herald(str(tmp_path / "nobody")).ready("Serving.")


async def test_the_watchdog_hears_of_who_is_alive_and_of_nobody_else(
    systemd: socket.socket, address: str
) -> None:
    asked = 0
    seen_all = asyncio.Event()

    def is_alive() -> bool:
        nonlocal asked
        asked += 1
        if asked == 6:
            seen_all.set()
        return asked % 2 == 0

    watching = asyncio.create_task(Herald(address, watchdog_s=0.02).watch(is_alive))
    async with asyncio.timeout(PATIENCE_S):
        await seen_all.wait()
    watching.cancel()
    systemd.setblocking(False)
    assert [heard(systemd) for _ in range(3)] == [["WATCHDOG=1"]] * 3
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)


async def test_without_a_watchdog_there_is_nothing_to_watch() -> None:
    async with asyncio.timeout(PATIENCE_S):
        await herald_of({}).watch(lambda: True)


@pytest.mark.parametrize(
    ("given", "is_watched"),
    [
        ({"WATCHDOG_USEC": "20000"}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "often"}, False),
    ],
    ids=["for all", "for us", "for another process", "off", "nonsense"],
)
async def test_what_systemd_asks_for_is_read_and_kept_from_the_workers(
    systemd: socket.socket, address: str, given: dict[str, str], *, is_watched: bool
) -> None:
    environment = {"NOTIFY_SOCKET": address, **given, "HOME": "/"}
    herald = herald_of(environment)
    assert environment == {"HOME": "/"}
    watching = asyncio.create_task(herald.watch(lambda: True))
    await asyncio.wait([watching], timeout=None if not is_watched else 0)
    await asyncio.sleep(0)
    watching.cancel()
    herald.ready("Serving.")
    assert heard(systemd)[0] == ("WATCHDOG=1" if is_watched else "READY=1")
