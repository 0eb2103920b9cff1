"""Listeners that are Unix sockets: whom a request from one comes from, and who may say so."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.stand_in import StandIn
from relproxy.config import Configuration
from relproxy.config_warnings import warnings
from tests.announcements import LOCAL, UNIX_STREAM, UNSPECIFIED, v1, v2, v2_of
from tests.authority import NOVA as NOVA_NAME
from tests.authority import Authority
from tests.integration.conftest import Client, Serve, registry
from tests.integration.test_source import CUSTOMER, NOVA, create
from tests.integration.test_tls import raw_create

# Whoever is somewhere is trusted: who is nowhere known must not be.
ANYWHERE = ["0.0.0.0/0", "::/0"]
TRUST: dict[str, Any] = {
    "identity": {"trusted_networks": ANYWHERE},
    "trusted_sources": {"networks": ["192.0.2.32/28"]},
}


async def listening(
    serve: Serve, noauth: StandIn, path: Path, *, fronts: dict[str, Any], **listener: Any
) -> Client:
    return await serve(
        registries=[registry(noauth.url, "relproxy")],
        listeners=[{"name": "public", "bind": f"unix:{path}", **listener}],
        **TRUST,
        fronts=fronts,
    )


async def answer(path: Path, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(sent)
    received = await reader.read()
    writer.close()
    return received


async def status(path: Path, sent: bytes) -> int:
    received = await answer(path, sent)
    return int(received.split(b" ")[1]) if received else 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


FORGED = [
    pytest.param(("X-Forwarded-For", NOVA), id="X-Forwarded-For"),
    pytest.param(("Forwarded", f"for={NOVA}"), id="Forwarded"),
    pytest.param(("X-Real-IP", NOVA), id="X-Real-IP"),
]


@pytest.mark.parametrize("header", FORGED)
@pytest.mark.parametrize("spoken", ["none", "x-forwarded-for"])
async def test_who_connects_to_a_socket_comes_from_nowhere_and_says_nothing(
    serve: Serve, noauth: StandIn, path: Path, header: tuple[str, str], spoken: str
) -> None:
    fronts = {"networks": ANYWHERE, "header": spoken}
    client = await listening(serve, noauth, path, fronts=fronts)
    # Nowhere is in no network: nobody vouches for the caller.
    assert await status(path, create("i-1", header)) == 401
    assert await client.relations("project=alice") == []


async def test_a_front_on_a_socket_says_whom_it_passes_on(
    serve: Serve, noauth: StandIn, path: Path
) -> None:
    client = await listening(
        serve, noauth, path, fronts={"header": "x-forwarded-for"}, fronted=True
    )
    assert await status(path, create("i-1", ("X-Forwarded-For", NOVA))) == 201
    assert await status(path, create("i-2", ("X-Forwarded-For", CUSTOMER))) == 201
    # What a client forged stands to the left of what the front has added.
    assert await status(path, create("i-3", ("X-Forwarded-For", f"{NOVA}, {CUSTOMER}"))) == 201
    assert await status(path, create("i-4", ("Forwarded", f"for={NOVA}"))) == 401
    assert await status(path, create("i-5", ("X_Forwarded_For", NOVA))) == 400
    assert await status(path, create("i-6", ("X-Forwarded-For", "unix:"))) == 401
    assert await status(path, create("i-7")) == 401
    relations = await client.relations("project=alice")
    assert [each["instance_id"] for each in relations if each["instance_id"]] == ["i-1"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(v1(NOVA), 201, id="version 1"),
        pytest.param(v2(NOVA), 201, id="version 2"),
        pytest.param(v2_of(0x21, UNIX_STREAM, bytes(216)), 401, id="relayed from a Unix socket"),
        pytest.param(v2_of(LOCAL, UNSPECIFIED), 401, id="the front's own"),
        pytest.param(b"PROXY UNKNOWN\r\n", 401, id="version 1, unknown"),
        pytest.param(b"", 0, id="none"),
    ],
)
async def test_a_front_on_a_socket_announces_whom_it_relays(
    serve: Serve, noauth: StandIn, path: Path, header: bytes, expected: int
) -> None:
    await listening(serve, noauth, path, fronts={}, fronted=True, proxy_protocol=True)
    assert await status(path, header + create("i-1")) == expected


async def test_a_header_of_a_client_that_a_front_relays_is_not_believed(
    serve: Serve, noauth: StandIn, path: Path
) -> None:
    fronts = {"header": "x-forwarded-for"}
    client = await listening(serve, noauth, path, fronts=fronts, fronted=True, proxy_protocol=True)
    forged = create("i-1", ("X-Forwarded-For", NOVA))
    assert await status(path, v1(CUSTOMER) + forged) == 201
    assert await status(path, v2_of(0x21, UNIX_STREAM, bytes(216)) + forged) == 401
    (record,) = await client.relations("project=alice")
    assert record["instance_id"] is None


async def test_who_is_no_front_announces_nothing_on_a_socket(
    serve: Serve, noauth: StandIn, path: Path
) -> None:
    client = await listening(
        serve, noauth, path, fronts={"networks": ANYWHERE}, proxy_protocol=True
    )
    with suppress(ConnectionError):
        assert await status(path, v1(NOVA) + create("i-1")) == 0
    assert await client.metric("relproxy_connections_refused_total{") == 1


async def test_a_front_vouches_for_nobody_by_its_certificate_on_a_socket(
    serve: Serve, noauth: StandIn, path: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    for fronted in (True, False):
        client = await serve(
            registries=[registry(noauth.url, "relproxy")],
            listeners=[
                {
                    "name": "public",
                    "bind": f"unix:{path}",
                    "fronted": fronted,
                    "tls": authority.asking("optional"),
                }
            ],
            trusted_sources={"certificates": ["dns:nova.example.org"]},
            fronts={"header": "x-forwarded-for"} if fronted else {},
            # Its journal says what was captured, though nobody may list it.
            identity={"trusted_networks": ["198.51.100.0/24"]},
        )
        reader, writer = await asyncio.open_unix_connection(
            str(path),
            ssl=authority.trusting(authority.client_file(NOVA_NAME)),
            server_hostname="127.0.0.1",
        )
        writer.write(raw_create(f"X-Forwarded-For: {CUSTOMER}"))
        received = await reader.read()
        writer.close()
        if fronted:
            assert b" 201 " in received
            (record,) = await client.relations("project=alice")
            assert record["instance_id"] is None
        else:
            # The header says nothing here: its source is unknown, its certificate its own.
            assert b" 401 " in received
        await client.stop()
        assert not await asyncio.to_thread(path.exists)


async def test_a_registry_is_told_that_the_sender_is_unknown(
    serve: Serve, noauth: StandIn, path: Path
) -> None:
    await serve(
        registries=[registry(noauth.url, "relproxy")],
        listeners=[{"name": "public", "bind": f"unix:{path}", "fronted": True}],
        **TRUST,
        fronts={"header": "x-forwarded-for"},
        forwarding={"via": None, "header": "x-forwarded"},
    )
    assert await status(path, create("i-1", ("X-Forwarded-For", CUSTOMER))) == 201
    sent = dict(noauth.requests[-1].headers)
    assert sent[b"X-Forwarded-For"] == f"{CUSTOMER}, unknown".encode()


async def test_the_admin_listener_answers_on_a_socket(
    serve: Serve, noauth: StandIn, path: Path
) -> None:
    await serve(registries=[registry(noauth.url, "relproxy")], admin={"bind": f"unix:{path}"})
    asked = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    for target in (b"/", b"/healthz", b"/metrics", b"/v1/overview"):
        assert await status(path, asked % target) == 200


def test_fronts_without_a_way_to_say_anything_are_warned_of() -> None:
    whole = {
        "listeners": [{"name": "public", "bind": "unix:/s", "fronted": True}],
        "store": {"path": "/r.db"},
        "registries": [registry("http://127.0.0.1:1", "relproxy", upstream_identity="token")],
        "routes": [{"name": "all", "registry": "glance"}],
    }
    said = [*warnings(Configuration.model_validate(whole))]
    assert any("nor has fronted" in warning for warning in said)
