"""The admin listener behind TLS: who may ask for what by a certificate."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from cryptography import x509

from lab.stand_in import StandIn
from tests.authority import Authority
from tests.integration.conftest import Client, Serve, registry

SECRET = "0123456789abcdef0123456789abcdef"
DASHBOARD = x509.DNSName("dashboard.example.org")
SCRAPER = x509.DNSName("prometheus.example.org")
PROBES = {"/", "/healthz", "/readyz"}
EVERYTHING = {*PROBES, "/metrics", "/v1/relations?project=alice", "/v1/journal", "/v1/overview"}


async def serving(
    serve: Serve, noauth: StandIn, tls: dict[str, Any], tokens: Path | None = None
) -> Client:
    # Any address, so that a start without a guard would be refused.
    admin = {"bind": "0.0.0.0:0", "tls": tls, "tokens_file": tokens}
    return await serve(registries=[registry(noauth.url, "relproxy")], admin=admin)


async def allowed(client: Client, context: ssl.SSLContext, **headers: str) -> set[str]:
    """Return what is answered; each on a connection of its own."""
    url = client.admin_url.replace("http://0.0.0.0", "https://127.0.0.1")
    found = set()
    for target in EVERYTHING:
        async with (
            aiohttp.ClientSession() as session,
            session.get(url + target, ssl=context, headers=headers) as answered,
        ):
            assert answered.status in {200, 401, 403}
            found |= {target} if answered.status == 200 else set()
    return found


async def test_a_certificate_lets_in_where_there_are_no_tokens(
    serve: Serve, noauth: StandIn, authority: Authority, tmp_path: Path
) -> None:
    client = await serving(serve, noauth, authority.asking("optional"))
    somebody = authority.trusting(authority.client_file(DASHBOARD))
    assert await allowed(client, somebody) == EVERYTHING
    assert await allowed(client, authority.trusting()) == PROBES
    assert await allowed(client, authority.trusting(), Authorization=f"Bearer {SECRET}") == PROBES
    stranger = authority.trusting(Authority(tmp_path).client_file(DASHBOARD))
    with pytest.raises(aiohttp.ClientConnectionError):
        await allowed(client, stranger)


async def test_nobody_connects_without_a_certificate_where_one_is_required(
    serve: Serve, noauth: StandIn, authority: Authority
) -> None:
    client = await serving(serve, noauth, authority.asking("required"))
    with pytest.raises(aiohttp.ClientConnectionError):
        await allowed(client, authority.trusting())
    known = authority.trusting(authority.client_file(DASHBOARD))
    assert await allowed(client, known) == EVERYTHING


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.yaml"
    entries = [
        {"name": "dashboard", "certificate": "dns:dashboard.example.org", "scope": "all"},
        {"name": "prometheus", "certificate": "dns:prometheus.example.org", "scope": "metrics"},
        {"name": "operator", "token": SECRET, "scope": "all"},
    ]
    file.write_text(yaml.safe_dump(entries))
    return file


async def test_a_file_of_tokens_says_what_a_certificate_is_for(
    serve: Serve, noauth: StandIn, authority: Authority, tokens: Path
) -> None:
    client = await serving(serve, noauth, authority.asking("optional"), tokens)
    by = {
        name.value: authority.trusting(authority.client_file(name))
        for name in (DASHBOARD, SCRAPER, x509.DNSName("other.example.org"))
    }
    assert await allowed(client, by["dashboard.example.org"]) == EVERYTHING
    assert await allowed(client, by["prometheus.example.org"]) == {*PROBES, "/metrics"}
    assert await allowed(client, by["other.example.org"]) == PROBES
    operator = {"Authorization": f"Bearer {SECRET}"}
    assert await allowed(client, authority.trusting(), **operator) == EVERYTHING
    assert await allowed(client, by["prometheus.example.org"], **operator) == EVERYTHING
    # A token that was shown is judged: no certificate makes good for a wrong one.
    wrong = {"Authorization": f"Bearer {SECRET[::-1]}"}
    assert await allowed(client, by["dashboard.example.org"], **wrong) == PROBES


async def test_an_entry_that_was_taken_out_counts_no_more_on_a_connection_that_is_there(
    serve: Serve, noauth: StandIn, authority: Authority, tokens: Path
) -> None:
    client = await serving(serve, noauth, authority.asking("optional"), tokens)
    context = authority.trusting(authority.client_file(DASHBOARD))
    url = client.admin_url.replace("http://0.0.0.0", "https://127.0.0.1") + "/v1/journal"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        async with session.get(url, ssl=context) as answered:
            assert answered.status == 200
        left = [{"name": "operator", "token": SECRET, "scope": "all"}]
        await asyncio.to_thread(tokens.write_text, yaml.safe_dump(left))
        async with session.get(url, ssl=context) as answered:
            assert answered.status == 401


async def test_tls_alone_protects_tokens_and_asks_nobody_for_a_certificate(
    serve: Serve, noauth: StandIn, authority: Authority, tokens: Path
) -> None:
    client = await serving(serve, noauth, authority.server(), tokens)
    mine = authority.trusting(authority.client_file(DASHBOARD))
    assert await allowed(client, mine) == PROBES
    assert await allowed(client, mine, Authorization=f"Bearer {SECRET}") == EVERYTHING


async def test_who_speaks_no_tls_to_the_admin_listener_is_closed(
    serve: Serve, noauth: StandIn, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = await serving(serve, noauth, authority.asking("required"))
    url = client.admin_url.replace("0.0.0.0", "127.0.0.1")
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get("/v1/journal", url=url)
    # aiohttp's client has tried twice.
    lines = [r.__dict__ for r in caplog.records if r.message == "handshake failed"]
    assert {(each["listener"], each["cause"]) for each in lines} == {("(admin)", "HTTP_REQUEST")}
