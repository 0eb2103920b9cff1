"""Two projects on a pool of one: one is cut off anywhere, the other gets exactly its own answer.

One connection to the registry and one to the store serve both. A request is cancelled at each place
where it waits; or its client leaves after each byte of what the registry answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lab.postgres import Postgres
from lab.stand_in import StandIn
from relproxy import app_upstreams, server
from relproxy.config import Timeouts
from relproxy.config_forwarding import Forwarding
from relproxy.metrics import Metrics
from relproxy.store.postgres_pool import PostgresSettings, migrate
from relproxy.upstream import open_session
from tests.integration.conftest import Answer, Client, Serve, eventually, registry
from tests.integration.recorder import Recorder, next_request_gets_its_own, turns

INSTANCE = {"visibility": "private", "instance_id": "1"}
SIZES = {"alice": 200_000, "bob": 70_001}
PATCH = "application/openstack-images-v2.1-json-patch"
WAIT_S = 20


@dataclass
class Steps:
    """Runs a handler, and cancels its task, as a client that leaves does, where it waits.

    It counts the places from 0; `at` is where it cancels, if it is the handler of `project`.
    """

    project: str = "alice"
    at: int | None = None
    was_cancelled: bool = False

    def wrapped(
        self, handle: Callable[[web.BaseRequest], Coroutine[Any, Any, web.StreamResponse]]
    ) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        async def handled(request: web.BaseRequest) -> web.StreamResponse:
            if request.headers.get("X-Project-Id") != self.project:
                return await handle(request)
            return await _Stepped(self, handle(request))

        return handled

    def cancel(self, number: int) -> None:
        if number == self.at and (task := asyncio.current_task()) is not None:
            self.was_cancelled = True
            task.cancel()


@dataclass
class _Stepped:
    steps: Steps
    work: Coroutine[Any, Any, web.StreamResponse]

    def __await__(self) -> Generator[Any, Any, web.StreamResponse]:
        running = self.work.__await__()
        step = functools.partial(next, running)
        for number in itertools.count():
            try:
                awaited = step()
            except StopIteration as done:
                answer: web.StreamResponse = done.value
                return answer
            self.steps.cancel(number)
            try:
                yield awaited
            except BaseException as failure:  # noqa: BLE001 - handed on to who waits
                step = functools.partial(running.throw, failure)
            else:
                step = functools.partial(next, running)
        raise AssertionError


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps()
    real = server._Server  # noqa: SLF001

    def stepped(handle: Any, *rest: Any) -> web.Server:
        return real(made.wrapped(handle), *rest)

    monkeypatch.setattr(server, "_Server", stepped)
    return made


@pytest.fixture
def one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let relproxy have one connection to its registries, and wait for it."""
    real = open_session

    def limited(
        timeouts: Timeouts, forwarding: Forwarding, metrics: Metrics
    ) -> aiohttp.ClientSession:
        session = real(timeouts, forwarding, metrics)
        assert session.connector is not None
        session.connector._limit = 1  # noqa: SLF001
        return session

    monkeypatch.setattr(app_upstreams, "open_session", limited)


PIECE_BYTES = 64


@asynccontextmanager
async def trickling(url: str) -> AsyncIterator[str]:
    """Stand before a registry; its answers begin in small pieces, so that each is waited for."""
    host, _, port = url.removeprefix("http://").partition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionError):
            async with asyncio.TaskGroup() as both:
                both.create_task(passed_on(reader, upstream_writer, small=0))
                both.create_task(passed_on(upstream_reader, writer, small=8))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def passed_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, small: int
) -> None:
    try:
        while data := await reader.read(2**16):
            for _ in range(small):
                writer.write(data[:PIECE_BYTES])
                data = data[PIECE_BYTES:]
                await turns()
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@dataclass
class Stage:
    """A relproxy with one connection each way, and an image of each project."""

    client: Client
    glance: StandIn
    ids: dict[str, str] = field(default_factory=dict)

    async def prepare(self) -> None:
        for project in SIZES:
            self.ids[project] = await self.image(project, project)

    async def image(self, name: str, project: str) -> str:
        created = await self.client.create(name, project, fields=INSTANCE)
        image_id = str(created.json()["id"])
        self.glance.images[image_id].update(size=SIZES[project], status="active")
        return image_id

    async def get(self, project: str, target: str = "/v2/images") -> Answer:
        return await self.client.get(target.format(**self.ids), project=project)

    async def check(self, project: str) -> None:
        """Check that a project gets its own answer to whatever it asks."""
        own = {"id": self.ids[project], "name": project}
        for target in ("/v2/images", "/v2/images?instance_id=1"):
            listed = (await self.get(project, target)).json()["images"]
            assert [{key: image[key] for key in own} for image in listed] == [own]
        shown = (await self.get(project, f"/v2/images/{self.ids[project]}")).json()
        assert {key: shown[key] for key in own} == own
        download = await self.get(project, f"/v2/images/{self.ids[project]}/file")
        assert (download.status, len(download.body)) == (200, SIZES[project])


