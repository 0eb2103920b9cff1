"""Where a request comes from, behind a balancer: its word is believed, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from lab.stand_in import StandIn
from tests.announcements import LOCAL, UNIX_STREAM, UNSPECIFIED, v1, v2, v2_of
from tests.integration.conftest import EAST, LOOPBACK, Client, Serve, eventually, registry
from tests.integration.recorder import Recorder, exchanged, recording

NOVA, CUSTOMER = "192.0.2.40", "198.51.100.7"
ANNOUNCED = [{"name": "public", "bind": "127.0.0.1:0", "proxy_protocol": True}]
# Anybody here may say who the caller is; the tuple is Nova's alone to send.
TRUST: dict[str, Any] = {
    "fronts": {"networks": ["127.0.0.1/32"]},
    "identity": {"trusted_networks": ["192.0.2.0/24", "198.51.100.0/24"]},
    "trusted_sources": {"networks": ["192.0.2.32/28"]},
}
REFUSED = "relproxy_connections_refused_total"


def create(instance: str, *headers: tuple[str, str], keeps_alive: bool = False) -> bytes:
    """Return a create of alice's, with metadata headers as Nova sends them."""
    body = json.dumps({"name": instance}).encode()
    fields = [
        ("Host", "images"),
        ("X-Project-Id", "alice"),
        ("X-Nova-Installation-UUID", EAST),
        ("X-Nova-Instance-ID", instance),
        ("Content-Length", str(len(body))),
        ("Connection", "keep-alive" if keeps_alive else "close"),
        *headers,
    ]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"POST /v2/images HTTP/1.1\r\n{lines}\r\n".encode() + body


def show(target: str, *, keeps_alive: bool = False) -> bytes:
    connection = "keep-alive" if keeps_alive else "close"
    fields = f"Host: images\r\nX-Project-Id: alice\r\nConnection: {connection}\r\n"
    return f"GET {target} HTTP/1.1\r\n{fields}\r\n".encode()


async def status_of(client: Client, sent: bytes) -> int:
    """Send a request on a connection of its own; return the status of its answer."""
    return int((await exchanged(client.url, sent)).split(b" ")[1])


async def vouched(client: Client) -> set[str]:
    """Return the instances of all captures, which have to be vouched."""
    relations = await client.relations("project=alice")
    assert {relation["grade"] for relation in relations} <= {"vouched"}
    return {relation["instance_id"] for relation in relations}


class Connection:
    """A connection to relproxy that stays."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def status(self, request: bytes = b"") -> int:
        """Send a request that keeps the connection; return the status of its answer."""
        self.writer.write(request)
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await self.reader.readexactly(length)
        return int(head.split(b" ")[1])

    async def closed(self) -> bytes:
        """Wait for the other end to close; return what it had sent."""
        try:
            async with asyncio.timeout(20):
                return await self.reader.read()
        except ConnectionError:
            return b""


Connect = Callable[..., Awaitable[Connection]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connect to a client's relproxy, and send some bytes; all is closed at the end."""
    made: list[Connection] = []

    async def open_one(client: Client, sent: bytes = b"") -> Connection:
        host, _, port = client.url.removeprefix("http://").partition(":")
        made.append(Connection(*await asyncio.open_connection(host, int(port))))
        made[-1].writer.write(sent)
        return made[-1]

    yield open_one
    for each in made:
        each.writer.close()


@pytest.fixture
async def announced(serve: Serve, trusting: StandIn) -> Client:
    """A relproxy whose clients are announced by the balancer's PROXY protocol."""
    glance = registry(trusting.url, "registry")
    return await serve(registries=[glance], listeners=ANNOUNCED, **TRUST)


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    async with recording() as made:
        yield made


# -- PROXY protocol


@pytest.mark.parametrize("header", [v1, v2], ids=["v1", "v2"])
async def test_metadata_of_a_customer_behind_novas_balancer_counts_for_nothing(
    announced: Client, trusting: StandIn, header: Any
) -> None:
    assert await status_of(announced, header(CUSTOMER) + create("customers")) == 201
    assert await status_of(announced, header(NOVA) + create("novas")) == 201

    assert await vouched(announced) == {"novas"}
    sent = {name.lower() for each in trusting.requests for name, _ in each.headers}
    assert not {name for name in sent if name.startswith(b"x-nova")}


