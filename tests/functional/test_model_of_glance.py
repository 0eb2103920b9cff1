"""The machine of tests/model, in front of an unchanged Glance.

The order is the registry's own answer to its admin. A story has fewer lists than in front of the
stand-in: each costs Glance a hundred times as much.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import get_args

import aiohttp
import pytest

from tests.functional.conftest import EAST, WEST, Cloud
from tests.model.playing import check_stories
from tests.model.registries import GlanceBehind
from tests.model.stage import Stage
from tests.model.world import Tenancy

STORIES = 2


@pytest.fixture(scope="module", params=get_args(Tenancy), ids=["only wall", "second wall"])
def stage(request: pytest.FixtureRequest, cloud: Cloud) -> Iterator[Stage]:
    """Both Glances in turn, each as its own route gives it."""
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        stage = runner.run(opened.enter_async_context(_stage(request.param, cloud, runner)))
        try:
            yield stage
        finally:
            runner.run(opened.aclose())
    print(f"\n{request.param}: {dict(stage.counts)}")  # noqa: T201 - shown by -s


@asynccontextmanager
async def _stage(tenancy: Tenancy, cloud: Cloud, runner: asyncio.Runner) -> AsyncIterator[Stage]:
    is_only_wall = tenancy == "relproxy"
    glance = cloud.lonely if is_only_wall else cloud.owned
    url, installation = (cloud.east, EAST) if is_only_wall else (cloud.west, WEST)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=jar) as session:
        behind = GlanceBehind(session, f"{glance.url}/v2/images")
        yield Stage(tenancy, url, installation, behind, session, runner)


def test_everyone_sees_of_glance_what_the_model_says(stage: Stage, seed: int, effort: int) -> None:
    check_stories(lambda story: stage.play(story.operations), STORIES * effort, seed=seed, lists=2)
