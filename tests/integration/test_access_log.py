"""The line of each request: what it joins, when it is written, and what never is in it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from lab.stand_in import StandIn
from relproxy.logs import JSONLines
from tests.integration.conftest import Client, Serve, eventually, registry
from tests.integration.recorder import Recorder, exchanged, until_broken

GLOBAL_ID = "req-0a1b2c3d-0a1b-4c3d-8e9f-0a1b2c3d4e5f"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Return the lines of requests so far, as they are written."""
    caplog.set_level(logging.INFO)

    def read() -> list[dict[str, Any]]:
        told = [record for record in caplog.records if record.name == "relproxy.access"]
        return [json.loads(JSONLines().format(record)) for record in told]

    return read


async def test_each_request_has_a_line_that_says_what_became_of_it(
    second_wall: Client, trusting: StandIn, lines: Lines
) -> None:
    answer = await second_wall.create("a", "alice")
    (line,) = lines()
    times = {name: line.pop(name) for name in ("total_s", "registry_s", "until_registry_s")}
    assert min(times.values()) > 0
    assert times["total_s"] >= times["registry_s"] + times["until_registry_s"]
    assert line.pop("time")
    assert line.pop("request_id").startswith("req-")
    body = json.dumps({"name": "a"})
    assert line == {
        "level": "INFO",
        "event": "request",
        "logger": "relproxy.access",
        "global_request_id": None,
        "registry_request_id": answer.headers["x-openstack-request-id"],
        "trace_id": None,
        "span_id": None,
        "parent_id": None,
        "source": "127.0.0.1",
        "listener": "public",
        "method": "POST",
        "path": "/v2/images",
        "route": "all",
        "treatment": "create",
        "operation": "image-create",
        "registry": "glance",
        "endpoint": trusting.url,
        "project": "alice",
        "status": 201,
        "registry_status": 201,
        "registry_requests": 1,
        "bytes_in": len(body),
        "bytes_out": len(answer.body),
        "cut_off": None,
    }


async def test_a_refusal_is_told_under_the_id_that_the_client_was_given(
    only_wall: Client, lines: Lines
) -> None:
    answer = await only_wall.get("/v2/tasks", project="alice")
    (line,) = lines()
    assert line["request_id"] == answer.headers["X-Openstack-Request-Id"]
    assert (line["status"], line["registry_status"], line["endpoint"]) == (403, None, None)
    assert line["project"] == "alice"


async def test_a_request_that_no_route_takes_has_a_line_too(
    serve: Serve, trusting: StandIn, lines: Lines
) -> None:
    elsewhere = [{"name": "all", "registry": "glance", "host": "images.example.org"}]
    client = await serve(registries=[registry(trusting.url, "registry")], routes=elsewhere)
    assert (await client.get("/v2/images")).status == 404
    (line,) = lines()
    assert (line["route"], line["status"], line["source"]) == (None, 404, "127.0.0.1")


async def test_what_one_list_asks_a_registry_is_counted_and_timed_together(
    only_wall: Client, lines: Lines
) -> None:
    for name in "abc":
        await only_wall.create(name, "bob")
    await only_wall.create("mine", "alice")
    await only_wall.get("/v2/images?limit=1", project="alice")
    line = lines()[-1]
    assert line["registry_requests"] > 1
    assert line["registry_s"] > 0


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        pytest.param([GLOBAL_ID], GLOBAL_ID, id="as OpenStack writes it"),
        pytest.param([], None, id="none"),
        pytest.param(["req-1"], None, id="too short"),
        pytest.param([GLOBAL_ID.upper()], None, id="in capital letters"),
        pytest.param([GLOBAL_ID + "x"], None, id="too long"),
        pytest.param([f'{GLOBAL_ID}","status":"200'], None, id="more than an id"),
        pytest.param([GLOBAL_ID, GLOBAL_ID], None, id="twice"),
    ],
)
async def test_a_global_request_id_is_told_only_if_it_can_be_nothing_else(
    client: Client, lines: Lines, sent: list[str], told: str | None
) -> None:
    fields = "".join(f"X-OpenStack-Request-ID: {value}\r\n" for value in sent)
    head = f"GET /v2/schemas/image HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n"
    await exchanged(client.url, head.encode())
    (line,) = lines()
    assert line["global_request_id"] == told


