"""Real fronts before listeners with TLS, and before Unix sockets; skipped where there are none."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.processes import Process, free_port
from lab.stand_in import StandIn
from tests.authority import NOVA, Authority
from tests.integration.conftest import EAST, LOOPBACK, Serve, registry
from tests.test_deployment import CONFIG

HERE = "127.0.0.77"
TUPLE = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "123"}
PASSED_ON = """
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend images
    bind 127.0.0.1:{port}
    default_backend relproxy
backend relproxy
    server one 127.0.0.1:{behind} {protocol}
"""


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.stop()


def needs(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here")


async def connectable(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.02)
                continue
            writer.transport.abort()
            return


async def create(url: str, source: str, **options: Any) -> int:
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    known = {"X-Project-Id": "alice", "X-Roles": "member", **TUPLE, **options.pop("headers", {})}
    async with (
        aiohttp.ClientSession(connector=connector, headers=known) as session,
        session.post(f"{url}/v2/images", json={"name": "a"}, **options) as answer,
    ):
        return answer.status


@pytest.mark.parametrize("protocol", ["send-proxy", "send-proxy-v2"])
async def test_a_front_that_passes_tls_on_says_the_source_and_the_client_who_it_is(
    serve: Serve, noauth: StandIn, tmp_path: Path, processes: list[Process], protocol: str
) -> None:
    needs("haproxy")
    authority = Authority(tmp_path)
    tls = authority.asking("optional")
    client = await serve(
        registries=[registry(noauth.url, "relproxy")],
        listeners=[{"name": "public", "bind": "127.0.0.1:0", "proxy_protocol": True, "tls": tls}],
        fronts={"networks": ["127.0.0.1/32"]},
        # So a caller is known only by the address that the front has told.
        identity={"trusted_networks": [f"{HERE}/32"]},
        trusted_sources={"certificates": ["dns:nova.example.org"]},
    )
    port, behind = free_port(), client.url.rpartition(":")[2]
    file = tmp_path / "haproxy.cfg"
    file.write_text(PASSED_ON.format(port=port, behind=behind, protocol=protocol))
    processes.append(Process("haproxy", ["haproxy", "-f", str(file)], tmp_path / "haproxy.log"))
    processes[0].start()
    await connectable(port)
    url = f"https://127.0.0.1:{port}"
    nova = authority.trusting(authority.client_file(NOVA))
    assert await create(url, HERE, ssl=nova) == 201
    assert await create(url, HERE, ssl=authority.trusting()) == 201
    assert await create(url, "127.0.0.78", ssl=nova) == 401
    found = await client.relations("project=alice")
    assert sorted(str(each["instance_id"]) for each in found) == ["123", "None"]
    assert {each["grade"] for each in found if each["instance_id"]} == {"vouched"}


async def test_nginx_before_a_socket_says_where_a_request_comes_from_and_nobody_else_can(
    serve: Serve, noauth: StandIn, tmp_path: Path, processes: list[Process]
) -> None:
    needs("nginx")
    path, port = tmp_path / "s", free_port()
    client = await serve(
        registries=[registry(noauth.url, "relproxy")],
        listeners=[
            {"name": "public", "bind": f"unix:{path}", "fronted": True, "socket_mode": "0666"}
        ],
        fronts={"header": "x-forwarded-for"},
        identity={"trusted_networks": LOOPBACK},
        trusted_sources={"networks": [f"{HERE}/32"]},
    )
    text = (CONFIG / "nginx" / "nginx.conf").read_text()
    text = text.replace("192.0.2.11:9292", f"unix:{path}")
    text = re.sub(r"^ *server .*192\.0\.2.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^( *listen) \S*9292", rf"\1 127.0.0.1:{port}", text, flags=re.MULTILINE)
    file = tmp_path / "nginx.conf"
    file.write_text(f"user root;\n{text}")
    own = ["-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(file)]
    argv = ["nginx", *own, "-g", f"daemon off; pid {tmp_path / 'nginx.pid'};"]
    processes.append(Process("nginx", argv, tmp_path / "nginx.log"))
    processes[0].start()
    await connectable(port)
    url = f"http://127.0.0.1:{port}"
    assert await create(url, HERE) == 201
    assert await create(url, "127.0.0.78", headers={"X-Forwarded-For": HERE}) == 201
    found = await client.relations("project=alice")
    assert sorted(str(each["instance_id"]) for each in found) == ["123", "None"]


async def test_openssl_finds_nothing_but_tls_1_2_and_1_3(
    serve: Serve, noauth: StandIn, tmp_path: Path
) -> None:
    needs("openssl")
    client = await serve(
        registries=[registry(noauth.url, "relproxy")],
        listeners=[{"name": "public", "bind": "127.0.0.1:0", "tls": Authority(tmp_path).server()}],
    )
    address = client.url.removeprefix("http://")
    for version, is_spoken in {"1": False, "1_1": False, "1_2": True, "1_3": True}.items():
        # At level 0 it would agree to anything itself.
        shaking = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", address, f"-tls{version}"),
            *("-cipher", "ALL:@SECLEVEL=0"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await shaking.communicate()
        assert (b"Cipher is (NONE)" not in told) is is_spoken, told.decode()