@pytest.mark.parametrize(
    "said",
    [
        ("X-Forwarded-For", NOVA),
        ("Forwarded", f"for={NOVA}"),
        ("X-Real-IP", NOVA),
    ],
    ids=lambda pair: pair[0],
)
@pytest.mark.parametrize("header", ["none", "x-forwarded-for", "forwarded"])
async def test_an_announced_customer_is_nobody_else_by_a_header(
    serve: Serve, trusting: StandIn, header: str, said: tuple[str, str]
) -> None:
    trust = TRUST | {"fronts": {"networks": ["127.0.0.1/32"], "header": header}}
    glance = registry(trusting.url, "registry")
    client = await serve(registries=[glance], listeners=ANNOUNCED, **trust)

    assert await status_of(client, v2(CUSTOMER) + create("customers", said)) == 201
    assert await vouched(client) == set()


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(v2_of(0x21, UNIX_STREAM, bytes(216)), id="of a Unix socket"),
        pytest.param(v2_of(0x21, UNSPECIFIED), id="of an unknown protocol"),
    ],
)
async def test_a_client_without_an_address_is_not_taken_for_a_trusted_balancer(
    serve: Serve, trusting: StandIn, header: bytes
) -> None:
    trust = TRUST | {"trusted_sources": {"networks": LOOPBACK}}
    trust["identity"] = {"trusted_networks": LOOPBACK}
    glance = registry(trusting.url, "registry")
    client = await serve(registries=[glance], listeners=ANNOUNCED, **trust)

    assert await status_of(client, header + create("strangers")) == 401
    assert await status_of(client, v2_of(LOCAL, UNSPECIFIED) + create("balancers")) == 201
    assert await vouched(client) == {"balancers"}


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="no header"),
        pytest.param(b"PROXY TCP4 192.0.2.40 192.0.2.1 1 99999\r\n", id="a malformed one"),
        pytest.param(v1(NOVA)[:-2] + b"\n", id="one ended by LF"),
        pytest.param(v2_of(0x21, 0x99, bytes(12)), id="one of no family"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
    ],
)
async def test_a_connection_without_a_header_is_closed_and_nothing_reaches_the_registry(
    announced: Client,
    trusting: StandIn,
    begun: bytes,
    caplog: pytest.LogCaptureFixture,
    connect: Connect,
) -> None:
    caplog.set_level(logging.WARNING)
    connection = await connect(announced, begun + create("forged"))

    assert await connection.closed() == b""
    assert trusting.requests == []
    (line,) = [record for record in caplog.records if record.msg == "connection refused"]
    said = vars(line)
    assert (said["listener"], said["peer"], said["reason"]) == ("public", "127.0.0.1", "malformed")
    assert "forged" not in str(said)
    series = f'{REFUSED}{{listener="public",reason="malformed"}}'
    assert await announced.metric(series) == 1


async def test_a_connection_from_elsewhere_is_closed_whatever_it_announces(
    serve: Serve, trusting: StandIn, connect: Connect
) -> None:
    trust = TRUST | {"fronts": {"networks": ["127.0.0.2/32", "192.0.2.0/24"]}}
    glance = registry(trusting.url, "registry")
    client = await serve(registries=[glance], listeners=ANNOUNCED, **trust)
    # Nothing is sent: it isn't let in to say anything.
    silent = await connect(client)
    assert await silent.closed() == b""
    talking = await connect(client, v2(NOVA) + create("forged"))
    assert await talking.closed() == b""

    assert trusting.requests == []
    assert await client.metric(f'{REFUSED}{{listener="public",reason="not_a_front"}}') == 2


async def test_a_listener_without_proxy_protocol_takes_no_header_for_one(
    serve: Serve, trusting: StandIn
) -> None:
    client = await serve(registries=[registry(trusting.url, "registry")], **TRUST)

    assert await status_of(client, v1(NOVA) + create("forged")) == 400
    assert trusting.requests == []


async def test_a_header_that_comes_byte_by_byte_is_read(
    announced: Client, connect: Connect
) -> None:
    for header in (v1(NOVA), v2(NOVA, tlvs=b"\xea\x00\x02ab")):
        connection = await connect(announced)
        for byte in header:
            connection.writer.write(bytes((byte,)))
            await connection.writer.drain()
            await asyncio.sleep(0)
        assert await connection.status(create("novas", keeps_alive=True)) == 201
    assert await vouched(announced) == {"novas"}