@pytest.mark.parametrize("said", ['req-1","status":"200', "r" * 65, "req-\xff"])
async def test_a_registry_can_write_nothing_else_than_an_id(
    client: Client, recorder: Recorder, lines: Lines, said: str
) -> None:
    fields = f"x-openstack-request-id: {said}\r\nContent-Length: 2\r\n"
    recorder.answer = f"HTTP/1.1 200 OK\r\n{fields}\r\nok".encode("latin-1")
    assert (await client.get("/v2/schemas/image")).status == 200
    (line,) = lines()
    assert line["registry_request_id"] is None


SECRETS = (
    b"X-Auth-Token: secret",
    b"X-Service-Token: secret",
    b"Authorization: Bearer secret",
    b"Cookie: secret",
    b"X-OpenStack-Request-ID: req-secret",
    b"User-Agent: secret",
)


@pytest.mark.parametrize(
    "target", [b"/v2/schemas/image?a=secret#secret", b"http://secret:secret@a/v2/schemas/image?b"]
)
async def test_no_token_and_no_value_of_a_query_is_ever_in_a_line(
    client: Client, lines: Lines, target: bytes
) -> None:
    request = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    await exchanged(client.url, request + b"\r\n".join(SECRETS) + b"\r\n\r\n")
    (line,) = lines()
    assert "secret" not in json.dumps(line)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(b"/v2/" + b"%ff" * 4000, id="long"),
        pytest.param(b'/v2/","status":200,"x":"', id="JSON"),
        pytest.param(b"/v2/%0d%0a%e2%80%a8%1b", id="line ends and commands, quoted"),
    ],
)
async def test_whatever_is_asked_for_is_one_short_line(
    client: Client, caplog: pytest.LogCaptureFixture, path: bytes
) -> None:
    caplog.set_level(logging.INFO)
    await exchanged(client.url, b"GET " + path + b" HTTP/1.0\r\nHost: a\r\n\r\n")
    (record,) = [record for record in caplog.records if record.name == "relproxy.access"]
    text = JSONLines(worker=0).format(record)
    assert len(text) < 4096
    assert text.isascii()
    assert len(text.splitlines()) == 1
    assert json.loads(text)["event"] == "request"


