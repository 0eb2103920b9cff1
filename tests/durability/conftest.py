from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.relproxy import Relproxy
from lab.stand_in import StandIn

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
PATIENCE_S = 60.0


@dataclass
class Attempt:
    """One create as its client saw it: the status that it read, or None, and the image's id."""

    instance: str
    status: int | None = None
    image_id: str | None = None


@dataclass
class Ledger:
    """What clients have tried, and what must be so afterwards."""

    attempts: list[Attempt] = field(default_factory=list)

    async def create(self, session: aiohttp.ClientSession, url: str, project: str) -> Attempt:
        """Create one image of an instance of its own, and keep what the client reads."""
        attempt = Attempt(f"i-{len(self.attempts)}")
        self.attempts.append(attempt)
        headers = {"X-Project-Id": project, "X-Roles": "member"}
        headers["X-Nova-Instance-ID"] = attempt.instance
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(
                f"{url}/v2/images", json={"name": attempt.instance}, headers=headers
            ) as answer:
                body = await answer.json(content_type=None) if answer.status == 201 else {}
                attempt.status, attempt.image_id = answer.status, body.get("id")
        return attempt

    def check(
        self, glance: StandIn, records: list[dict[str, Any]], in_doubt: list[dict[str, Any]]
    ) -> None:
        """Nothing is lost, nothing doubled, and nothing recorded that isn't."""
        by_image: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            by_image.setdefault(record["image_id"], []).append(record)
        doubled = [image_id for image_id, found in by_image.items() if len(found) > 1]
        assert doubled == []
        doubtful = {entry["image_id"] for entry in in_doubt}
        read = {a.image_id for a in self.attempts if a.status == 201}
        assert read - set(by_image) == set(), "a 201 was read, and there is no record"
        made = set(glance.images)
        assert made - set(by_image) - doubtful == set(), "an image is neither recorded nor in doubt"
        assert set(by_image) - made == set(), "a record of an image that was never made"
        of_attempt = {a.image_id: a.instance for a in self.attempts if a.image_id is not None}
        for image_id, (record,) in by_image.items():
            name = glance.images[image_id]["name"]
            assert record["instance_id"] == name == of_attempt.get(image_id, name)


def settings(glance_url: str, **more: Any) -> dict[str, Any]:
    return {
        "identity": {"trusted_networks": ["127.0.0.0/8"]},
        "trusted_sources": {"networks": ["127.0.0.0/8"]},
        "installations": [{"name": "east", "uuid": EAST}],
        "registries": [
            {
                "name": "glance",
                "tenancy": "registry",
                "endpoints": [glance_url],
                "upstream_identity": "headers",
            }
        ],
        "routes": [{"name": "all", "registry": "glance", "installation": "east"}],
        "timeouts": {"shutdown_s": 1, "read_s": 10},
        **more,
    }


@pytest.fixture
async def glance() -> AsyncIterator[StandIn]:
    async with StandIn(trusting=True) as started:
        yield started


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as opened:
        yield opened


Start = Callable[..., Relproxy]


@pytest.fixture
def relproxy_of(tmp_path: Path) -> Iterator[Start]:
    """Make relproxies as processes of their own; they end with the test."""
    made: list[Relproxy] = []

    def make(given: Mapping[str, Any], name: str = "relproxy") -> Relproxy:
        made.append(Relproxy(tmp_path / name, given))
        return made[-1]

    yield make
    for relproxy in made:
        relproxy.stop()


async def all_records(session: aiohttp.ClientSession, relproxy: Relproxy) -> list[dict[str, Any]]:
    """Return every record of the projects that the tests use."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query = {"project": "alice", "limit": "1000"} | ({"cursor": cursor} if cursor else {})
        async with session.get(f"{relproxy.admin_url}/v1/relations", params=query) as answer:
            page = await answer.json()
        found += page["relations"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def recorded(session: aiohttp.ClientSession, relproxy: Relproxy) -> set[str]:
    """Return the ids of the images that have records."""
    return {record["image_id"] for record in await all_records(session, relproxy)}


async def until_recorded(
    session: aiohttp.ClientSession, relproxy: Relproxy, image_ids: set[str]
) -> None:
    """Wait until these images have records, and no others."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := await recorded(session, relproxy)) != image_ids:
        assert time.monotonic() < deadline, f"still {found}, not {image_ids}"
        await asyncio.sleep(0.05)


async def metric(session: aiohttp.ClientSession, relproxy: Relproxy, name: str) -> float:
    """Return the sum of the metrics whose names, or names and labels, begin so."""
    async with session.get(f"{relproxy.admin_url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def in_doubt(session: aiohttp.ClientSession, relproxy: Relproxy) -> list[dict[str, Any]]:
    async with session.get(f"{relproxy.admin_url}/v1/journal") as answer:
        entries: list[dict[str, Any]] = (await answer.json())["in_doubt"]
        return entries


async def settled(session: aiohttp.ClientSession, relproxy: Relproxy) -> None:
    """Wait until what can be settled is: every entry still in doubt has been asked for."""
    deadline = time.monotonic() + PATIENCE_S
    while not all("registry" in e["reason"] for e in await in_doubt(session, relproxy)):
        assert time.monotonic() < deadline, "entries in doubt are not asked for"
        await asyncio.sleep(0.05)
