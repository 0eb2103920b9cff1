from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest

from lab.stand_in import StandIn
from relproxy.app import running
from relproxy.config import Configuration
from tests.model.registries import StandInBehind
from tests.model.stage import Stage
from tests.model.words import INSTALLATIONS
from tests.model.world import Tenancy


@pytest.fixture(scope="module", params=get_args(Tenancy), ids=["only wall", "second wall"])
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Both tenancies in turn: a relproxy and a stand-in, which stay for all stories."""
    home = tmp_path_factory.mktemp("model")
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        stage = runner.run(opened.enter_async_context(_stage(request.param, home, runner)))
        try:
            yield stage
        finally:
            runner.run(opened.aclose())
    print(f"\n{request.param}: {dict(stage.counts)}")  # noqa: T201 - shown by -s


@asynccontextmanager
async def _stage(tenancy: Tenancy, home: Path, runner: asyncio.Runner) -> AsyncIterator[Stage]:
    async with (
        StandIn(trusting=tenancy == "registry") as glance,
        aiohttp.ClientSession(
            auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session,
    ):
        behind = StandInBehind(session, f"{glance.url}/v2/images", glance)
        configuration = Configuration(**_settings(tenancy, glance.url, behind, home))
        async with running(configuration) as relproxy:
            host, port = relproxy.listeners["public"]
            url = f"http://{host}:{port}"
            yield Stage(tenancy, url, INSTALLATIONS[0], behind, session, runner)


def _settings(tenancy: Tenancy, glance: str, behind: StandInBehind, home: Path) -> dict[str, Any]:
    loopback = ["127.0.0.0/8"]
    registry = {
        "name": "glance",
        "tenancy": tenancy,
        "endpoints": [glance],
        "upstream_identity": "headers" if tenancy == "registry" else "token",
        "chosen_image_ids": "allow",
        "default_limit": behind.default_limit,
        "max_limit": behind.relproxys_max_limit,
    }
    return {
        "listeners": [{"name": "public", "bind": "127.0.0.1:0"}],
        "admin": {"bind": "127.0.0.1:0"},
        "identity": {"trusted_networks": loopback},
        "trusted_sources": {"networks": loopback},
        "journal": {"directory": home / "journal", "allow_volatile": True},
        "store": {"path": home / "relproxy.db"},
        "installations": [
            {"name": "east", "uuid": INSTALLATIONS[0]},
            {"name": "west", "uuid": INSTALLATIONS[1]},
        ],
        "registries": [registry],
        "routes": [{"name": "all", "registry": "glance", "installation": "east"}],
        "limits": {"max_upstream_target_bytes": 1000},
        "timeouts": {"shutdown_s": 1, "read_s": 20},
    }