@pytest.fixture(params=["registry-sqlite", "relproxy-sqlite", "relproxy-postgres"])
async def stage(
    request: pytest.FixtureRequest,
    serve: Serve,
    noauth: StandIn,
    trusting: StandIn,
    steps: Steps,
    one_connection: None,
) -> AsyncIterator[Stage]:
    del steps, one_connection
    tenancy, _, store = request.param.partition("-")
    glance = trusting if tenancy == "registry" else noauth
    settings = {}
    if store == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        dsn = postgres.create_database(f"one-{uuid.uuid4()}")
        await migrate(PostgresSettings(dsn))
        settings["store"] = {"driver": "postgres", "dsn": dsn, "connections": 1}
    async with trickling(glance.url) as url:
        client = await serve(registries=[registry(url, tenancy)], **settings)
        client.session._retry_connection = False  # noqa: SLF001 - each request is sent once
        made = Stage(client, glance)
        await made.prepare()
        yield made
        await client.stop()


Ask = Callable[[Stage], Awaitable[Answer]]


async def show_list(stage: Stage) -> Answer:
    return await stage.get("alice")


async def show_list_of_an_instance(stage: Stage) -> Answer:
    return await stage.get("alice", "/v2/images?instance_id=1")


async def show(stage: Stage) -> Answer:
    return await stage.get("alice", "/v2/images/{alice}")


async def download(stage: Stage) -> Answer:
    return await stage.get("alice", "/v2/images/{alice}/file")


async def upload(stage: Stage) -> Answer:
    stage.glance.images[stage.ids["alice"]]["status"] = "queued"
    target = f"/v2/images/{stage.ids['alice']}/file"
    return await stage.client.call("PUT", target, project="alice", data=bytes(SIZES["alice"]))


async def create(stage: Stage) -> Answer:
    fields = {**INSTANCE, "instance_id": "2"}
    return await stage.client.create("made", "alice", fields=fields)


async def patch(stage: Stage) -> Answer:
    change = [{"op": "replace", "path": "/name", "value": "alice"}]
    return await stage.client.call(
        "PATCH",
        f"/v2/images/{stage.ids['alice']}",
        project="alice",
        data=json.dumps(change),
        headers={"Content-Type": PATCH},
    )


async def delete(stage: Stage) -> Answer:
    return await stage.client.call("DELETE", f"/v2/images/{stage.ids['alice']}", project="alice")


ASKED: list[Ask] = [
    show_list,
    show_list_of_an_instance,
    show,
    download,
    upload,
    create,
    patch,
    delete,
]


@pytest.mark.parametrize("ask", ASKED)
async def test_a_request_cancelled_wherever_it_waits_leaves_nothing_to_another_project(
    stage: Stage, steps: Steps, ask: Ask
) -> None:
    for steps.at in itertools.count():
        steps.was_cancelled = False
        async with asyncio.timeout(WAIT_S):
            # Another project already waits for the connection while this one has it.
            answer, waited = await asyncio.gather(
                ask(stage), stage.get("bob"), return_exceptions=True
            )
            assert isinstance(waited, Answer)
            assert waited.names == ["bob"], (steps.at, waited)
            await stage.check("bob")
        if not steps.was_cancelled:
            break
        assert isinstance(answer, aiohttp.ClientError), steps.at
        if ask is delete and stage.ids["alice"] not in stage.glance.images:
            stage.ids["alice"] = await uncut(steps, stage)
    print(f"cancelled at {steps.at} places")  # noqa: T201 - shown by -s
    assert steps.at
    assert isinstance(answer, Answer)
    assert answer.status in {200, 201, 204}
    steps.at = None
    stage.glance.images[stage.ids["bob"]]["status"] = "active"
    if ask is create:
        await every_image_is_recorded(stage)


