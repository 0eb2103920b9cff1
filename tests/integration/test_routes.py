from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lab.stand_in import StandIn
from tests.integration.conftest import EAST, WEST, Client, Serve, registry
from tests.integration.recorder import exchanged
from tests.integration.test_lists import walked


@pytest.fixture
async def two(serve: Serve, noauth: StandIn) -> AsyncIterator[tuple[Client, StandIn, StandIn]]:
    """One relproxy in front of two registries, by prefix, host and listener."""
    async with StandIn(trusting=True) as other:
        first = registry(noauth.url, "relproxy") | {"name": "first"}
        second = registry(other.url, "registry") | {"name": "second"}
        client = await serve(
            listeners=[
                {"name": "public", "bind": "127.0.0.1:0"},
                {"name": "west", "bind": "127.0.0.1:0"},
            ],
            registries=[first, second],
            routes=[
                {"name": "l", "listener": "west", "registry": "second", "installation": "west"},
                {"name": "p", "path_prefix": "/two/glance", "registry": "second"},
                {"name": "h", "host": "images.west", "registry": "second", "installation": "west"},
                {"name": "n", "network": "10.0.0.0/8", "registry": "second"},
                {"name": "d", "path_prefix": "/one", "registry": "first", "installation": "east"},
            ],
        )
        yield client, noauth, other


async def test_a_request_goes_to_the_registry_that_its_route_names(
    two: tuple[Client, StandIn, StandIn],
) -> None:
    client, first, second = two
    await client.get("/one/v2/images", project="alice")
    assert (len(first.requests), len(second.requests)) == (1, 0)
    await client.get("/two/glance/v2/images", project="alice")
    await client.get("/v2/images", project="alice", headers={"Host": "Images.West:9292"})
    await client.get("/v2/images", project="alice", url=client.urls["west"])
    assert (len(first.requests), len(second.requests)) == (1, 3)
    assert {r.target for r in second.requests} == {"/v2/images?limit=26"}


async def test_a_request_that_no_route_takes_is_404(two: tuple[Client, StandIn, StandIn]) -> None:
    client, first, second = two
    for target in ("/v2/images", "/onerous/v2/images", "/two/v2/images"):
        answer = await client.get(target, project="alice")
        assert answer.status == 404
        assert b"No route" in answer.body
    assert first.requests == second.requests == []


async def test_the_installation_is_that_of_the_route(two: tuple[Client, StandIn, StandIn]) -> None:
    client, *_ = two
    instance = {"X-Nova-Instance-ID": "123"}
    await client.create("a", "alice", url=client.urls["west"], headers=instance)
    await client.post("/one/v2/images", project="alice", json={"name": "b"}, headers=instance)
    relations = await client.relations("instance_id=123")
    found = {(r["registry"], r["nova_installation_uuid"]) for r in relations}
    assert found == {("first", EAST), ("second", WEST)}


async def test_links_stay_right_behind_a_prefix(two: tuple[Client, StandIn, StandIn]) -> None:
    client, _, second = two
    created = await client.post("/two/glance/v2/images", project="alice", json={"name": "a"})
    location = created.headers["Location"]
    assert location == f"{client.url}/two/glance/v2/images/{created.json()['id']}"
    shown = await client.get(location.removeprefix(client.url), project="alice")
    assert shown.json()["name"] == "a"
    for target, status in (
        ("/two/glance", 300),
        ("/two/glance/", 300),
        ("/two/glance/versions", 200),
    ):
        versions = await client.get(target)
        hrefs = {v["links"][0]["href"] for v in versions.json()["versions"]}
        assert (versions.status, hrefs) == (status, {f"{client.url}/two/glance/v2/"})
    redirect = await client.get("/two/glance/v2", project="alice")
    assert redirect.headers["Location"] == f"{client.url}/two/glance/v2/"
    assert second.requests[-1].target == "/v2"


async def test_next_links_are_relative_to_the_endpoint_whatever_its_prefix(
    two: tuple[Client, StandIn, StandIn],
) -> None:
    """glanceclient and openstacksdk put the endpoint before what `next` says."""
    client, *_ = two
    for number in range(3):
        await client.post("/two/glance/v2/images", project="alice", json={"name": str(number)})
    answer = await client.get("/two/glance/v2/images?limit=2", project="alice")
    assert answer.json()["next"].startswith("/v2/images?limit=2&marker=")
    behind = Client(**{**vars(client), "url": f"{client.url}/two/glance"})
    pages = [page async for page in walked(behind, "/v2/images?limit=2", "alice")]
    assert pages == [["2", "1"], ["0"]]


@pytest.mark.parametrize("target", ["/one//v2/images", "//one/v2/images", "/%6fne/v2/images"])
async def test_a_prefix_is_found_in_every_spelling_and_taken_off(
    two: tuple[Client, StandIn, StandIn], target: str
) -> None:
    client, first, _ = two
    first.add_image(name="secret", visibility="private")
    answer = await client.get(target, project="alice")
    assert (answer.status, answer.names) == (200, [])


async def test_an_absolute_target_overrules_the_host_header(
    two: tuple[Client, StandIn, StandIn],
) -> None:
    client, _, second = two
    port = int(client.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET http://images.west/v2/images HTTP/1.1\r\nHost: elsewhere\r\n"
        b"X-Project-Id: alice\r\nX-Roles: member\r\nConnection: close\r\n\r\n"
    )
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 200")
    assert second.requests[-1].values("Host") == ["images.west"]


async def test_the_clients_host_is_forwarded(second_wall: Client, trusting: StandIn) -> None:
    created = await second_wall.create("a", "alice", headers={"Host": "images.example:9292"})
    assert trusting.requests[-1].values("Host") == ["images.example:9292"]
    assert created.headers["Location"].startswith("http://images.example:9292/v2/images/")


@pytest.mark.parametrize(
    "target", ["/v2/images/../images", "/v2/%2e%2e/v2/images", "/v2/images%00"]
)
async def test_a_path_that_servers_may_resolve_differently_is_refused(
    second_wall: Client, trusting: StandIn, target: str
) -> None:
    answer = await second_wall.get(target, project="alice")
    assert answer.status == 400
    assert trusting.requests == []


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT /v2/x HTTP/1.1\r\nHost: a",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a",
        b"TRACE /v2/x HTTP/1.1\r\nHost: a",
        b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
    ],
)
async def test_what_would_be_another_request_upstream_is_refused(
    second_wall: Client, trusting: StandIn, head: bytes
) -> None:
    answer = await exchanged(second_wall.url, head + b"\r\nConnection: close\r\n\r\n0\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert trusting.requests == []


async def test_a_merely_passed_target_goes_upstream_raw(
    second_wall: Client, trusting: StandIn
) -> None:
    for target in ("/v2/images/x/tags/a%20b?q=%7e&q=1", "/v2/unheard%2Dof//x?;=%"):
        await second_wall.get(target, project="alice")
        assert trusting.requests[-1].target == target
