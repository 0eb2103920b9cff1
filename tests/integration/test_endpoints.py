"""Several endpoints of one registry: which get requests, and what is sent twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lab.processes import free_port
from lab.stand_in import Recorded, StandIn
from relproxy.config import Timeouts
from relproxy.config_endpoints import Ejection, HealthCheck
from relproxy.endpoints import Endpoints
from relproxy.errors import RegistryUnreachableError
from relproxy.health_checks import HealthChecks
from relproxy.messages import Headers
from relproxy.metrics import Metrics
from relproxy.upstream import Upstream, open_session
from tests.integration.conftest import Client, Serve, eventually, registry
from tests.integration.recorder import OK, Recorder, recording, turns

GARBAGE = b"garbage\r\n\r\n"
NO_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"
# Nobody is tried again within a test.
FOR_LONG = {"base_s": 3600, "max_s": 3600}


@pytest.fixture
async def other() -> AsyncIterator[Recorder]:
    async with recording() as recorder:
        yield recorder


async def beside(
    serve: Serve, *urls: str, tenancy: str = "registry", read_s: float = 20, **settings: Any
) -> Client:
    """Serve one registry of several endpoints."""
    settings = {"ejection": FOR_LONG, "health_check": {"path": None}, **settings}
    one = registry("", tenancy, upstream_identity="token", **settings)
    return await serve(
        registries=[one | {"endpoints": list(urls)}], timeouts={"read_s": read_s, "shutdown_s": 0.2}
    )


async def up(client: Client, url: str) -> float:
    return await client.metric(f'relproxy_endpoint_up{{endpoint="{url}",registry="glance"}}')


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def breaks(recorder: Recorder, answer: bytes = b"") -> None:
    """Let a registry close its connections after what it answers, if anything."""
    recorder.answer, recorder.closes = answer, True


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(GARBAGE, "garbage", id="garbage"),
        pytest.param(UNAVAILABLE, "status", id="503"),
        pytest.param(b"", "unreachable", id="breaks-off"),
    ],
)
async def test_an_endpoint_that_fails_in_a_row_gets_no_more_requests(
    serve: Serve,
    recorder: Recorder,
    other: Recorder,
    answer: bytes,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    client = await beside(serve, recorder.url, other.url)
    breaks(recorder, answer)
    for _ in range(12):
        await client.get("/v2/schemas/x")
    assert len(recorder.received) == 3
    assert len(other.received) >= 9
    assert [await up(client, url) for url in (recorder.url, other.url)] == [0, 1]
    labels = f'endpoint="{recorder.url}",reason="{reason}",registry="glance"'
    assert await client.metric(f"relproxy_endpoint_failures_total{{{labels}}}") == 3
    assert await client.metric(f"relproxy_endpoint_ejections_total{{{labels}}}") == 1
    (event,) = [vars(r) for r in caplog.records if r.message == "endpoint ejected"]
    assert (event["endpoint"], event["reason"]) == (recorder.url, reason)


async def test_an_endpoint_that_does_not_answer_in_time_is_ejected(
    serve: Serve, recorder: Recorder, other: Recorder
) -> None:
    client = await beside(
        serve, recorder.url, other.url, ejection={"failures": 1, **FOR_LONG}, read_s=0.2
    )
    recorder.answer = b""
    got = {(await client.get("/v2/schemas/x")).status for _ in range(6)}
    assert got == {504, 200}
    assert len(recorder.received) == 1


async def test_an_ejected_endpoint_that_is_back_is_noticed_by_a_try(
    serve: Serve, recorder: Recorder, other: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = await beside(serve, recorder.url, other.url, ejection={"base_s": 0.05, "max_s": 0.1})
    breaks(recorder)

    async def state() -> float:
        # No client sees anything of it, nor of the tries that fail.
        assert (await client.get("/v2/schemas/x")).status == 200
        return await up(client, recorder.url)

    await eventually(state, 0.0)
    recorder.answer, recorder.closes = OK, False
    await eventually(state, 1.0)
    assert "endpoint is back" in [record.message for record in caplog.records]


async def test_a_try_that_is_not_answered_in_time_costs_its_client_nothing_but_time(
    serve: Serve, recorder: Recorder, other: Recorder
) -> None:
    ejection = {"failures": 1, "base_s": 0.01, "max_s": 0.01}
    client = await beside(serve, recorder.url, other.url, ejection=ejection, read_s=0.1)
    recorder.answer = b""
    assert 504 in {(await client.get("/v2/schemas/x")).status for _ in range(2)}

    async def is_tried() -> bool:
        assert (await client.get("/v2/schemas/x")).status == 200
        return len(recorder.received) >= 3

    await eventually(is_tried, expected=True)


async def test_the_last_endpoint_that_fails_is_still_asked(
    serve: Serve, recorder: Recorder, other: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    client = await beside(serve, recorder.url, other.url, allows_anonymous=True)
    breaks(recorder)
    breaks(other)
    for _ in range(8):
        assert (await client.get("/v2/schemas/x")).status == 502
    assert [await up(client, url) for url in (recorder.url, other.url)] == [0, 0]
    assert "last endpoint fails" in [record.message for record in caplog.records]
    assert (await client.get("/readyz", url=client.admin_url)).status == 503
    for each in (recorder, other):
        each.answer, each.closes = OK, False
    assert (await client.post("/v2/schemas/x")).status == 200
    assert (await client.get("/readyz", url=client.admin_url)).status == 200


@pytest.mark.parametrize("end", [b"zz\r\n", b""], ids=["with-garbage", "with-its-connection"])
async def test_a_client_that_breaks_its_upload_off_is_no_failure_of_the_endpoint(
    serve: Serve, recorder: Recorder, end: bytes
) -> None:
    client = await beside(serve, recorder.url, ejection={"failures": 1, **FOR_LONG})
    host, _, port = client.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n"
    )
    async with asyncio.timeout(10):
        await recorder.something.wait()
        writer.write(end)
        writer.close()
        await recorder.gone.wait()
    await eventually(lambda: client.metric("relproxy_requests_in_progress"), 0.0)
    assert await client.metric("relproxy_endpoint_failures_total") == 0
    assert await up(client, recorder.url) == 1


class BrokenOff:
    """The body of a client that leaves, of which the flow is not cancelled (as in shadow)."""

    is_empty = False
    length = None
    is_awaited = False

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"some"
        raise ConnectionResetError("the client has gone")


async def test_a_body_that_the_client_breaks_off_is_no_failure_of_the_endpoint(
    recorder: Recorder,
) -> None:
    endpoints = Endpoints((recorder.url,), Ejection(failures=1))
    async with open_session(Timeouts()) as session:
        upstream = Upstream("glance", endpoints, session, Metrics())
        with pytest.raises(RegistryUnreachableError):
            await upstream.send("PUT", "/v2/images/x/file", Headers(), BrokenOff())
    assert endpoints.by_preference()[0].is_well


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_request_goes_to_another_endpoint_where_nothing_was_answered(
    serve: Serve, recorder: Recorder, other: Recorder, method: str
) -> None:
    client = await beside(serve, recorder.url, other.url)
    breaks(recorder)
    other.answer = NO_BODY
    for _ in range(4):
        assert (await client.call(method, "/v2/schemas/x")).status == 200
    assert len(other.received) == 4
    assert 0 < len(recorder.received) <= 3
    # Every client was answered.
    assert await client.metric("relproxy_upstream_errors_total") == 0


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        pytest.param("POST", b"", None, id="not-safe"),
        pytest.param("PUT", b"", None, id="idempotent-only"),
        pytest.param("DELETE", b"", None, id="delete"),
        pytest.param("GET", b"HTTP/1.1 2", None, id="a-byte-was-read"),
        pytest.param("GET", b"", b"x", id="has-a-body"),
    ],
)
async def test_no_other_request_is_sent_twice(
    serve: Serve,
    recorder: Recorder,
    other: Recorder,
    method: str,
    answer: bytes,
    body: bytes | None,
) -> None:
    client = await beside(serve, recorder.url, other.url, ejection={"failures": 100})
    breaks(recorder, answer)
    breaks(other, answer)
    for number in range(1, 5):
        assert (await client.call(method, "/v2/schemas/x", data=body)).status == 502
        assert len(recorder.received) + len(other.received) == number


async def test_a_create_that_may_have_arrived_is_never_sent_again(serve: Serve) -> None:
    async with StandIn() as one, StandIn() as two:
        client = await beside(
            serve, one.url, two.url, tenancy="relproxy", ejection={"failures": 100}
        )
        one.faults.drop = two.faults.drop = True
        for number in range(1, 5):
            created = await client.create("x", "alice", fields={"instance_id": "1"})
            assert created.status == 502
            posts = [r for r in (*one.requests, *two.requests) if r.method == "POST"]
            assert len(posts) == number
        counted = 'relproxy_records_total{registry="glance",result="in_doubt"}'
        assert await client.metric(counted) == 4


async def test_a_create_goes_to_another_endpoint_where_no_connection_was_made(
    serve: Serve, noauth: StandIn
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    client = await beside(serve, away, noauth.url, tenancy="relproxy", ejection={"failures": 100})
    for number in range(4):
        created = await client.create("x", "alice", fields={"instance_id": "1"})
        assert created.status == 201
        assert len(await client.relations("instance_id=1")) == number + 1
    counted = 'relproxy_records_total{registry="glance",result="confirmed"}'
    assert await client.metric(counted) == 4
    assert len(noauth.images) == 4


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        pytest.param("GET", "/v2/schemas/x", None, id="bodyless"),
        pytest.param("POST", "/v2/images", b"{}", id="create"),
        pytest.param("PUT", "/v2/images/x/members/y", b"{}", id="streamed"),
    ],
)
async def test_a_registry_has_its_time_to_begin_an_answer(
    serve: Serve, recorder: Recorder, method: str, target: str, body: bytes | None
) -> None:
    one = registry(recorder.url, "registry", upstream_identity="token")
    client = await serve(registries=[one], timeouts={"head_s": 0.1, "read_s": 600})
    recorder.answer = b""
    assert (await client.call(method, target, data=body)).status == 504
    assert len(recorder.received) == 1


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        pytest.param("GET", "/v2/images/x/file", None, id="download"),
        pytest.param("DELETE", "/v2/images/x", None, id="deletion"),
        pytest.param("PUT", "/v2/images/x/file", b"data", id="upload"),
    ],
)
async def test_where_image_data_is_moved_an_answer_may_begin_later(
    serve: Serve, recorder: Recorder, method: str, target: str, body: bytes | None
) -> None:
    one = registry(recorder.url, "registry", upstream_identity="token")
    timeouts = {"head_s": 0.01, "read_s": 600, "shutdown_s": 1}
    client = await serve(registries=[one], timeouts=timeouts)
    recorder.answer = b""
    asked = asyncio.create_task(client.call(method, target, data=body))
    # Which image it is that goes is asked before, in the time for others.
    place = 1 if method == "DELETE" else 0
    await eventually(lambda: has_come(recorder, place), True)
    # Far longer than the time for others, which have failed by then.
    assert (await client.get("/v2/schemas/x")).status == 504
    recorder.writers[place].write(OK)
    assert (await asked).status == 200


async def has_come(recorder: Recorder, place: int) -> bool:
    return len(recorder.received) > place


async def test_a_registry_has_its_time_to_take_more_of_an_upload(
    serve: Serve, trusting: StandIn
) -> None:
    timeouts = {"read_s": 0.3, "shutdown_s": 1}
    client = await serve(registries=[registry(trusting.url, "registry")], timeouts=timeouts)
    created = await client.create("big", "alice")
    trusting.faults.slow_upload_reader = asyncio.Event()
    target = f"/v2/images/{created.json()['id']}/file"

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield bytes(2**18)

    async with asyncio.timeout(20):
        answer = await client.call("PUT", target, project="alice", data=pieces())
    assert answer.status == 504
    assert await client.metric('relproxy_upstream_errors_total{reason="timeout"') == 1


async def test_a_client_may_be_as_slow_as_it_likes(serve: Serve, trusting: StandIn) -> None:
    timeouts = {"head_s": 1, "read_s": 0.3, "shutdown_s": 1}
    client = await serve(registries=[registry(trusting.url, "registry")], timeouts=timeouts)
    created = await client.create("slow", "alice")
    is_over = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"some"
        await is_over.wait()
        yield b"more"

    target = f"/v2/images/{created.json()['id']}/file"
    upload = asyncio.create_task(client.call("PUT", target, project="alice", data=pieces()))
    await trusting.await_requests(2)
    # What waits for a registry meanwhile has waited for too long.
    trusting.faults.delay = asyncio.Event()
    assert (await client.get("/v2/schemas/image", project="alice")).status == 504
    trusting.faults.delay = None
    is_over.set()
    assert (await upload).status == 204
    assert trusting.requests[1].length == len(b"somemore")


def changes(recorder: Recorder) -> int:
    """Count what has come but for the look at what is to be deleted, which any endpoint answers."""
    return sum(not received.startswith(b"GET ") for received in recorder.received)


async def test_an_images_stage_import_and_deletion_go_to_the_same_endpoint(
    serve: Serve, recorder: Recorder, other: Recorder
) -> None:
    urls = (recorder.url, other.url)
    one = await beside(serve, *urls, sticky_staging=True)
    two = await beside(serve, *reversed(urls), sticky_staging=True)
    seen = set()
    for number in range(16):
        image = f"/v2/images/6ba54504-706f-404a-82be-{number:012}"
        before = changes(recorder), changes(other)
        await one.call("PUT", f"{image}/stage", data=b"data")
        await two.call("POST", f"{image}/import", data=b'{"method": {"name": "glance-direct"}}')
        await one.call("DELETE", image.upper().replace("/V2/IMAGES", "/v2/images"))
        came = changes(recorder) - before[0], changes(other) - before[1]
        assert came in {(3, 0), (0, 3)}
        seen.add(came)
    assert len(seen) == 2


CHECKED = {"interval_s": 0.02, "rise": 2, "fall": 2}


def is_check(request: Recorded) -> bool:
    return request.target == "/healthcheck"


async def test_an_endpoint_that_fails_health_checks_gets_no_requests_until_it_passes(
    serve: Serve,
) -> None:
    """What oslo.middleware's disable_by_file is for: requests would be answered as ever."""
    async with StandIn() as one, StandIn() as two:
        client = await beside(serve, one.url, two.url, tenancy="relproxy", health_check=CHECKED)
        one.healthcheck_status = 503
        await eventually(lambda: up(client, one.url), 0.0)
        for _ in range(6):
            assert (await client.get("/v2/images", project="alice")).status == 200
        assert [r for r in one.requests if not is_check(r)] == []
        ready = await client.get("/readyz", url=client.admin_url)
        assert ready.json()["registries"]["glance"]["endpoints"] == {
            one.url: "down",
            two.url: "well",
        }
        assert "health checks of glance" in ready.json()["background"]
        one.healthcheck_status = 200
        await eventually(lambda: up(client, one.url), 1.0)
        for _ in range(4):
            await client.get("/v2/images", project="alice")
        assert [r for r in one.requests if not is_check(r)] != []


