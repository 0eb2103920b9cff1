from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from yarl import URL

from lab.stand_in import StandIn
from relproxy.app import running
from relproxy.config import Configuration
from tests.integration.recorder import Recorder, recording

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
WEST = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"
LOOPBACK = ["127.0.0.0/8"]
EVENTUALLY_S = 30.0


@dataclass(frozen=True)
class Answer:
    """One whole answer, as a client read it."""

    status: int
    headers: Mapping[str, str]
    raw_headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def names(self) -> list[str]:
        return [image["name"] for image in self.json()["images"]]


@dataclass(frozen=True)
class Client:
    """A client of a running relproxy."""

    session: aiohttp.ClientSession
    url: str
    admin_url: str
    urls: Mapping[str, str]
    store: Path
    journal: Path
    stop: Callable[[], Awaitable[None]]

    async def call(
        self,
        method: str,
        target: str,
        *,
        project: str | None = None,
        roles: str = "member",
        url: str | None = None,
        **options: Any,
    ) -> Answer:
        headers = dict(options.pop("headers", {}))
        if project is not None:
            headers |= {"X-Project-Id": project, "X-Roles": roles}
        address = URL((url or self.url) + target, encoded=True)
        options.setdefault("allow_redirects", False)
        async with self.session.request(method, address, headers=headers, **options) as answer:
            body = await answer.read()
            return Answer(answer.status, answer.headers, answer.raw_headers, body)

    async def get(self, target: str, **options: Any) -> Answer:
        return await self.call("GET", target, **options)

    async def post(self, target: str, **options: Any) -> Answer:
        return await self.call("POST", target, **options)

    async def create(self, name: str, project: str, **options: Any) -> Answer:
        fields = {"name": name, **options.pop("fields", {})}
        return await self.post("/v2/images", project=project, json=fields, **options)

    async def metric(self, line_start: str) -> float:
        answer = await self.get("/metrics", url=self.admin_url)
        found = (li for li in answer.body.decode().splitlines() if li.startswith(line_start))
        return sum(float(line.rpartition(" ")[2]) for line in found)

    async def relations(self, query: str) -> list[dict[str, Any]]:
        answer = await self.get(f"/v1/relations?{query}", url=self.admin_url)
        assert answer.status == 200, answer.body
        relations: list[dict[str, Any]] = answer.json()["relations"]
        return relations

    async def in_doubt(self) -> list[dict[str, Any]]:
        answer = await self.get("/v1/journal", url=self.admin_url)
        assert answer.status == 200, answer.body
        entries: list[dict[str, Any]] = answer.json()["in_doubt"]
        return entries


_Asked = TypeVar("_Asked")


async def eventually(ask: Callable[[], Awaitable[_Asked]], expected: _Asked) -> None:
    """Ask until the answer is the expected one; fail with the last one after a while."""
    deadline = time.monotonic() + EVENTUALLY_S
    while (answer := await ask()) != expected:
        assert time.monotonic() < deadline, f"still {answer!r}, not {expected!r}"
        await asyncio.sleep(0.02)


Serve = Callable[..., Awaitable[Client]]


def registry(glance_url: str, tenancy: str, **settings: Any) -> dict[str, Any]:
    identity = "headers" if tenancy == "registry" else "token"
    return {
        "name": "glance",
        "tenancy": tenancy,
        "endpoints": [glance_url],
        "upstream_identity": identity,
        **settings,
    }


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start relproxies in this process; `serve(registries=[...], **settings)` returns a client."""
    async with AsyncExitStack() as stack:
        made = 0

        async def start(**settings: Any) -> Client:
            nonlocal made
            made += 1
            whole: dict[str, Any] = {
                "listeners": [{"name": "public", "bind": "127.0.0.1:0"}],
                "admin": {"bind": "127.0.0.1:0"},
                "identity": {"trusted_networks": LOOPBACK},
                "trusted_sources": {"networks": LOOPBACK},
                "journal": {"directory": tmp_path / f"journal-{made}", "allow_volatile": True},
                "store": {"path": tmp_path / f"relproxy-{made}.db"},
                "installations": [{"name": "east", "uuid": EAST}, {"name": "west", "uuid": WEST}],
                "routes": [{"name": "all", "registry": "glance", "installation": "east"}],
                "timeouts": {"shutdown_s": 1, "read_s": 20},
                # So that tests can compare whole messages; test_way.py shows what is added.
                "forwarding": {"via": None, "header": "none"},
                **settings,
            }
            relproxy = await stack.enter_async_context(AsyncExitStack())
            started = await relproxy.enter_async_context(running(Configuration(**whole)))
            session = await stack.enter_async_context(
                aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
            )
            urls = {name: _url(address) for name, address in started.listeners.items()}
            url = next(iter(urls.values()))
            store, journal = whole["store"].get("path", tmp_path), whole["journal"]["directory"]
            admin_url = _url(started.admin)
            return Client(session, url, admin_url, urls, store, journal, relproxy.aclose)

        yield start


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start relproxies for one test."""
    async with serving(tmp_path) as start:
        yield start


def _url(address: tuple[str, int]) -> str:
    return f"http://{address[0]}:{address[1]}"


@pytest.fixture
async def noauth() -> AsyncIterator[StandIn]:
    """A registry that treats every caller alike, as its admin."""
    async with StandIn() as glance:
        yield glance


@pytest.fixture
async def trusting() -> AsyncIterator[StandIn]:
    """A registry that authenticates by the identity headers of its front."""
    async with StandIn(trusting=True) as glance:
        yield glance


@dataclass(frozen=True)
class Wall:
    """A relproxy of one tenancy, and the registry behind it."""

    name: str
    client: Client
    glance: StandIn


@pytest.fixture(params=["only_wall", "second_wall"])
def wall(request: pytest.FixtureRequest) -> Wall:
    """Both tenancies in turn."""
    glance = "noauth" if request.param == "only_wall" else "trusting"
    return Wall(
        request.param, request.getfixturevalue(request.param), request.getfixturevalue(glance)
    )


@pytest.fixture
async def only_wall(serve: Serve, noauth: StandIn) -> Client:
    """A relproxy that is the only wall in front of `noauth`."""
    return await serve(registries=[registry(noauth.url, "relproxy")])


@pytest.fixture
async def second_wall(serve: Serve, trusting: StandIn) -> Client:
    """A relproxy in front of `trusting`, which knows the owners itself."""
    return await serve(registries=[registry(trusting.url, "registry")])


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    """A registry that is nothing but a socket."""
    async with recording() as made:
        yield made


@pytest.fixture
async def client(serve: Serve, recorder: Recorder) -> Client:
    """A client of a relproxy in front of `recorder`."""
    return await serve(
        registries=[registry(recorder.url, "registry", upstream_identity="token")],
        timeouts={"shutdown_s": 1, "read_s": 2},
    )
