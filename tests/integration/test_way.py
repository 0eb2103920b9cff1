"""What relproxy adds to the messages that it forwards, and which host it asks a registry for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import LOOPBACK, Client, Serve, registry
from tests.integration.recorder import Recorder, exchanged

GET = b"GET /v2/schemas/x HTTP/1.1\r\nHost: images.example:80\r\nConnection: close\r\n"
ADDED = (
    b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
    b"X-Forwarded-Host: images.example:80\r\nVia: 1.1 relproxy"
)


async def started(
    serve: Serve, recorder: Recorder, *, host: str | None = None, **settings: Any
) -> Client:
    one = registry(recorder.url, "registry", upstream_identity="token", host=host)
    return await serve(registries=[one], **{"forwarding": {}, **settings})


async def test_a_message_says_by_which_way_it_came_unless_told_otherwise(
    serve: Serve, recorder: Recorder
) -> None:
    client = await started(serve, recorder)
    got = await exchanged(client.url, GET + b"Via: 1.1 x\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
    assert recorder.head.endswith(b"\r\nHost: images.example:80\r\nVia: 1.1 x\r\n" + ADDED)
    assert got == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 relproxy\r\nConnection: close\r\n\r\nok"
    )


async def test_connection_can_not_take_away_what_relproxy_says_of_the_way(
    serve: Serve, recorder: Recorder
) -> None:
    client = await started(serve, recorder)
    named = GET.replace(b"close", b"close, X-Forwarded-For, X-Forwarded-Host, Via")
    await exchanged(client.url, named + b"X-Forwarded-For: 10.0.0.1\r\n\r\n")
    assert recorder.head.endswith(ADDED)


async def test_via_names_the_version_that_each_side_spoke(serve: Serve, recorder: Recorder) -> None:
    client = await started(serve, recorder)
    recorder.answer, recorder.closes = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", True
    got = await exchanged(client.url, GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n")
    assert b"Via: 1.0 relproxy" in recorder.head
    assert b"Via: 1.0 relproxy\r\n" in got


async def test_what_relproxy_answers_itself_came_by_no_way(
    serve: Serve, recorder: Recorder
) -> None:
    client = await started(serve, recorder)
    got = await exchanged(client.url, GET.replace(b"GET", b"TRACE") + b"\r\n")
    assert got.startswith(b"HTTP/1.1 400 ")
    assert b"Via" not in got


async def test_each_request_of_one_list_says_by_which_way_it_came(
    serve: Serve, recorder: Recorder
) -> None:
    client = await started(serve, recorder)
    recorder.answer = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"images": []}'
    got = await exchanged(client.url, GET.replace(b"schemas/x", b"images") + b"\r\n")
    assert b"\r\n" + ADDED in recorder.head
    assert b"Via: 1.1 relproxy\r\n" in got


async def test_a_route_in_shadow_says_it_too(serve: Serve, recorder: Recorder) -> None:
    route = {"name": "all", "registry": "glance", "mode": "shadow"}
    client = await started(serve, recorder, routes=[route])
    got = await exchanged(client.url, GET + b"X-Forwarded-For: 10.0.0.1\r\n\r\n")
    assert recorder.head.endswith(ADDED)
    assert b"Via: 1.1 relproxy\r\n" in got


async def test_a_front_is_added_to(serve: Serve, recorder: Recorder) -> None:
    client = await started(
        serve,
        recorder,
        fronts={"networks": LOOPBACK, "header": "forwarded"},
        forwarding={"via": "edge"},
    )
    await exchanged(client.url, GET + b"Forwarded: for=10.0.0.1\r\nX-Forwarded-For: evil\r\n\r\n")
    assert recorder.head.endswith(
        b'Forwarded: for=10.0.0.1, for=127.0.0.1;proto=http;host="images.example:80"\r\n'
        b"Via: 1.1 edge"
    )
    assert b"evil" not in recorder.head


# -- the host


@pytest.mark.parametrize("target", [b"/v2/schemas/x", b"http://images.example:80/v2/schemas/x"])
async def test_the_clients_host_is_kept_or_the_configured_one_is_named(
    serve: Serve, recorder: Recorder, target: bytes
) -> None:
    asked = GET.replace(b"/v2/schemas/x", target) + b"\r\n"
    kept = await started(serve, recorder)
    await exchanged(kept.url, asked)
    assert b"\r\nHost: images.example:80\r\n" in recorder.head
    named = await started(serve, recorder, host="glance.internal:9292")
    await exchanged(named.url, asked)
    assert b"\r\nHost: glance.internal:9292\r\n" in recorder.head
    assert b"\r\nX-Forwarded-Host: images.example:80" in recorder.head


async def test_what_relproxy_asks_for_itself_names_the_configured_host_too(
    serve: Serve, recorder: Recorder
) -> None:
    """A front with several names would answer 404, which is no word about an image."""
    named = await started(serve, recorder, host="glance.internal:9292")
    await named.get("/readyz", url=named.admin_url)
    assert recorder.received
    assert all(b"\r\nHost: glance.internal:9292\r\n" in head for head in recorder.received)


async def test_links_that_a_registry_made_of_another_host_are_put_back(
    serve: Serve, recorder: Recorder
) -> None:
    route = {"name": "all", "registry": "glance", "path_prefix": "/east"}
    client = await started(serve, recorder, host="glance.internal:9292", routes=[route])
    recorder.answer = (
        b"HTTP/1.1 302 Found\r\nLocation: http://glance.internal:9292/v2/x\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    got = await exchanged(client.url, GET.replace(b"/v2", b"/east/v2") + b"\r\n")
    assert b"\r\nLocation: http://images.example:80/east/v2/x\r\n" in got
    recorder.answer = recorder.answer.replace(b"glance.internal", b"elsewhere")
    got = await exchanged(client.url, GET.replace(b"/v2", b"/east/v2") + b"\r\n")
    assert b"\r\nLocation: http://elsewhere:9292/v2/x\r\n" in got


@pytest.mark.parametrize("prefix", [None, "/east"])
async def test_links_of_a_version_document_are_put_back_too(
    serve: Serve, recorder: Recorder, prefix: str | None
) -> None:
    route = {"name": "all", "registry": "glance", "path_prefix": prefix}
    client = await started(serve, recorder, host="glance.internal:9292", routes=[route])
    document = b'{"versions": [{"links": [{"href": "http://glance.internal:9292/v2/"}]}]}'
    recorder.answer = b"HTTP/1.1 300 X\r\nContent-Length: %d\r\n\r\n" % len(document) + document
    path = prefix or ""
    got = await exchanged(client.url, GET.replace(b"/v2/schemas/x", f"{path}/".encode()) + b"\r\n")
    (version,) = json.loads(got.partition(b"\r\n\r\n")[2])["versions"]
    assert version["links"][0]["href"] == f"http://images.example:80{path}/v2/"
