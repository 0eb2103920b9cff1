"""Registries over TLS: who is believed, what is told of who isn't, and where an answer ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from lab.stand_in import StandIn
from relproxy.config import Timeouts
from relproxy.endpoints import Endpoints
from relproxy.messages import Headers, Response
from relproxy.metrics import Metrics
from relproxy.upstream import Upstream, open_session
from tests.authority import Authority, tls_with
from tests.integration.conftest import EAST, Serve, eventually, registry
from tests.integration.recorder import Recorder, recording
from tests.integration.test_uploads import (
    CHUNK,
    CONTINUE,
    EXPECTS,
    REFUSALS,
    UPLOAD,
    answer,
    connected,
)
from tests.integration.tls_peer import peering

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
INSTANCE = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "123"}
DEAD = "https://127.0.0.1:1"
INSECURELY = b"be reached securely."


@pytest.fixture
async def glance(authority: Authority) -> AsyncIterator[StandIn]:
    async with StandIn(trusting=True, keeps_data=True, tls=authority.context()) as started:
        yield started


@pytest.fixture
async def impostor(stranger: Authority) -> AsyncIterator[StandIn]:
    """A registry whose certificate nobody relproxy trusts has issued."""
    async with StandIn(trusting=True, tls=stranger.context()) as started:
        yield started


@pytest.fixture
def trusted(authority: Authority) -> dict[str, Any]:
    return {"ca_file": str(authority.ca_file)}


def secured(*urls: str, tls: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return registry(urls[0], "registry", **{"endpoints": list(urls), "tls": tls, **settings})


def failures(url: str, reason: str) -> str:
    labels = f'endpoint="{url}",reason="{reason}",registry="glance"'
    return f"relproxy_endpoint_tls_failures_total{{{labels}}}"


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == event]


async def test_every_way_of_an_image_leads_over_tls(
    serve: Serve, glance: StandIn, trusted: dict[str, Any]
) -> None:
    client = await serve(registries=[secured(glance.url, tls=trusted)])
    created = await client.create("a", "alice", headers=INSTANCE)
    path = f"/v2/images/{created.json()['id']}"
    assert created.status == 201
    put = await client.call("PUT", f"{path}/file", project="alice", data=b"x" * 100_000)
    assert put.status == 204
    assert (await client.get(f"{path}/file", project="alice")).body == b"x" * 100_000
    assert (await client.get("/v2/images", project="alice")).names == ["a"]
    assert (await client.get(path, project="bob")).status == 404
    related = await client.relations(f"nova_installation_uuid={EAST}&instance_id=123")
    assert [each["image_id"] for each in related] == [created.json()["id"]]
    assert (await client.get("/readyz", url=client.admin_url)).status == 200
    explained = await client.get(
        f"/v1/explain?project=alice&image_id={created.json()['id']}", url=client.admin_url
    )
    assert explained.json()["registries"][0]["in_lists"]["is_visible"] is True


async def test_a_route_in_shadow_leads_over_tls(
    serve: Serve, glance: StandIn, trusted: dict[str, Any]
) -> None:
    glance.add_image(name="a", owner="alice")
    client = await serve(
        registries=[secured(glance.url, tls=trusted)],
        routes=[{"name": "all", "registry": "glance", "mode": "shadow"}],
    )
    got = await client.get(
        "/v2/images", project="alice", headers={"X-Identity-Status": "Confirmed"}
    )
    assert got.names == ["a"]
    assert await client.metric("relproxy_shadow_total") == 1


# -- who isn't believed


def impostors(authority: Authority, stranger: Authority) -> dict[str, ssl.SSLContext]:
    old = authority.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    return {
        "unknown_ca": stranger.context(),
        "name": authority.context("glance.example"),
        "expired": authority.context(ends=YESTERDAY),
        "version": old,
    }


@pytest.mark.parametrize("reason", ["unknown_ca", "name", "expired", "version"])
async def test_who_is_not_verified_gets_nothing_and_the_operator_is_told_why(
    serve: Serve,
    authority: Authority,
    stranger: Authority,
    caplog: pytest.LogCaptureFixture,
    reason: str,
) -> None:
    context = impostors(authority, stranger)[reason]
    tls = {"ca_file": str(authority.ca_file), "minimum_version": "1.3"}
    with peering(context) as impostor:
        client = await serve(registries=[secured(impostor.url, tls=tls)])
        answers = [await client.get("/v2/schemas/image", project="alice") for _ in range(2)]
        assert await client.metric(failures(impostor.url, reason)) == 2
    assert not impostor.requests
    assert len(impostor.failures) == 2
    for got in answers:
        assert got.status == 502
        assert INSECURELY in got.body
        assert not any(word in got.body for word in (b"certificate", b".pem", b"127.0.0.1"))
    errors = 'relproxy_upstream_errors_total{reason="tls",registry="glance"}'
    assert await client.metric(errors) == 2
    (line,) = told(caplog, "endpoint fails TLS")
    assert (line["endpoint"], line["reason"]) == (impostor.url, reason)
    assert line["detail"]


async def test_without_a_ca_file_those_of_the_system_decide(
    serve: Serve, glance: StandIn, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = await serve(registries=[secured(glance.url, tls={})])
    assert (await strange.get("/v2/schemas/image")).status == 502
    # Where OpenSSL looks for the system's.
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    known = await serve(registries=[secured(glance.url, tls={})])
    assert (await known.get("/v2/images", project="alice")).status == 200


async def test_what_speaks_no_tls_is_named_so(serve: Serve, trusted: dict[str, Any]) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        client = await serve(registries=[secured(url, tls=trusted)])
        assert (await client.get("/v2/schemas/image")).status == 502
        assert await client.metric(failures(url, "not_tls")) == 1


async def test_a_server_name_is_what_is_asked_for_and_verified_whatever_the_host(
    serve: Serve, authority: Authority, trusted: dict[str, Any]
) -> None:
    with peering(authority.context("glance.example")) as peer:
        peer.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        tls = {**trusted, "server_name": "glance.example"}
        client = await serve(registries=[secured(peer.url, tls=tls, host="images.example:1")])
        assert (await client.get("/v2/schemas/image")).body == b"ok"
    assert peer.names == ["glance.example"]
    assert b"\r\nHost: images.example:1\r\n" in peer.requests[0]


async def test_anyone_is_believed_only_where_that_is_said_in_so_many_words(
    serve: Serve, impostor: StandIn
) -> None:
    tls = {"insecure_accept_any_certificate": True}
    client = await serve(registries=[secured(impostor.url, tls=tls)])
    assert (await client.get("/v2/images", project="alice")).status == 200


# -- a certificate of relproxy's own


async def test_a_registry_that_wants_a_certificate_gets_it(
    serve: Serve, authority: Authority, stranger: Authority, trusted: dict[str, Any]
) -> None:
    certificate, key = stranger.files("relproxy")
    own = {"certificate_file": str(certificate), "key_file": str(key)}
    context = authority.context(asks_for_one_of=stranger)
    async with StandIn(trusting=True, tls=context) as glance:
        client = await serve(registries=[secured(glance.url, tls={**trusted, **own})])
        assert (await client.get("/v2/images", project="alice")).status == 200


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_a_create_whose_sender_is_refused_was_never_read_and_goes_elsewhere(
    serve: Serve,
    authority: Authority,
    stranger: Authority,
    glance: StandIn,
    trusted: dict[str, Any],
    version: str,
) -> None:
    """With TLS 1.3 the refusal comes when the request has left already."""
    context = authority.context(asks_for_one_of=stranger)
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    with peering(context) as peer:
        alone = await serve(registries=[secured(peer.url, tls=trusted)])
        got = await alone.create("a", "alice", headers=INSTANCE)
        assert (got.status, INSECURELY in got.body) == (502, True)
        assert await alone.metric(failures(peer.url, "own_certificate")) == 1
        assert await alone.in_doubt() == []
        both = await serve(registries=[secured(peer.url, glance.url, tls=trusted)])
        created = [await both.create(f"b{n}", "alice", headers=INSTANCE) for n in range(2)]
        assert [each.status for each in created] == [201, 201]
        assert await both.metric(failures(peer.url, "own_certificate")) == 1
    assert peer.requests == []
    assert sorted(image["name"] for image in glance.images.values()) == ["b0", "b1"]


async def test_an_upload_of_which_anything_is_gone_goes_nowhere_else(
    serve: Serve,
    authority: Authority,
    stranger: Authority,
    glance: StandIn,
    trusted: dict[str, Any],
) -> None:
    with peering(authority.context(asks_for_one_of=stranger)) as peer:
        client = await serve(registries=[secured(peer.url, glance.url, tls=trusted)])
        async with connected(client.url) as wire:
            wire.writer.write(UPLOAD + b"Content-Length: 3\r\n\r\nabc")
            assert (await wire.head()).startswith(b"HTTP/1.1 502 ")
    assert glance.requests == []


# -- as with any connection that can't be made


async def test_a_create_that_an_impostor_would_get_goes_to_another_endpoint_and_is_recorded_once(
    serve: Serve, glance: StandIn, impostor: StandIn, trusted: dict[str, Any]
) -> None:
    client = await serve(registries=[secured(impostor.url, glance.url, tls=trusted)])
    for n in range(4):
        assert (await client.create(f"a{n}", "alice", headers=INSTANCE)).status == 201
    assert not impostor.requests
    assert len(glance.images) == 4
    assert await client.in_doubt() == []
    assert len(await client.relations(f"nova_installation_uuid={EAST}&instance_id=123")) == 4


async def test_a_create_that_only_an_impostor_would_get_is_abandoned(
    serve: Serve, impostor: StandIn, trusted: dict[str, Any]
) -> None:
    client = await serve(registries=[secured(impostor.url, tls=trusted)])
    assert (await client.create("a", "alice", headers=INSTANCE)).status == 502
    assert await client.in_doubt() == []


async def test_health_checks_eject_an_impostor(
    serve: Serve, glance: StandIn, impostor: StandIn, trusted: dict[str, Any]
) -> None:
    client = await serve(
        registries=[
            secured(
                impostor.url, glance.url, tls=trusted, health_check={"interval_s": 0.02, "fall": 2}
            )
        ]
    )

    async def state() -> Any:
        ready = await client.get("/readyz", url=client.admin_url)
        return ready.json()["registries"]["glance"]["endpoints"]

    await eventually(state, {impostor.url: "down", glance.url: "well"})
    assert await client.metric(failures(impostor.url, "unknown_ca")) >= 2


async def test_the_time_to_connect_covers_the_handshake(
    serve: Serve, glance: StandIn, trusted: dict[str, Any]
) -> None:
    connected_to = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected_to.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        client = await serve(
            registries=[secured(url, glance.url, tls=trusted)],
            timeouts={"shutdown_s": 1, "connect_s": 0.2, "head_s": 600},
        )
        assert (await client.create("a", "alice", headers=INSTANCE)).status == 201
    assert connected_to.is_set()
    assert await client.in_doubt() == []


# -- where an answer ends

NONE = b'{"images": [], "first": "/v2/images", "schema": "/v2/schemas/images"}'
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + NONE


@pytest.mark.parametrize("target", ["/v2/images", "/v2/schemas/images"])
async def test_an_answer_without_a_length_is_whole_only_if_the_registry_says_so(
    serve: Serve, authority: Authority, trusted: dict[str, Any], target: str
) -> None:
    """Else anyone on the way could shorten it: the list would end where they like."""
    with peering(authority.context()) as peer:
        client = await serve(registries=[secured(peer.url, tls=trusted)])
        peer.answer = ENDLESS
        assert (await client.get(target, project="alice")).body == NONE
        peer.is_polite = False
        if target == "/v2/images":
            assert (await client.get(target, project="alice")).status == 502
        else:
            with pytest.raises(aiohttp.ClientPayloadError):
                await client.get(target, project="alice")


async def test_an_answer_without_a_length_whose_connection_is_reset_is_not_whole(
    serve: Serve, recorder: Recorder
) -> None:
    """Also without TLS, where nothing else would tell."""
    client = await serve(registries=[registry(recorder.url, "registry", upstream_identity="token")])
    recorder.at_head, recorder.answer = ENDLESS, b""
    async with connected(client.url) as wire:
        wire.writer.write(b"GET /v2/schemas/images HTTP/1.1\r\nHost: a\r\n\r\n")
        await wire.head()
        await wire.reader.readuntil(NONE)
        transport = recorder.writers[0].transport
        peer = transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        with contextlib.suppress(ConnectionError):
            # No last chunk.
            assert await wire.rest() == b"\r\n"


async def test_a_connection_that_is_given_up_is_closed_at_once(authority: Authority) -> None:
    """Not once the registry, which may hang, has agreed that it is over."""
    context = authority.context()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def begin() -> socket.socket:
            accepted, _ = listening.accept()
            connection = context.wrap_socket(accepted, server_side=True)
            assert connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nso far")
            # From here on it takes no notice of TLS.
            return socket.socket(fileno=connection.detach())

        loop = asyncio.get_running_loop()
        beginning = loop.run_in_executor(None, begin)
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        async with upstream_of(url, authority) as upstream:
            response = await upstream.send("GET", "/", Headers())
            with await beginning as peer:
                await response.aclose()
                peer.setblocking(False)
                with contextlib.suppress(ConnectionResetError):
                    async with asyncio.timeout(20):
                        assert await loop.sock_recv(peer, 1) == b""


async def test_what_a_registry_sends_unasked_is_no_answer_to_the_next_request(
    serve: Serve, authority: Authority, trusted: dict[str, Any]
) -> None:
    async with recording(authority.context()) as recorder:
        client = await serve(
            registries=[secured(recorder.url, tls=trusted, upstream_identity="token")]
        )
        recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * 2
        assert (await client.get("/v2/schemas/a")).body == b"ok"
        recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"
        assert (await client.get("/v2/schemas/b")).body == b"yes"
        assert recorder.connections == 2
        assert (await client.get("/v2/schemas/c")).body == b"yes"
        assert recorder.connections == 2


@asynccontextmanager
async def upstream_of(url: str, authority: Authority) -> AsyncIterator[Upstream]:
    endpoints = Endpoints((url,))
    endpoints.tls = tls_with(ca_file=authority.ca_file)
    async with open_session(Timeouts()) as session:
        yield Upstream("glance", endpoints, session, Metrics())


async def body_of(response: Response) -> bytes:
    assert not isinstance(response.body, bytes)
    body = b"".join([chunk async for chunk in response.body])
    await response.aclose()
    return body


class _Torn:
    """As that of test_uploads.py, over TLS."""

    is_empty, length, is_awaited = False, None, False

    def __init__(self, tls: ssl.SSLContext, listening: socket.socket) -> None:
        self._tls = tls
        self._listening = listening
        self._peer = asyncio.get_running_loop().run_in_executor(None, self._accept)

    def _accept(self) -> ssl.SSLSocket:
        accepted, _ = self._listening.accept()
        # Or what follows the tickets of TLS 1.3 waits, and is lost when the socket is closed.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._tls.wrap_socket(accepted, server_side=True)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield CHUNK
        # All at once, so that the loop can't read it before it writes.
        with await self._peer as peer:
            peer.sendall(answer(REFUSALS[3]))
        yield CHUNK
        yield CHUNK


async def test_an_answer_that_waits_to_be_read_when_writing_fails_is_read_over_tls(
    authority: Authority,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        async with upstream_of(url, authority) as upstream:
            torn = _Torn(authority.context(), listening)
            response = await upstream.send("PUT", "/", Headers(), torn)
            assert response.head.status == 413
            assert await body_of(response) == b"no"


async def test_a_client_is_told_to_go_on_when_the_registry_says_so_over_tls(
    serve: Serve, authority: Authority, trusted: dict[str, Any]
) -> None:
    async with recording(authority.context()) as recorder:
        client = await serve(
            registries=[secured(recorder.url, tls=trusted, upstream_identity="token")],
            forwarding={"via": None, "header": "none", "expect_continue_s": 600},
        )
        async with connected(client.url) as wire:
            wire.writer.write(EXPECTS)
            await recorder.has_got(b"\r\n\r\n")
            recorder.writers[0].write(CONTINUE)
            assert await wire.head() == CONTINUE
            wire.writer.write(b"abc")
            assert (await wire.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert recorder.wires[0].endswith(b"\r\n\r\nabc")


async def test_one_log_line_tells_that_tls_fails_until_it_fails_otherwise_or_no_more(
    serve: Serve,
    authority: Authority,
    stranger: Authority,
    trusted: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with peering(stranger.context()) as peer:
        peer.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        client = await serve(registries=[secured(peer.url, tls=trusted)])
        statuses = []
        for issuer in (stranger, stranger, authority, stranger):
            peer.context = issuer.context()
            statuses.append((await client.get("/v2/schemas/a")).status)
        assert statuses == [502, 502, 200, 502]
    assert [line["reason"] for line in told(caplog, "endpoint fails TLS")] == ["unknown_ca"] * 2
