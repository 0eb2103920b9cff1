"""Headers and framing on raw sockets: relproxy and nginx before one recording registry, in one run.

Each case says what relproxy must do, and is checked without nginx too. Where nginx does something
else the case says what, and why; a difference that isn't declared fails, and so does a declared one
that isn't there any more. nginx is a minimal `proxy_pass`, below. `make verify-fronts` installs it.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from lab.processes import Process, free_port
from tests.integration.conftest import registry, serving
from tests.integration.recorder import Recorder, recording
from tests.integration.wire_answers import ANSWERS
from tests.integration.wire_framing import FRAMING
from tests.integration.wire_nginx import BESIDE, SAME
from tests.integration.wire_record import differences, recorded
from tests.integration.wire_requests import REQUESTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = {**REQUESTS, **FRAMING, **ANSWERS}
OUTCOMES = {name: outcomes for cases in BESIDE.values() for name, outcomes in cases.items()}
# Older ones take requests that newer ones refuse, and nobody maintains them.
OLDEST = (1, 22)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "http.md"

# What is set here, nginx would else make its own.
NGINX = """
daemon off; master_process off; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://127.0.0.1:{registry};
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_pass_header Server;
            proxy_pass_header Date;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Stage:
    """Both before one registry. `telling` is a relproxy that says by which way a message came."""

    registry: Recorder
    relproxy: str
    telling: str
    nginx: str | None
    why_no_nginx: str


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beside-nginx")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(home: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as opened:
        recorder = await opened.enter_async_context(recording())
        serve = await opened.enter_async_context(serving(home))
        registries = [registry(recorder.url, "registry", upstream_identity="token")]
        silent = await serve(registries=registries)
        telling = await serve(registries=registries, forwarding={})
        nginx = None if (why_not := _why_no_nginx()) else await _nginx(opened, home, recorder)
        yield Stage(recorder, silent.url, telling.url, nginx, why_not)


def _why_no_nginx() -> str:
    """Return why nothing can be compared; nothing where it can."""
    found = shutil.which("nginx")
    if found is None:
        return "nginx is not installed here"
    done = subprocess.run([found, "-v"], capture_output=True, text=True, check=True)
    version = re.search(r"nginx/(\d+)\.(\d+)", done.stderr)
    is_old = version is None or (int(version[1]), int(version[2])) < OLDEST
    return f"{done.stderr.strip()} is older than what is compared" if is_old else ""


async def _nginx(opened: AsyncExitStack, home: Path, recorder: Recorder) -> str:
    port, file = free_port(), home / "nginx.conf"
    file.write_text(NGINX.format(home=home, port=port, registry=recorder.port), encoding="utf-8")
    argv = ["nginx", "-p", str(home), "-c", str(file)]
    process = Process("nginx", argv, home / "nginx.log")
    opened.callback(process.stop)
    process.start()
    url = f"http://127.0.0.1:{port}"
    await asyncio.to_thread(process.await_http, url)
    return url


@pytest.mark.parametrize("name", CASES)
async def test_a_message_arrives_as_the_table_has_it(stage: Stage, name: str) -> None:
    case = CASES[name]
    url = stage.telling if case.tells_way else stage.relproxy
    got = await recorded(url, stage.registry, case)
    assert got.up == case.to_registry
    assert got.refusal == case.status
    if case.status is None:
        assert got.down == case.to_client


@pytest.mark.parametrize("name", CASES)
async def test_nginx_does_the_same_or_what_is_declared(stage: Stage, name: str) -> None:
    if stage.nginx is None:
        pytest.skip(stage.why_no_nginx)
    got = await recorded(stage.nginx, stage.registry, CASES[name])
    allowed = [sorted(lines) for lines in OUTCOMES.get(name, (SAME,))]
    assert sorted(differences(CASES[name], got)) in allowed


async def test_every_difference_from_nginx_is_declared_for_one_case_and_explained() -> None:
    declared = [name for cases in BESIDE.values() for name in cases]
    assert len(declared) == len(set(declared))
    assert set(declared) <= set(CASES)
    _, section = PAGE.read_text(encoding="utf-8").split("## Beside nginx\n")
    explained = re.findall(r"^- \*\*(.+?)\*\*: ", section.partition("\n## ")[0], re.MULTILINE)
    assert explained == list(BESIDE)