async def asking(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request, and leave the rest to the caller."""
    host, _, port = client.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v2/schemas/image HTTP/1.1\r\nHost: a\r\n\r\n")
    return reader, writer


async def test_a_line_is_written_when_the_client_leaves_and_not_before(
    client: Client, recorder: Recorder, lines: Lines
) -> None:
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"
    reader, writer = await asking(client)
    await reader.readuntil(b"\r\n\r\nabc")
    assert lines() == []
    writer.transport.abort()

    async def ends() -> list[tuple[Any, ...]]:
        return [(line["status"], line["cut_off"], line["bytes_out"]) for line in lines()]

    await eventually(ends, [(200, "client", 3)])
    assert await client.metric('relproxy_requests_cut_off_total{by="client",route="all"}') == 1
    assert await client.metric("relproxy_sent_bytes_total") == 3


async def test_a_client_that_leaves_before_an_answer_has_a_line_without_a_status(
    client: Client, recorder: Recorder, lines: Lines
) -> None:
    recorder.answer = b""
    _, writer = await asking(client)
    await recorder.arrived.wait()
    writer.transport.abort()

    async def ends() -> list[tuple[Any, ...]]:
        return [(line["status"], line["cut_off"], line["endpoint"]) for line in lines()]

    await eventually(ends, [(None, "client", recorder.url)])


async def test_an_answer_that_the_registry_breaks_off_is_told_as_its_doing(
    client: Client, recorder: Recorder, lines: Lines
) -> None:
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"
    recorder.closes = True
    await until_broken(client.url, b"GET /v2/schemas/image HTTP/1.1\r\nHost: a\r\n\r\n")
    (line,) = lines()
    assert (line["status"], line["cut_off"], line["bytes_out"]) == (200, "registry", 3)


async def test_a_request_cut_off_by_the_end_of_relproxy_is_told_as_that(
    client: Client, recorder: Recorder, lines: Lines
) -> None:
    recorder.answer = b""
    asked = asyncio.create_task(client.get("/v2/schemas/image"))
    await recorder.arrived.wait()
    await client.stop()
    await asyncio.gather(asked, return_exceptions=True)
    (line,) = lines()
    assert line["cut_off"] == "relproxy"


async def test_bytes_of_bodies_are_counted_both_ways(second_wall: Client, lines: Lines) -> None:
    created = await second_wall.create("big", "alice")
    target = f"/v2/images/{created.json()['id']}/file"
    await second_wall.call("PUT", target, project="alice", data=bytes(300_000))
    await second_wall.get(target, project="alice")
    _, up, down = lines()
    assert (up["bytes_in"], up["bytes_out"]) == (300_000, 0)
    assert (down["bytes_in"], down["bytes_out"]) == (0, 300_000)
    assert await second_wall.metric("relproxy_sent_bytes_total") >= 300_000
    assert await second_wall.metric("relproxy_received_bytes_total") >= 300_000


async def test_requests_that_follow_on_one_connection_have_accounts_of_their_own(
    second_wall: Client, lines: Lines
) -> None:
    await second_wall.create("a", "alice")
    await second_wall.get("/v2/schemas/image")
    created, passed = lines()
    assert passed["project"] is None
    assert created["request_id"] != passed["request_id"]
    assert (passed["bytes_in"], passed["registry_requests"]) == (0, 1)


async def test_without_an_access_log_there_is_no_line(
    serve: Serve, trusting: StandIn, lines: Lines
) -> None:
    client = await serve(registries=[registry(trusting.url, "registry")], log={"access": False})
    assert (await client.get("/v2/images", project="alice")).status == 200
    assert lines() == []


async def test_the_time_to_a_registrys_answer_is_measured_by_what_it_was_asked_for(
    second_wall: Client,
) -> None:
    await second_wall.get("/v2/images", project="alice")
    await second_wall.get("/readyz", url=second_wall.admin_url)
    for treatment in ("list", "none"):
        labels = f'registry="glance",treatment="{treatment}"'
        assert await second_wall.metric(f"relproxy_upstream_seconds_count{{{labels}}}") == 1


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_a_trace_goes_on_to_the_registry_and_is_told(
    serve: Serve, trusting: StandIn, lines: Lines, mode: str
) -> None:
    client = await serve(
        registries=[registry(trusting.url, "registry")],
        routes=[{"name": "all", "registry": "glance", "mode": mode}],
    )
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "tracestate": "a=b"}
    await client.get("/v2/images", project="alice", headers=headers)
    (line,) = lines()
    assert (line["trace_id"], line["parent_id"]) == (trace, parent)
    sent = {name.lower(): value for name, value in trusting.requests[-1].headers}
    assert sent[b"traceparent"].decode() == f"00-{trace}-{line['span_id']}-01"
    assert sent[b"tracestate"] == b"a=b"
    await client.get("/v2/images", project="alice", headers={**headers, "traceparent": "00-x"})
    sent = {name.lower(): value for name, value in trusting.requests[-1].headers}
    assert not {b"traceparent", b"tracestate"} & set(sent)
    assert lines()[-1]["trace_id"] is None
