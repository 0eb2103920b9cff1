"""Image data is never held: 1 GiB each way, and a slow reader, on relproxy's own peak memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.processes import free_port
from lab.relproxy import Relproxy
from lab.stand_in import StandIn
from tests.authority import Authority

GIB = 2**30
PIECE = bytes(2**20)
# Over what relproxy holds when nothing goes through it.
ALLOWED_KIB = 32 * 1024
HEADERS = {"X-Project-Id": "alice", "X-Roles": "member"}


def peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(li for li in status.splitlines() if li.startswith("VmHWM:"))
    return int(line.split()[1])


@pytest.fixture(params=["plain", "tls"])
async def trusting_big(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[StandIn, dict[str, Any]]]:
    """A stand-in whose images are as big as what was uploaded, and how TLS is spoken with it."""
    if request.param == "plain":
        async with StandIn(trusting=True) as glance:
            yield glance, {}
        return
    authority = Authority(tmp_path / "authority")
    async with StandIn(trusting=True, tls=authority.context()) as glance:
        yield glance, {"tls": {"ca_file": str(authority.ca_file)}}


async def test_a_gibibyte_each_way_stays_within_32_mib_of_idle(
    tmp_path: Path,
    trusting_big: tuple[StandIn, dict[str, Any]],
    record_property: Callable[[str, object], None],
) -> None:
    glance, tls = trusting_big
    relproxy = Relproxy(
        tmp_path / "relproxy",
        {
            "identity": {"trusted_networks": ["127.0.0.0/8"]},
            "registries": [
                {
                    "name": "glance",
                    "tenancy": "registry",
                    "upstream_identity": "headers",
                    "endpoints": [glance.url],
                    **tls,
                }
            ],
            "routes": [{"name": "all", "registry": "glance"}],
        },
        free_port(),
        free_port(),
    )
    await asyncio.to_thread(relproxy.start)
    try:
        async with aiohttp.ClientSession(relproxy.url, headers=HEADERS) as session:
            image_id = await created(session)
            async with session.get("/v2/images") as answer:
                await answer.read()
            idle = peak_kib(relproxy.pid)
            await uploaded(session, image_id)
            assert glance.requests[-1].length == GIB
            assert await downloaded(session, image_id) == GIB
            await read_slowly(relproxy.port, image_id, glance)
            grown = peak_kib(relproxy.pid) - idle
        record_property("peak_over_idle_mib", round(grown / 1024, 1))
        assert grown <= ALLOWED_KIB, f"{grown / 1024:.1f} MiB over idle"
    finally:
        await asyncio.to_thread(relproxy.stop)


async def created(session: aiohttp.ClientSession) -> str:
    async with session.post("/v2/images", json={"name": "big"}) as answer:
        image_id: str = (await answer.json())["id"]
        return image_id


async def uploaded(session: aiohttp.ClientSession, image_id: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(GIB // len(PIECE)):
            yield PIECE

    async with session.put(f"/v2/images/{image_id}/file", data=pieces()) as answer:
        assert answer.status == 204


async def downloaded(session: aiohttp.ClientSession, image_id: str) -> int:
    size = 0
    async with session.get(f"/v2/images/{image_id}/file") as answer:
        async for chunk in answer.content.iter_any():
            size += len(chunk)
    return size


async def read_slowly(port: int, image_id: str, glance: StandIn) -> None:
    """Ask for the image and read next to nothing of it, until the registry has stopped sending."""
    glance.send_length = True
    slow = socket.create_connection(("127.0.0.1", port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    slow.sendall(f"GET /v2/images/{image_id}/file HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    for _ in range(64):
        assert await loop.sock_recv(slow, 1024)
        await asyncio.sleep(0.02)
    slow.close()
