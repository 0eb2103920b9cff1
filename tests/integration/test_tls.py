"""TLS on the listeners: who proves what to whom, and what comes of those who prove nothing."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import glanceclient
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.stand_in import StandIn
from relproxy.config_identity import TrustedSources
from tests.announcements import LOCAL, UNSPECIFIED, v1, v2, v2_of
from tests.authority import NOVA, Authority, fingerprint
from tests.integration.conftest import EAST, Client, Serve, eventually, registry
from tests.integration.recorder import Recorder

REFUSED = 'relproxy_connections_refused_total{listener="public",reason="%s"}'
TUPLE = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "i-1"}
UUID_URI = x509.UniformResourceIdentifier("spiffe://example.org/nova/Compute")


def listening(tls: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    return [{"name": "public", "bind": "127.0.0.1:0", "tls": tls, **settings}]


def https(client: Client) -> str:
    return client.url.replace("http:", "https:")


def port_of(client: Client) -> int:
    return int(client.url.rpartition(":")[2])


async def served(serve: Serve, recorder: Recorder, tls: dict[str, Any], **settings: Any) -> Client:
    upstream = registry(recorder.url, "registry", upstream_identity="token")
    listeners = listening(tls, **settings.pop("listener", {}))
    settings.setdefault("timeouts", {"shutdown_s": 1, "read_s": 20})
    return await serve(registries=[upstream], listeners=listeners, **settings)


# -- what a listener proves, and speaks


async def test_a_listener_proves_who_it_is(
    serve: Serve, recorder: Recorder, authority: Authority, stranger: Authority
) -> None:
    client = await served(serve, recorder, authority.server())
    answer = await client.get("/v2/schemas/image", url=https(client), ssl=authority.trusting())
    assert answer.status == 200
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await client.get("/v2/schemas/image", url=https(client), ssl=stranger.trusting())


async def test_a_registry_is_told_that_the_way_to_relproxy_was_encrypted(
    serve: Serve, recorder: Recorder, authority: Authority
) -> None:
    for header in ("x-forwarded", "forwarded"):
        client = await served(
            serve, recorder, authority.server(), forwarding={"via": None, "header": header}
        )
        forged = {"X-Forwarded-Proto": "http", "Forwarded": "proto=http"}
        await client.get(
            "/v2/schemas/image", url=https(client), ssl=authority.trusting(), headers=forged
        )
        said = recorder.head.lower()
        assert (b"x-forwarded-proto: https" in said) is (header == "x-forwarded")
        assert (b"proto=https" in said) is (header == "forwarded")
        assert b"proto: http\r" not in said
        assert b"proto=http;" not in said


@pytest.mark.parametrize(
    ("minimum", "spoken", "is_taken"),
    [
        pytest.param("1.2", ssl.TLSVersion.TLSv1_2, True, id="1.2 where 1.2 is enough"),
        pytest.param("1.2", ssl.TLSVersion.TLSv1_3, True, id="1.3 where 1.2 is enough"),
        pytest.param("1.3", ssl.TLSVersion.TLSv1_2, False, id="1.2 where 1.3 is needed"),
        pytest.param("1.3", ssl.TLSVersion.TLSv1_3, True, id="1.3 where 1.3 is needed"),
    ],
)
async def test_an_older_tls_than_the_minimum_is_not_spoken(
    serve: Serve,
    recorder: Recorder,
    authority: Authority,
    minimum: str,
    spoken: ssl.TLSVersion,
    *,
    is_taken: bool,
) -> None:
    client = await served(serve, recorder, authority.server(minimum_version=minimum))
    context = authority.trusting()
    context.minimum_version = context.maximum_version = spoken
    if is_taken:
        assert (await client.get("/v2/schemas/image", url=https(client), ssl=context)).status == 200
        return
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.get("/v2/schemas/image", url=https(client), ssl=context)
    assert await client.metric(REFUSED % "tls") == 1


async def test_http_1_is_all_that_is_agreed_on(
    serve: Serve, recorder: Recorder, authority: Authority
) -> None:
    client = await served(serve, recorder, authority.server())
    context = authority.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", port_of(client), ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    writer.transport.abort()


# -- those who don't


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX-Auth-Token: secret\r\n\r\n", id="plain HTTP"),
        pytest.param(bytes(range(256)) * 1000, id="rubbish"),
        pytest.param(b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000, id="rubbish that begins like TLS"),
    ],
)
async def test_who_speaks_no_tls_is_closed_and_counted_and_costs_one_line(
    serve: Serve,
    recorder: Recorder,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    sent: bytes,
) -> None:
    caplog.set_level(logging.INFO)
    client = await served(serve, recorder, authority.server())
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
    with suppress(ConnectionError):
        writer.write(sent)
        await reader.read()
    writer.transport.abort()
    await eventually(lambda: client.metric(REFUSED % "tls"), 1.0)
    (line,) = [r for r in caplog.records if r.message == "handshake failed"]
    assert line.levelno == logging.INFO
    assert "secret" not in str(vars(line))
    assert not [r for r in caplog.records if r.levelno > logging.INFO or r.exc_info]
    assert recorder.received == []


async def test_who_only_looks_whether_the_port_is_open_is_not_counted(
    serve: Serve, recorder: Recorder, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = await served(serve, recorder, authority.server())
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        writer.close()
        await writer.wait_closed()
    answer = await client.get("/v2/schemas/image", url=https(client), ssl=authority.trusting())
    assert answer.status == 200
    assert await client.metric("relproxy_connections_refused_total") == 0
    assert not [r for r in caplog.records if r.message == "handshake failed"]


@pytest.mark.parametrize(
    "sent", [pytest.param(b"", id="nothing"), pytest.param(b"\x16\x03\x01", id="a beginning")]
)
async def test_who_takes_too_long_for_a_handshake_is_closed(
    serve: Serve, recorder: Recorder, authority: Authority, sent: bytes
) -> None:
    client = await served(
        serve, recorder, authority.server(), timeouts={"shutdown_s": 1, "tls_handshake_s": 0.1}
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
    writer.write(sent)
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.transport.abort()
    await eventually(lambda: client.metric(REFUSED % "tls_timeout"), 1.0)


# -- who vouches by a certificate


async def grade(client: Client, context: ssl.SSLContext, **headers: str) -> str | None:
    """Return how a create's instance is recorded, sent with metadata headers; None if it isn't."""
    sent = TUPLE | headers
    answer = await client.create("a", "alice", url=https(client), ssl=context, headers=sent)
    assert answer.status == 201, answer.body
    relations = await client.relations("project=alice")
    (found,) = [each for each in relations if each["image_id"] == answer.json()["id"]]
    graded: str | None = found["grade"] if found["instance_id"] else None
    return graded


async def trusting_relproxy(
    serve: Serve, noauth: StandIn, tls: dict[str, Any], *names: str, **settings: Any
) -> Client:
    return await serve(
        registries=[registry(noauth.url, "relproxy")],
        listeners=listening(tls, **settings.pop("listener", {})),
        **{"trusted_sources": {"certificates": names or ["dns:nova.example.org"]}, **settings},
    )


@pytest.mark.parametrize(
    ("names", "trusted", "is_vouched"),
    [
        pytest.param([NOVA], "dns:nova.example.org", True, id="its name"),
        pytest.param([x509.DNSName("NOVA.Example.ORG")], "dns:nova.example.org", True, id="case"),
        pytest.param([NOVA], "dns:Nova.Example.org", True, id="case of the setting"),
        pytest.param([x509.DNSName("b.example.org"), NOVA], "dns:nova.example.org", True, id="two"),
        pytest.param([UUID_URI], f"uri:{UUID_URI.value}", True, id="a URI"),
        pytest.param([UUID_URI], f"uri:{UUID_URI.value.lower()}", False, id="a URI's case"),
        pytest.param([x509.DNSName("b.example.org")], "dns:nova.example.org", False, id="another"),
        pytest.param([x509.DNSName("*.example.org")], "dns:nova.example.org", False, id="wildcard"),
        pytest.param(
            [x509.DNSName("nova.example.org\0.evil.example")],
            "dns:nova.example.org",
            False,
            id="a NUL behind it",
        ),
        pytest.param(
            [x509.DNSName("xnova.example.org")], "dns:nova.example.org", False, id="a longer name"
        ),
        pytest.param(
            [x509.RFC822Name("nova.example.org")], "dns:nova.example.org", False, id="an address"
        ),
        pytest.param(
            [x509.UniformResourceIdentifier("dns:nova.example.org")],
            "dns:nova.example.org",
            False,
            id="a URI that looks like a name",
        ),
        pytest.param([], "dns:nova.example.org", False, id="only as its common name"),
    ],
)
async def test_a_certificate_vouches_by_its_whole_name(
    serve: Serve,
    noauth: StandIn,
    authority: Authority,
    names: list[x509.GeneralName],
    trusted: str,
    *,
    is_vouched: bool,
) -> None:
    (trusted,) = TrustedSources(certificates=(trusted,)).certificates
    client = await trusting_relproxy(serve, noauth, authority.asking("optional"), trusted)
    file = authority.client_file(*names, common_name="nova.example.org")
    assert await grade(client, authority.trusting(file)) == ("vouched" if is_vouched else None)


async def test_a_certificate_vouches_by_its_fingerprint(
    serve: Serve, noauth: StandIn, authority: Authority
) -> None:
    pinned, other = authority.client_file(NOVA), authority.client_file(NOVA)
    client = await trusting_relproxy(
        serve, noauth, authority.asking("optional"), fingerprint(pinned)
    )
    assert await grade(client, authority.trusting(pinned)) == "vouched"
    assert await grade(client, authority.trusting(other)) is None


async def test_without_a_certificate_nobody_vouches_whatever_headers_say(
    serve: Serve, noauth: StandIn, authority: Authority
) -> None:
    client = await trusting_relproxy(serve, noauth, authority.asking("optional"))
    forged = {
        "X-SSL-Client-Verify": "SUCCESS",
        "X-SSL-Client-S-DN": "CN=nova.example.org",
        "X-Forwarded-Client-Cert": "DNS=nova.example.org",
        "Client-Cert": ":AAAA:",
    }
    assert await grade(client, authority.trusting(), **forged) is None


async def test_a_listener_without_tls_beside_one_with_it_believes_no_certificate(
    serve: Serve, noauth: StandIn, authority: Authority
) -> None:
    both = [*listening(authority.asking("optional")), {"name": "plain", "bind": "127.0.0.1:0"}]
    client = await serve(
        registries=[registry(noauth.url, "relproxy")],
        listeners=both,
        trusted_sources={"certificates": ["dns:nova.example.org"]},
    )
    nova = authority.trusting(authority.client_file(NOVA))
    assert await grade(client, nova) == "vouched"
    answer = await client.create("a", "alice", url=client.urls["plain"], headers=TUPLE, ssl=nova)
    assert answer.status == 201
    assert len([r for r in await client.relations("project=alice") if r["instance_id"]]) == 1


async def test_a_name_counts_for_each_request_of_its_own_connection_only(
    serve: Serve, noauth: StandIn, authority: Authority
) -> None:
    client = await trusting_relproxy(serve, noauth, authority.asking("optional"))
    nova, nobody = authority.trusting(authority.client_file(NOVA)), authority.trusting()
    for _ in range(2):
        assert await grade(client, nova) == "vouched"
        assert await grade(client, nobody) is None


@pytest.mark.parametrize("how", ["optional", "required"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("wrong", ["of another authority", "expired", "for servers"])
async def test_a_certificate_that_does_not_hold_ends_the_connection(
    serve: Serve,
    noauth: StandIn,
    authority: Authority,
    stranger: Authority,
    how: str,
    version: ssl.TLSVersion,
    wrong: str,
) -> None:
    file = {
        "of another authority": lambda: stranger.client_file(NOVA),
        "expired": lambda: authority.client_file(NOVA, ends=timedelta(seconds=-1)),
        "for servers": lambda: authority.client_file(NOVA, usage=ExtendedKeyUsageOID.SERVER_AUTH),
    }[wrong]()
    client = await trusting_relproxy(serve, noauth, authority.asking(how))
    context = authority.trusting(file)
    context.minimum_version = context.maximum_version = version
    with pytest.raises(aiohttp.ClientConnectionError):
        await grade(client, context)
    assert await client.metric(REFUSED % "tls") >= 1
    assert await client.relations("project=alice") == []


async def test_where_a_certificate_is_required_nobody_comes_without(
    serve: Serve, noauth: StandIn, authority: Authority
) -> None:
    client = await trusting_relproxy(serve, noauth, authority.asking("required"))
    with pytest.raises(aiohttp.ClientConnectionError):
        await grade(client, authority.trusting())
    assert await grade(client, authority.trusting(authority.client_file(NOVA))) == "vouched"


async def test_an_intermediate_authority_vouches_without_its_root(
    serve: Serve, noauth: StandIn, authority: Authority, tmp_path: Path
) -> None:
    novas, others = (Authority(tmp_path, authority.ca.create_child_ca()) for _ in range(2))
    tls = authority.asking("required") | {"client_ca_file": str(novas.ca_file)}
    client = await trusting_relproxy(serve, noauth, tls)
    assert await grade(client, authority.trusting(novas.client_file(NOVA))) == "vouched"
    for other in (others, authority):
        with pytest.raises(aiohttp.ClientConnectionError):
            await grade(client, authority.trusting(other.client_file(NOVA)))


async def test_a_resumed_session_is_worth_no_more_than_its_certificate(
    serve: Serve, recorder: Recorder, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await served(serve, recorder, authority.asking("optional"))
    context = authority.trusting(authority.client_file(NOVA, ends=timedelta(days=1)))
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def ask(session: ssl.SSLSession | None, held: list[ssl.SSLSocket]) -> bytes:
        plain = socket.create_connection(("127.0.0.1", port_of(client)))
        made = context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)
        held.append(made)
        with suppress(ConnectionError):
            made.sendall(b"GET /v2/schemas/image HTTP/1.1\r\nHost: a\r\n\r\n")
            return made.recv(4096)
        return b""

    held: list[ssl.SSLSocket] = []
    # It stays open: one that is cut off ends its session.
    assert (await asyncio.to_thread(ask, None, held)).startswith(b"HTTP/1.1 200")
    session = held[0].session
    assert (await asyncio.to_thread(ask, session, held)).startswith(b"HTTP/1.1 200")
    assert held[1].session_reused
    later = time.time() + timedelta(days=2).total_seconds()
    monkeypatch.setattr("relproxy.arrival.time.time", lambda: later)
    assert await asyncio.to_thread(ask, session, held) == b""
    monkeypatch.undo()
    assert await client.metric(REFUSED % "tls") == 1
    for each in held:
        each.close()


async def test_a_session_is_resumed_without_tickets_only(
    serve: Serve, recorder: Recorder, authority: Authority
) -> None:
    client = await served(serve, recorder, authority.asking("optional"))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = authority.trusting(authority.client_file(NOVA))
        context.minimum_version = context.maximum_version = version
        assert await asyncio.to_thread(_is_resumed, context, port_of(client)) is False
    client = await served(serve, recorder, authority.server("other"))
    assert await asyncio.to_thread(_is_resumed, authority.trusting(), port_of(client)) is True


def _is_resumed(context: ssl.SSLContext, port: int) -> bool | None:
    session: ssl.SSLSession | None = None
    for _ in range(2):
        plain = socket.create_connection(("127.0.0.1", port))
        with closing(
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)
        ) as wrapped:
            wrapped.sendall(b"GET /v2/schemas/image HTTP/1.1\r\nHost: a\r\n\r\n")
            wrapped.recv(4096)
            session = wrapped.session
            reused = wrapped.session_reused
    return reused


# -- behind fronts


async def announced(
    client: Client, header: bytes, context: ssl.SSLContext, request: bytes
) -> bytes:
    """Send a PROXY protocol header, then TLS on the same connection; return what comes."""

    def exchange() -> bytes:
        with socket.create_connection(("127.0.0.1", port_of(client))) as plain:
            plain.sendall(header)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
                wrapped.sendall(request)
                return b"".join(iter(lambda: wrapped.recv(65536), b""))

    return await asyncio.to_thread(exchange)


def raw_create(*fields: str) -> bytes:
    lines = [*fields, *(f"{n}: {v}" for n, v in TUPLE.items()), "Host: a", "Connection: close"]
    head = "POST /v2/images HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in lines)
    return f"{head}X-Project-Id: alice\r\nContent-Length: 12\r\n\r\n".encode() + b'{"name":"a"}'


FRONTED: dict[str, Any] = {
    "fronts": {"networks": ["127.0.0.1/32"]},
    "identity": {"trusted_networks": ["198.51.100.0/24", "127.0.0.0/8"]},
    "listener": {"proxy_protocol": True},
}


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(v1("198.51.100.7"), id="version 1"),
        pytest.param(v2("198.51.100.7", tlvs=bytes(100)), id="version 2"),
    ],
)
async def test_behind_a_front_that_passes_tls_on_the_client_itself_vouches(
    serve: Serve, noauth: StandIn, authority: Authority, header: bytes
) -> None:
    client = await trusting_relproxy(serve, noauth, authority.asking("optional"), **FRONTED)
    nova = authority.trusting(authority.client_file(NOVA))
    assert b" 201 " in await announced(client, header, nova, raw_create())
    (found,) = await client.relations("project=alice")
    assert found["grade"] == "vouched"
    assert b" 201 " in await announced(client, header, authority.trusting(), raw_create())
    assert len([r for r in await client.relations("project=alice") if r["instance_id"]]) == 1


async def test_a_header_behind_the_handshake_is_no_announcement(
    serve: Serve, noauth: StandIn, authority: Authority
) -> None:
    client = await trusting_relproxy(serve, noauth, authority.server(), **FRONTED)
    # Within TLS it would be the client's own word.
    with pytest.raises((OSError, ssl.SSLError)):
        await announced(client, b"", authority.trusting(), v1("198.51.100.7") + raw_create())
    assert await client.metric(REFUSED % "malformed") == 1


async def test_a_front_vouches_for_nobody_by_its_own_certificate(
    serve: Serve, noauth: StandIn, authority: Authority
) -> None:
    settings: dict[str, Any] = {
        "identity": FRONTED["identity"],
        "fronts": {"networks": ["127.0.0.1/32"], "header": "x-forwarded-for"},
    }
    client = await trusting_relproxy(serve, noauth, authority.asking("optional"), **settings)
    front = authority.trusting(authority.client_file(NOVA))
    assert await grade(client, front, **{"X-Forwarded-For": "198.51.100.7"}) is None
    assert await grade(client, front) is None

    announcing = await trusting_relproxy(serve, noauth, authority.asking("optional"), **FRONTED)
    await announced(announcing, v2_of(LOCAL, UNSPECIFIED), front, raw_create())
    assert [r["instance_id"] for r in await announcing.relations("project=alice")] == [None]


# -- what TLS must not change


async def test_glanceclient_works_over_tls(
    serve: Serve, noauth: StandIn, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For requests the environment's authorities would go before its caller's.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    client = await serve(
        registries=[registry(noauth.url, "relproxy")],
        listeners=listening(authority.asking("optional")),
    )
    identity = {"X-Project-Id": "alice", "X-Roles": "member", "X-User-Id": "a"}

    def story() -> tuple[list[str], bytes]:
        glance = glanceclient.Client(
            endpoint=f"{https(client)}/v2",
            identity_headers=identity,
            token="t",
            cacert=str(authority.ca_file),
            cert_file=str(authority.client_file(NOVA)),
        )
        for number in range(5):
            made = glance.images.create(name=f"image-{number}")
        glance.images.upload(made.id, io.BytesIO(b"data" * 1000))
        data = b"".join(glance.images.data(made.id))
        return [image.name for image in glance.images.list(page_size=2)], data

    names, data = await asyncio.to_thread(story)
    assert sorted(names) == [f"image-{number}" for number in range(5)]
    assert data


async def test_uploads_and_downloads_pass_with_backpressure(
    serve: Serve, noauth: StandIn, authority: Authority
) -> None:
    client = await serve(
        registries=[registry(noauth.url, "relproxy")], listeners=listening(authority.server())
    )
    context, data = authority.trusting(), bytes(range(256)) * 40_000
    noauth.blob_size = len(data)
    made = await client.create("a", "alice", url=https(client), ssl=context)
    target = f"/v2/images/{made.json()['id']}/file"
    options: dict[str, Any] = {"project": "alice", "url": https(client), "ssl": context}
    stored = await client.call(
        "PUT",
        target,
        data=io.BytesIO(data),
        headers={"Content-Type": "application/octet-stream", "Expect": "100-continue"},
        **options,
    )
    assert stored.status == 204
    (upload,) = [each for each in noauth.requests if each.method == "PUT"]
    assert upload.sha256 == hashlib.sha256(data).hexdigest()
    over_tls = await client.get(target, **options)
    assert len(over_tls.body) == len(data)
    assert over_tls.body == (await client.get(target, project="alice", url=noauth.url)).body


async def test_an_answer_over_tls_reaches_a_client_that_is_still_sending(
    serve: Serve, recorder: Recorder, authority: Authority
) -> None:
    client = await served(serve, recorder, authority.server())
    recorder.at_head = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port_of(client), ssl=authority.trusting()
    )
    head = f"PUT /v2/images/{EAST}/file HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"
    writer.write(head.encode() + b"x" * 10_000)
    answer = await reader.readuntil(b"no!")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in answer
    writer.transport.abort()


async def test_an_answer_that_nobody_takes_is_cut_off(
    serve: Serve, recorder: Recorder, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + bytes(20_000_000)
    client = await served(
        serve, recorder, authority.server(), timeouts={"shutdown_s": 1, "write_s": 0.2}
    )
    async with reading_nothing(client, authority.trusting()):
        await eventually(lambda: said(caplog, "client takes nothing"), 1)
    (line,) = [r for r in caplog.records if r.message == "client takes nothing"]
    assert 0 < line.__dict__["held_bytes"] < 2**20


@asynccontextmanager
async def reading_nothing(client: Client, context: ssl.SSLContext) -> AsyncIterator[None]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client), ssl=context)
    # It takes twice its limit before it stops reading: `reader` is never read.
    assert not reader.at_eof()
    writer.write(b"GET /v2/schemas/image HTTP/1.1\r\nHost: a\r\n\r\n")
    try:
        yield
    finally:
        writer.transport.abort()


async def said(caplog: pytest.LogCaptureFixture, event: str) -> int:
    return len([r for r in caplog.records if r.message == event])