async def test_a_registry_of_which_every_endpoint_fails_its_checks_is_still_asked(
    serve: Serve,
) -> None:
    async with StandIn() as one, StandIn() as two:
        client = await beside(serve, one.url, two.url, tenancy="relproxy", health_check=CHECKED)
        one.healthcheck_status = two.healthcheck_status = 503
        for each in (one, two):
            await eventually(lambda: up(client, each.url), 0.0)  # noqa: B023
        assert (await client.get("/v2/images", project="alice")).status == 200


async def test_a_registry_without_health_check_is_as_well_as_its_requests(serve: Serve) -> None:
    async with StandIn() as one, StandIn() as two:
        one.healthcheck_status = two.healthcheck_status = 404
        client = await beside(serve, one.url, two.url, tenancy="relproxy", health_check=CHECKED)
        async with asyncio.timeout(10):
            await one.await_requests(4)
        assert [await up(client, each.url) for each in (one, two)] == [1, 1]


async def test_an_endpoint_that_takes_no_connections_is_found_without_any_request(
    serve: Serve, noauth: StandIn
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    client = await beside(serve, away, noauth.url, tenancy="relproxy", health_check=CHECKED)
    await eventually(lambda: up(client, away), 0.0)
    assert await client.metric("relproxy_upstream_errors_total") == 0


async def test_health_checks_end_with_relproxy(serve: Serve) -> None:
    async with StandIn() as one, StandIn() as two:
        client = await beside(serve, one.url, two.url, tenancy="relproxy", health_check=CHECKED)
        # One is under way, and not answered.
        one.faults.delay = asyncio.Event()
        async with asyncio.timeout(10):
            await one.await_requests(1)
        await client.stop()
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not {name for name in names if name.startswith("checks")}


async def test_no_task_and_no_descriptor_is_left_of_endpoints_that_hang_break_and_answer(
    serve: Serve, recorder: Recorder, other: Recorder
) -> None:
    hanging = recorder
    hanging.answer = b""
    urls = (hanging.url, other.url, f"http://127.0.0.1:{free_port()}")

    async def lived() -> None:
        client = await beside(serve, *urls, health_check=CHECKED, read_s=0.1)
        for number in range(9):
            other.closes = bool(number % 2)
            await client.get("/v2/schemas/x")
        host, _, port = client.url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        await writer.drain()
        await client.session.close()
        await client.stop()
        writer.close()
        for each in (hanging, other):
            for peer in each.writers:
                peer.close()
        await turns()

    async def left() -> tuple[int, int]:
        return len(asyncio.all_tasks()), open_descriptors()

    # Once for what is opened once, such as the selector of a loop.
    await lived()
    before = await left()
    await lived()
    await lived()
    await eventually(left, before)


async def test_an_endpoint_may_be_a_unix_socket(
    serve: Serve, other: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "Glance API.sock"
    server = await asyncio.get_running_loop().create_unix_server(other.protocol, str(path))
    away = tmp_path / "away.sock"
    urls = (f"unix:{path}", f"unix:{away}", other.url)
    client = await beside(serve, *urls, allows_anonymous=True, health_check=CHECKED)
    await eventually(lambda: up(client, f"unix:{away}"), 0.0)
    for number in range(4):
        sent = f"body {number}".encode()
        answer = await client.call("PUT", "/v2/images/x/file?a=%2F", data=sent)
        assert (answer.status, answer.body) == (200, b"ok")
    heads = [head for head in other.received if head.startswith(b"PUT")]
    assert all(b"PUT /v2/images/x/file?a=%2F HTTP/1.1\r\nHost: 127.0.0.1:" in h for h in heads)
    # By the socket came health checks with a Host of their own, and half of the requests.
    assert any(b"Host: localhost\r\n" in head + b"\r\n" for head in other.received)
    assert [await up(client, url) for url in (urls[0], urls[2])] == [1, 1]
    server.close()


async def test_workers_together_check_no_more_often_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def slept(wait_s: float) -> None:
        waits.append(wait_s)
        if len(waits) == 9:
            raise asyncio.CancelledError

    async def no_news() -> bool:
        return len(waits) == 4

    settings = HealthCheck(interval_s=10)
    async with open_session(Timeouts()) as session:
        upstream = Upstream("glance", Endpoints(()), session, Metrics())
        checks = HealthChecks(upstream, settings, timeout_s=1, workers=8)
        monkeypatch.setattr("relproxy.health_checks.asyncio.sleep", slept)
        monkeypatch.setattr(checks, "check", no_news)
        with pytest.raises(asyncio.CancelledError):
            await checks.run()
    first, second, third, fourth, after_news, *others = waits
    # The first one soon, that not much is unknown for long.
    assert 0 <= first <= 10
    assert all(64 <= wait_s <= 96 for wait_s in (second, third, fourth, *others))
    assert 8 <= after_news <= 12
    assert len({*others}) == len(others)