async def uncut(steps: Steps, stage: Stage) -> str:
    """Make another image, uncut."""
    at, steps.at = steps.at, None
    image_id = await stage.image("alice", "alice")
    steps.at = at
    return image_id


async def every_image_is_recorded(stage: Stage) -> None:
    """Check that a create, once forwarded, was recorded although its client had gone."""
    made = {i for i, image in stage.glance.images.items() if image["name"] == "made"}
    assert len(made) > 1

    async def recorded() -> set[str]:
        relations = await stage.client.relations("project=alice&instance_id=2")
        return {relation["image_id"] for relation in relations}

    await eventually(recorded, made)


# -- a client that leaves after each byte of the registry's answer


IMAGE = {
    "id": "14c22e86-19ff-4fce-8919-89a34d23b277",
    "owner": "alice",
    "visibility": "private",
    "created_at": "2030-01-01T00:00:00Z",
    "name": "of alice",
}


def answered(document: object, status: bytes = b"200 OK") -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def asked(method: str, path: str, body: bytes = b"") -> bytes:
    fields = ["Host: a", "X-Project-Id: alice", "X-Roles: member"]
    if body:
        fields += [f"Content-Length: {len(body)}", f"Content-Type: {PATCH}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode() + body


BY_ID = f"/v2/images/{IMAGE['id']}"
LEFT = {
    "a list": (asked("GET", "/v2/images"), answered({"images": [IMAGE]})),
    "a list of an instance": (
        asked("GET", "/v2/images?instance_id=1"), answered({"images": [IMAGE]}),
    ),
    "an image": (asked("GET", BY_ID), answered(IMAGE)),
    "a download": (
        asked("GET", f"{BY_ID}/file"), b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + b"x" * 40,
    ),
    "chunks": (
        asked("GET", f"{BY_ID}/file"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2;x\r\nef\r\n0\r\n\r\n",
    ),
    "a change": (
        asked("PATCH", BY_ID, b'[{"op": "replace", "path": "/name", "value": "x"}]'),
        answered(IMAGE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
async def test_a_client_that_leaves_after_any_byte_leaves_nothing_to_the_next(
    one_connection: None, client: Client, recorder: Recorder, name: str, effort: int
) -> None:
    del one_connection
    request, answer = LEFT[name]
    for at in range(0, len(answer), 1 if effort > 1 else 5):
        recorder.answer = answer[:at]
        await leave(client, recorder, request)
        # The registry sees the end of the connection, and never another request on it.
        await next_request_gets_its_own(client.url, recorder, f"{name} at {at}")


async def leave(client: Client, recorder: Recorder, request: bytes) -> None:
    """Send a request, wait until the registry has answered what it does, and leave."""
    host, _, port = client.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    recorder.arrived.clear()
    recorder.gone.clear()
    writer.write(request)
    async with asyncio.timeout(WAIT_S):
        await recorder.arrived.wait()
        await turns()
        writer.transport.abort()
        await recorder.gone.wait()


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
async def test_a_create_whose_client_leaves_is_read_to_its_end_and_recorded(
    one_connection: None, client: Client, recorder: Recorder, share: float
) -> None:
    del one_connection
    body = b'{"name": "of alice", "instance_id": "1", "id": "%s"}' % IMAGE["id"].encode()
    answer = answered(IMAGE, b"201 Created")
    cut = int(len(answer) * share)
    recorder.answer = answer[:cut]
    host, _, port = client.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(asked("POST", "/v2/images", body))
    async with asyncio.timeout(WAIT_S):
        await recorder.arrived.wait()
        await turns()
        writer.transport.abort()
        await turns()
        recorder.writers[-1].write(answer[cut:])
        await eventually(lambda: recorded_ids(client), [IMAGE["id"]])
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert (await client.get("/v2/schemas/x")).body == b"ok"
    assert len(recorder.wires) == 1


async def recorded_ids(client: Client) -> list[str]:
    return [relation["image_id"] for relation in await client.relations("instance_id=1")]