async def test_what_comes_right_behind_a_header_is_served_in_its_order(
    announced: Client, trusting: StandIn
) -> None:
    both = show("/v2/schemas/image", keeps_alive=True) + show("/v2/images?limit=1")
    for header in (v1(NOVA), v2(NOVA)):
        trusting.requests.clear()
        answer = await exchanged(announced.url, header + both)
        assert answer.count(b"HTTP/1.1 200 ") == 2
        targets = [request.target for request in trusting.requests]
        assert targets == ["/v2/schemas/image", "/v2/images?limit=2"]


async def test_a_second_header_on_a_connection_is_no_request(announced: Client) -> None:
    answer = await exchanged(announced.url, v1(CUSTOMER) + v1(NOVA) + create("forged"))
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert await vouched(announced) == set()


async def test_each_connection_keeps_its_own_address(announced: Client, connect: Connect) -> None:
    nova = await connect(announced, v2(NOVA))
    customer = await connect(announced, v1(CUSTOMER))
    for turn in range(3):
        for connection, who in ((customer, "customers"), (nova, "novas")):
            request = create(f"{who}-{turn}", keeps_alive=True)
            assert await connection.status(request) == 201

    assert await vouched(announced) == {"novas-0", "novas-1", "novas-2"}


async def test_a_big_upload_goes_through_an_announced_connection(
    announced: Client, trusting: StandIn
) -> None:
    image_id = trusting.add_image(name="big", owner="alice")["id"]
    size = 20 * 1024 * 1024
    head = (
        f"PUT /v2/images/{image_id}/file HTTP/1.1\r\nHost: a\r\nX-Project-Id: alice\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()

    assert await status_of(announced, v2(NOVA) + head + bytes(size)) == 204
    assert trusting.requests[-1].length == size


async def test_a_header_that_never_ends_is_cut_off_by_its_timeout_and_no_request_is(
    serve: Serve, trusting: StandIn, connect: Connect
) -> None:
    client = await serve(
        registries=[registry(trusting.url, "registry")],
        listeners=ANNOUNCED,
        timeouts={"shutdown_s": 1, "proxy_header_s": 0.3},
        **TRUST,
    )
    served = await connect(client, v2(NOVA))
    # Once it was answered its header was read, before the others were begun.
    assert await served.status(show("/v2/schemas/image", keeps_alive=True)) == 200
    silent = await connect(client)
    slow = await connect(client)

    assert await drip(slow, v2(NOVA, tlvs=bytes(8000))) > 1
    assert await silent.closed() == b""
    assert await client.metric(f'{REFUSED}{{listener="public",reason="timeout"}}') == 2
    # Older than those, and still there.
    assert await served.status(create("novas", keeps_alive=True)) == 201
    assert await vouched(client) == {"novas"}


async def drip(connection: Connection, whole: bytes) -> int:
    """Send a byte now and then until the other end closes; return how many were sent."""
    closed = asyncio.create_task(connection.closed())
    for count, byte in enumerate(whole):
        connection.writer.write(bytes((byte,)))
        done, _ = await asyncio.wait({closed}, timeout=0.02)
        if done:
            assert closed.result() == b""
            return count
    raise AssertionError("the connection was never closed")


async def test_a_look_whether_the_port_is_open_is_no_refusal(
    announced: Client, connect: Connect
) -> None:
    look = await connect(announced)
    look.writer.write_eof()
    assert await look.closed() == b""
    assert await announced.metric(REFUSED) == 0

    half = await connect(announced, v2(NOVA)[:-1])
    half.writer.write_eof()
    assert await half.closed() == b""
    assert await announced.metric(f'{REFUSED}{{listener="public",reason="malformed"}}') == 1


async def test_a_request_on_an_announced_connection_finishes_while_relproxy_stops(
    announced: Client, trusting: StandIn, connect: Connect
) -> None:
    trusting.faults.delay = asyncio.Event()
    busy = await connect(announced, v2(NOVA) + create("novas", keeps_alive=True))
    await trusting.await_requests(1)
    assert await announced.metric("relproxy_requests_in_progress") == 1
    stopping = asyncio.ensure_future(announced.stop())
    await eventually(lambda: refuses(announced, connect), True)

    trusting.faults.delay.set()
    answer = await busy.closed()
    await stopping
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b"\r\nConnection: close\r\n" in answer


async def refuses(client: Client, connect: Connect) -> bool:
    try:
        await connect(client)
    except ConnectionError:
        return True
    return False


async def test_connections_that_have_said_nothing_do_not_hold_up_a_stop(
    serve: Serve, trusting: StandIn, connect: Connect
) -> None:
    client = await serve(
        registries=[registry(trusting.url, "registry")],
        listeners=ANNOUNCED,
        timeouts={"shutdown_s": 60, "proxy_header_s": 60},
        **TRUST,
    )
    waiting = [await connect(client, sent) for sent in (b"", b"PROXY ", v2(NOVA)[:20])]
    idle = await connect(client, v2(NOVA))
    assert await idle.status(show("/v2/schemas/image", keeps_alive=True)) == 200

    async with asyncio.timeout(20):
        await client.stop()
    assert [await each.closed() for each in (*waiting, idle)] == [b""] * 4


# -- a header of the balancer's


def by_header(name: str) -> dict[str, Any]:
    return TRUST | {"fronts": {"networks": ["127.0.0.1/32"], "header": name}}


@pytest.fixture(params=["x-forwarded-for", "forwarded"])
async def named(request: pytest.FixtureRequest, serve: Serve, trusting: StandIn) -> Named:
    """A relproxy whose clients are named by a header of the balancer's."""
    glance = registry(trusting.url, "registry")
    client = await serve(registries=[glance], **by_header(request.param))
    return Named(client, trusting, request.param)


class Named:
    def __init__(self, client: Client, glance: StandIn, header: str) -> None:
        self.client = client
        self.glance = glance
        self.header = header

    def hops(self, *hops: str) -> tuple[str, str]:
        """Return the header with these hops, from the first to the last."""
        if self.header == "forwarded":
            return "Forwarded", ", ".join(f"for={hop}" for hop in hops)
        return "X-Forwarded-For", ", ".join(hops)

    def other(self, hop: str) -> tuple[str, str]:
        """Return the header that the balancer doesn't set."""
        if self.header == "forwarded":
            return "X-Forwarded-For", hop
        return "Forwarded", f"for={hop}"

    async def create(self, instance: str, *headers: tuple[str, str]) -> int:
        return await status_of(self.client, create(instance, *headers))


async def test_hops_that_a_customer_has_forged_count_for_nothing(named: Named) -> None:
    assert await named.create("novas", named.hops(NOVA)) == 201
    assert await named.create("customers", named.hops(CUSTOMER)) == 201
    assert await named.create("left", named.hops(NOVA, CUSTOMER)) == 201
    assert await named.create("more", named.hops(NOVA, "127.0.0.1", NOVA, CUSTOMER)) == 201
    assert await named.create("field", named.hops(NOVA), named.hops(CUSTOMER)) == 201
    assert await named.create("other", named.hops(CUSTOMER), named.other(NOVA)) == 201
    assert await named.create("balancers", named.hops(CUSTOMER, NOVA, "127.0.0.1")) == 201

    assert await vouched(named.client) == {"novas", "balancers"}


async def test_the_header_goes_on_as_it_came(named: Named) -> None:
    assert await named.create("novas", named.hops("203.0.113.1", NOVA)) == 201
    name, value = named.hops("203.0.113.1", NOVA)
    assert named.glance.requests[-1].values(name) == [value]


async def test_a_hop_that_hides_is_nobody_and_not_the_trusted_balancer(
    serve: Serve, trusting: StandIn
) -> None:
    trust = by_header("x-forwarded-for") | {"trusted_sources": {"networks": LOOPBACK}}
    trust["identity"] = {"trusted_networks": LOOPBACK}
    client = await serve(registries=[registry(trusting.url, "registry")], **trust)

    for value in ("unknown", "_hidden", "", "127.0.0.1, unknown", "garbage, 127.0.0.1"):
        assert await status_of(client, create("hidden", ("X-Forwarded-For", value))) == 401, value
    assert await vouched(client) == set()
    assert await status_of(client, create("balancers")) == 201
    assert await vouched(client) == {"balancers"}


@pytest.mark.parametrize("name", ["X_Forwarded_For", "x-forwarded_for"])
async def test_a_header_in_another_spelling_is_refused_and_not_forwarded(
    serve: Serve, trusting: StandIn, name: str
) -> None:
    glance = registry(trusting.url, "registry")
    client = await serve(registries=[glance], **by_header("x-forwarded-for"))

    for own in ([], [("X-Forwarded-For", CUSTOMER)]):
        assert await status_of(client, create("forged", *own, (name, NOVA))) == 400
    assert trusting.requests == []


async def test_a_client_that_is_no_front_is_named_by_nothing(
    serve: Serve, trusting: StandIn
) -> None:
    trust = by_header("x-forwarded-for") | {
        "fronts": {"networks": ["127.0.0.2/32"], "header": "x-forwarded-for"},
        "identity": {"trusted_networks": LOOPBACK},
    }
    client = await serve(registries=[registry(trusting.url, "registry")], **trust)

    assert await status_of(client, create("forged", ("X-Forwarded-For", NOVA))) == 201
    assert await vouched(client) == set()


async def test_identity_headers_are_believed_of_the_source_and_not_of_the_balancer(
    serve: Serve, noauth: StandIn
) -> None:
    client = await serve(
        registries=[registry(noauth.url, "relproxy")],
        **by_header("x-forwarded-for") | {"identity": {"trusted_networks": ["192.0.2.0/24"]}},
    )
    for source, status in ((CUSTOMER, 401), (NOVA, 200), (f"{NOVA}, {CUSTOMER}", 401)):
        answer = await client.get(
            "/v2/images", project="alice", headers={"X-Forwarded-For": source}
        )
        assert answer.status == status, source
    assert (await client.get("/v2/images", project="alice")).status == 401


async def test_a_route_is_taken_by_the_network_of_the_source(
    serve: Serve, noauth: StandIn, recorder: Recorder
) -> None:
    client = await serve(
        registries=[
            registry(noauth.url, "registry"),
            {"name": "novas", "tenancy": "registry", "endpoints": [recorder.url]},
        ],
        routes=[
            {"name": "novas", "registry": "novas", "network": "192.0.2.32/28"},
            {"name": "balancers", "registry": "novas", "network": "127.0.0.0/8"},
            {"name": "all", "registry": "glance"},
        ],
        **by_header("x-forwarded-for"),
    )
    for source in (CUSTOMER, f"{NOVA}, {CUSTOMER}", "unknown"):
        await client.get("/v2/schemas/image", headers={"X-Forwarded-For": source})
    assert recorder.received == []
    await client.get("/v2/schemas/image", headers={"X-Forwarded-For": f"a, {NOVA}, 127.0.0.1"})
    assert len(recorder.received) == 1
    assert len(noauth.requests) == 3


async def test_both_kinds_of_front_in_a_row_are_believed(serve: Serve, trusting: StandIn) -> None:
    gateway = "192.0.2.200"
    trust = TRUST | {
        "fronts": {"networks": ["127.0.0.1/32", f"{gateway}/32"], "header": "x-forwarded-for"}
    }
    glance = registry(trusting.url, "registry")
    client = await serve(registries=[glance], listeners=ANNOUNCED, **trust)

    forged = ("X-Forwarded-For", f"{NOVA}, {CUSTOMER}")
    honest = ("X-Forwarded-For", f"{CUSTOMER}, {NOVA}")
    assert await status_of(client, v2(gateway) + create("customers", forged)) == 201
    assert await status_of(client, v2(gateway) + create("novas", honest)) == 201
    assert await vouched(client) == {"novas"}


@pytest.mark.parametrize("own", [b"PROXY UNKNOWN\r\n", v2_of(LOCAL, UNSPECIFIED)], ids=["v1", "v2"])
async def test_a_connection_of_the_balancers_own_is_nobody_else_by_a_header(
    serve: Serve, trusting: StandIn, own: bytes
) -> None:
    trust = by_header("x-forwarded-for") | {"identity": {"trusted_networks": LOOPBACK}}
    glance = registry(trusting.url, "registry")
    client = await serve(registries=[glance], listeners=ANNOUNCED, **trust)

    assert await status_of(client, own + create("forged", ("X-Forwarded-For", NOVA))) == 201
    assert await vouched(client) == set()


async def test_a_refusal_is_logged_with_its_source(
    serve: Serve, noauth: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = await serve(
        registries=[registry(noauth.url, "relproxy")], **by_header("x-forwarded-for")
    )
    await client.get("/v2/images", headers={"X-Forwarded-For": CUSTOMER})
    await client.get("/v2/images", headers={"X-Forwarded-For": "unknown"})
    refused = [vars(r)["source"] for r in caplog.records if r.msg == "request refused"]
    assert refused == [CUSTOMER, None]
