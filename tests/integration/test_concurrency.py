"""How much may be under way at once, and that whatever ends is counted no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lab.stand_in import StandIn
from tests.integration.conftest import Client, Serve, eventually, registry

ONE = {"requests": 1, "transfers": 1}


async def limited(serve: Serve, glance: StandIn, **concurrency: Any) -> Client:
    return await serve(registries=[registry(glance.url, "relproxy")], concurrency=concurrency)


@asynccontextmanager
async def held(client: Client, glance: StandIn, method: str, target: str) -> AsyncIterator[None]:
    """Keep one request of alice's under way."""
    seen = len(glance.requests)
    glance.faults.delay = asyncio.Event()
    call = asyncio.create_task(client.call(method, target, project="alice"))
    async with asyncio.timeout(10):
        await glance.await_requests(seen + 1)
        yield
        glance.faults.delay.set()
        assert (await call).status == 200
    glance.faults.delay = None


async def refusals(client: Client) -> float:
    return await client.metric("relproxy_requests_limited_total")


async def test_one_request_too_many_is_refused_with_a_time_to_come_back(
    serve: Serve, noauth: StandIn
) -> None:
    client = await limited(serve, noauth, worker=ONE)
    async with held(client, noauth, "GET", "/v2/images"):
        answer = await client.get(
            "/v2/images", project="bob", headers={"Accept": "application/json"}
        )
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert set(answer.json()) == {"message", "code", "title"}
        assert answer.headers["X-Openstack-Request-Id"]
        assert len(noauth.requests) == 1
        labels = 'kind="requests",limit="worker",registry="glance"'
        assert await client.metric(f"relproxy_requests_limited_total{{{labels}}}") == 1
    assert (await client.get("/v2/images", project="bob")).status == 200


async def test_one_request_too_many_of_a_project_is_refused_and_other_projects_go_on(
    serve: Serve, trusting: StandIn
) -> None:
    client = await serve(
        registries=[registry(trusting.url, "registry")], concurrency={"project": ONE}
    )
    async with held(client, trusting, "GET", "/v2/images"):
        answer = await client.get("/v2/images", project="alice")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
        assert len(trusting.requests) == 1
        waiting = asyncio.create_task(client.get("/v2/images", project="bob"))
        await trusting.await_requests(2)
    assert (await waiting).status == 200
    assert (await client.get("/v2/images", project="alice")).status == 200


async def test_a_registry_that_is_full_is_no_other_registrys_limit(
    serve: Serve, noauth: StandIn
) -> None:
    async with StandIn() as other:
        client = await serve(
            registries=[
                registry(noauth.url, "relproxy", concurrency=ONE),
                registry(other.url, "relproxy", concurrency=ONE) | {"name": "other"},
            ],
            routes=[
                {"name": "other", "path_prefix": "/other", "registry": "other"},
                {"name": "all", "registry": "glance"},
            ],
        )
        async with held(client, noauth, "GET", "/v2/images"):
            assert (await client.get("/v2/images", project="bob")).status == 503
            assert (await client.get("/other/v2/images", project="bob")).status == 200


async def test_image_data_is_counted_apart(serve: Serve, noauth: StandIn) -> None:
    client = await limited(serve, noauth, worker=ONE)
    created = await client.create("x", "alice")
    target = f"/v2/images/{created.json()['id']}/file"
    is_over = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"some"
        await is_over.wait()

    upload = asyncio.create_task(client.call("PUT", target, project="alice", data=pieces()))
    await eventually(lambda: client.metric("relproxy_transfers_in_progress"), 1.0)
    assert (await client.get("/v2/images", project="alice")).status == 200
    assert (await client.get(target, project="alice")).status == 503
    is_over.set()
    assert (await upload).status == 204
    assert (await client.get(target, project="alice")).status == 200
    assert await client.metric("relproxy_transfers_in_progress") == 0


async def test_a_refused_create_leaves_nothing_in_the_journal(
    serve: Serve, noauth: StandIn
) -> None:
    client = await limited(serve, noauth, worker=ONE, project=ONE)
    fields = {"instance_id": "1"}
    async with held(client, noauth, "GET", "/v2/images"):
        assert (await client.create("x", "alice", fields=fields)).status == 503
    assert [each.method for each in noauth.requests] == ["GET"]
    assert await client.metric("relproxy_records_total") == 0
    assert await client.in_doubt() == []
    assert await client.relations("instance_id=1") == []
    assert (await client.create("x", "alice", fields=fields)).status == 201


async def test_a_create_counts_until_the_registry_has_answered_whoever_has_left(
    serve: Serve, noauth: StandIn
) -> None:
    client = await limited(serve, noauth, worker=ONE)
    noauth.faults.delay = asyncio.Event()
    create = asyncio.create_task(client.create("x", "alice", fields={"instance_id": "1"}))
    async with asyncio.timeout(10):
        await noauth.await_requests(1)
    create.cancel()
    await asyncio.gather(create, return_exceptions=True)
    await eventually(lambda: client.metric("relproxy_requests_in_progress"), 0.0)
    assert (await client.get("/v2/images", project="bob")).status == 503
    noauth.faults.delay.set()

    async def status() -> int:
        return (await client.get("/v2/images", project="bob")).status

    await eventually(status, 200)


@pytest.mark.parametrize("kind", ["broken", "refused", "left", "too-many"])
async def test_however_a_request_ends_it_counts_no_longer(
    serve: Serve, noauth: StandIn, kind: str
) -> None:
    client = await limited(serve, noauth, worker=ONE, project=ONE)
    for _ in range(3):
        if kind == "broken":
            noauth.faults.drop = True
            assert (await client.get("/v2/images", project="alice")).status == 502
            noauth.faults.drop = False
        elif kind == "refused":
            assert (await client.get("/v2/nothing", project="alice")).status == 404
        elif kind == "too-many":
            async with held(client, noauth, "GET", "/v2/images"):
                assert (await client.get("/v2/images", project="bob")).status == 503
        else:
            noauth.faults.delay = asyncio.Event()
            seen = len(noauth.requests)
            call = asyncio.create_task(client.get("/v2/images", project="alice"))
            await noauth.await_requests(seen + 1)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            noauth.faults.delay = None
            await eventually(lambda: client.metric("relproxy_requests_in_progress"), 0.0)
    assert (await client.get("/v2/images", project="alice")).status == 200
