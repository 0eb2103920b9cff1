"""A deleted image as a marker: Glance still knows its place, and tells nobody but its admin."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import aiohttp
import pytest

from lab.stand_in import StandIn
from tests.functional.conftest import Cloud

SORTS = ("created_at:asc", "created_at:desc", "updated_at:asc", "status:asc", "status:desc",
         "name:desc")  # fmt: skip


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def behind_the_deleted(
    session: aiohttp.ClientSession, url: str, *, roles: str
) -> list[tuple[int, list[str]]]:
    """Make three images, delete the second, and list what comes behind it."""
    run, ids = uuid.uuid4().hex, {}
    headers = {"X-Identity-Status": "Confirmed", "X-Project-Id": run, "X-Roles": "member,reader"}
    for name in ("a", "b", "c"):
        fields = {"name": name, "visibility": "private"}
        async with session.post(f"{url}/v2/images", json=fields, headers=headers) as made:
            ids[name] = (await made.json())["id"]
        await asyncio.sleep(0.01)
    async with session.delete(f"{url}/v2/images/{ids['b']}", headers=headers) as gone:
        assert gone.status == 204
    headers["X-Roles"] = roles
    listed = []
    for sort in SORTS:
        query = f"owner={run}&sort={sort}&marker={ids['b']}"
        async with session.get(f"{url}/v2/images?{query}", headers=headers) as answer:
            names = (
                [image["name"] for image in (await answer.json())["images"]] if answer.ok else []
            )
            listed.append((answer.status, names))
    return listed


@pytest.mark.parametrize("roles", ["member,reader", "admin,member,reader"])
async def test_stand_in_lists_behind_a_deleted_image_as_glance_does(
    cloud: Cloud, session: aiohttp.ClientSession, roles: str
) -> None:
    expected = await behind_the_deleted(session, cloud.owned.url, roles=roles)
    assert {status for status, _ in expected} == {200 if "admin" in roles else 400}
    async with StandIn(trusting=True) as stand_in:
        assert await behind_the_deleted(session, stand_in.url, roles=roles) == expected
