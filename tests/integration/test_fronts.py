"""HAProxy and nginx as config/ has them, before real relproxies; and what else config/ runs.

Skipped where they are not installed; `make verify-fronts` installs them.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lab.postgres import Postgres
from lab.processes import Process, free_port
from lab.relproxy import command
from lab.stand_in import StandIn
from tests.integration.conftest import EAST, LOOPBACK, Client, Serve, registry
from tests.test_deployment import CONFIG, PODS, instructions

# Loopback addresses: the front sees this client at one, and relproxy sees the front at another.
NOVA = "127.0.0.77"
TUPLE = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "123"}

Front = Callable[[str, list[str]], Awaitable[str]]


@pytest.fixture
def front(tmp_path: Path) -> Any:
    """Start a front with its file of config/, before some relproxies; return its address."""
    started: list[Process] = []

    async def start(name: str, relproxies: list[str]) -> str:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed here")
        port = free_port()
        (source,) = (CONFIG / name).glob("*.c*f*")
        text = _put_before(source.read_text(encoding="utf-8"), port, relproxies)
        file = tmp_path / source.name
        file.write_text(text, encoding="utf-8")
        own = ["-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(file)]
        argv = {
            "haproxy": ["haproxy", "-f", str(file)],
            "nginx": ["nginx", *own, "-g", f"daemon off; pid {tmp_path / 'nginx.pid'};"],
        }[name]
        process = Process(name, argv, tmp_path / f"{name}.log")
        started.append(process)
        process.start()
        url = f"http://127.0.0.1:{port}"
        await asyncio.to_thread(process.await_http, f"{url}/versions")
        return url

    yield start
    for process in started:
        process.stop()


def _put_before(text: str, port: int, relproxies: list[str]) -> str:
    """Let a front's file listen here, and send to these relproxies."""
    here = re.sub(
        r"^( *(?:bind|listen)) \S*9292", rf"\1 127.0.0.1:{port}", text, flags=re.MULTILINE
    )
    for number, url in enumerate(relproxies, start=11):
        here = here.replace(f"192.0.2.{number}:9292", urllib.parse.urlsplit(url).netloc)
    # The rest is more than whoever runs the tests may open.
    here = re.sub("maxconn .*", "maxconn 1000", here)
    return re.sub(r"^ *server .*192\.0\.2.*\n", "", here, flags=re.MULTILINE)


async def relproxies(serve: Serve, glance: StandIn, name: str, count: int = 2) -> list[Client]:
    """Start relproxies that believe a front as the file beside its own says."""
    whole = yaml.safe_load((CONFIG / name / "relproxy.yaml").read_text(encoding="utf-8"))
    listener = {**whole["listeners"][0], "bind": "127.0.0.1:0"}
    return [
        await serve(
            registries=[registry(glance.url, "relproxy")],
            listeners=[listener],
            fronts={**whole["fronts"], "networks": ["127.0.0.1/32"]},
            identity={"trusted_networks": LOOPBACK},
            trusted_sources={"networks": [f"{NOVA}/32"]},
        )
        for _ in range(count)
    ]


async def create(url: str, source: str, **headers: str) -> None:
    """Create an image through a front, from some loopback address."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    known = {"X-Project-Id": "alice", "X-Roles": "member", **TUPLE, **headers}
    async with (
        aiohttp.ClientSession(connector=connector, headers=known) as session,
        session.post(f"{url}/v2/images", json={"name": "a"}) as answer,
    ):
        assert answer.status == 201, await answer.text()


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_front_says_where_a_request_comes_from_and_nobody_else_can(
    serve: Serve, noauth: StandIn, front: Front, name: str
) -> None:
    behind = await relproxies(serve, noauth, name)
    url = await front(name, [client.url for client in behind])
    await create(url, NOVA)
    # What it says of itself is worth nothing.
    await create(url, "127.0.0.78", **{"X-Forwarded-For": NOVA})
    found = [r for client in behind for r in await client.relations("project=alice")]
    assert sorted(str(relation["instance_id"]) for relation in found) == ["123", "None"]


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_front_loses_no_request_when_one_relproxy_is_gone(
    serve: Serve, noauth: StandIn, front: Front, name: str
) -> None:
    one, other = await relproxies(serve, noauth, name)
    url = await front(name, [one.url, other.url])
    await one.stop()
    async with aiohttp.ClientSession(headers={"X-Project-Id": "alice"}) as session:
        for _ in range(10):
            async with session.get(f"{url}/v2/images") as answer:
                assert answer.status == 200


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_front_sends_on_a_target_and_a_body_as_they_came(
    serve: Serve, noauth: StandIn, front: Front, name: str
) -> None:
    behind = await relproxies(serve, noauth, name, count=1)
    url = await front(name, [behind[0].url])
    data = bytes(range(256)) * 4096
    async with aiohttp.ClientSession(headers={"X-Project-Id": "alice"}) as session:
        async with session.post(f"{url}/v2/images", json={"name": "a"}) as answer:
            image_id = (await answer.json())["id"]
        octets = {"Content-Type": "application/octet-stream"}
        target = f"{url}/v2/images/{image_id}/file"
        async with session.put(target, data=data, headers=octets) as answer:
            assert answer.status == 204
    sent = noauth.requests[-1]
    assert (sent.target, sent.sha256) == (f"/v2/images/{image_id}/file", sha256(data).hexdigest())


async def test_probes_of_container_and_pod_tell_alive_from_ready(
    second_wall: Client, trusting: StandIn
) -> None:
    container = PODS["StatefulSet/relproxy"]["containers"][0]
    probes = {
        "health check": yaml.safe_load(dict(instructions())["HEALTHCHECK"].partition("CMD")[2]),
        **{
            name: container[f"{name}Probe"]["exec"]["command"]
            for name in ("startup", "liveness", "readiness")
        },
    }

    async def statuses() -> dict[str, int]:
        return {name: await asyncio.to_thread(_status, argv) for name, argv in probes.items()}

    def _status(argv: list[str]) -> int:
        here = argv[-1].replace("http://127.0.0.1:9393", second_wall.admin_url)
        argv = [sys.executable, *argv[1:-1], here]
        return subprocess.run(argv, capture_output=True, timeout=30, check=False).returncode

    assert await statuses() == dict.fromkeys(probes, 0)
    trusting.faults.status = (500, b"no")
    assert await statuses() == {**dict.fromkeys(probes, 0), "readiness": 1}


def test_role_of_the_example_for_postgresql_can_make_the_tables_and_use_them(
    postgres: Postgres, tmp_path: Path
) -> None:
    postgres.restore("postgres", (CONFIG / "postgres" / "relproxy.sql").read_text("utf-8"))
    whole = yaml.safe_load((CONFIG / "haproxy" / "relproxy.yaml").read_text(encoding="utf-8"))
    whole["store"] = {
        "driver": "postgres",
        "dsn": f"postgresql://relproxy@127.0.0.1:{postgres.port}/relproxy",
    }
    file = tmp_path / "relproxy.yaml"
    file.write_text(yaml.safe_dump(whole))
    done = command("migrate", "--config", str(file))
    assert done.returncode == 0, done.stderr
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.execute(owners, "relproxy").split() == ["relproxy"]
    assert postgres.execute("SHOW synchronous_commit", "relproxy").strip() == "on"
