"""Keystone over TLS: for the tokens of callers, and for relproxy's own log-ins."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.stand_in import StandIn
from lab.stand_in_keystone import PASSWORD, StandInKeystone
from relproxy.config_identity import Credentials
from relproxy.errors import KeystoneUnavailableError
from relproxy.keystone import KeystoneApi, KeystoneLogin, open_keystone_session
from tests.authority import Authority, tls_with
from tests.integration.conftest import EAST, Serve, eventually, registry
from tests.integration.tls_peer import peering

INSTANCE = {"X-Nova-Installation-UUID": EAST, "X-Nova-Instance-ID": "123"}


@asynccontextmanager
async def speaking(tls: ssl.SSLContext) -> AsyncIterator[StandInKeystone]:
    async with StandInKeystone(tls=tls) as started:
        started.add("alice-1", "alice", "member", "reader")
        yield started


@pytest.fixture
def credentials(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)

    def of(url: str, **tls: object) -> dict[str, Any]:
        return {
            "auth_url": url,
            "tls": tls,
            "username": "relproxy",
            "project": "service",
            "password_file": str(secret),
        }

    return of


async def test_callers_are_known_by_a_keystone_over_tls_that_knows_relproxy_by_a_certificate(
    serve: Serve,
    noauth: StandIn,
    authority: Authority,
    stranger: Authority,
    credentials: Callable[..., dict[str, Any]],
) -> None:
    certificate, key = stranger.files("relproxy")
    own = {"certificate_file": str(certificate), "key_file": str(key)}
    async with speaking(authority.context(asks_for_one_of=stranger)) as keystone:
        settings = credentials(keystone.auth_url, ca_file=str(authority.ca_file), **own)
        client = await serve(
            registries=[registry(noauth.url, "relproxy")],
            identity={"keystone": {"credentials": settings}},
        )
        got = await client.get("/v2/images", headers={"X-Auth-Token": "alice-1"})
        assert got.status == 200
        assert keystone.shown == [("alice-1", "nocatalog")]


async def test_a_keystone_that_is_not_verified_is_told_nothing(
    serve: Serve,
    noauth: StandIn,
    authority: Authority,
    stranger: Authority,
    credentials: Callable[..., dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with speaking(stranger.context()) as impostor:
        settings = credentials(impostor.auth_url, ca_file=str(authority.ca_file))
        client = await serve(
            registries=[registry(noauth.url, "relproxy")],
            identity={"keystone": {"credentials": settings}},
        )
        for _ in range(2):
            got = await client.get("/v2/images", headers={"X-Auth-Token": "alice-1"})
            assert got.status == 503
            assert b"Keystone can" in got.body
            assert b"be reached securely." in got.body
            assert b"certificate" not in got.body
        assert not impostor.log_ins
        assert not impostor.shown
    (line,) = (r for r in caplog.records if r.getMessage() == "Keystone fails TLS")
    assert vars(line)["reason"] == "unknown_ca"
    assert line.levelno == logging.ERROR


async def test_a_create_in_doubt_is_settled_with_a_login_over_tls(
    serve: Serve, authority: Authority, credentials: Callable[..., dict[str, Any]]
) -> None:
    """Everything that relproxy itself asks goes over TLS: Keystone, and then the registry."""
    trusted = {"ca_file": str(authority.ca_file)}
    async with (
        speaking(authority.context()) as keystone,
        StandIn(trusting=True, tls=authority.context()) as glance,
    ):
        glance.faults.fail_after_create = True
        client = await serve(
            registries=[
                registry(
                    glance.url,
                    "registry",
                    tls=trusted,
                    credentials=credentials(keystone.auth_url, **trusted),
                )
            ]
        )
        assert (await client.create("a", "alice", headers=INSTANCE)).status == 500

        async def logged_in() -> bool:
            return bool(keystone.log_ins)

        await eventually(logged_in, expected=True)


async def test_an_answer_of_keystones_that_is_cut_short_is_none(
    authority: Authority, credentials: Callable[..., dict[str, Any]]
) -> None:
    with peering(authority.context()) as peer:
        peer.answer = (
            b"HTTP/1.1 201 Created\r\nX-Subject-Token: own\r\n\r\n"
            b'{"token": {"expires_at": "2099-01-01T00:00:00Z"}}'
        )
        url = f"{peer.url}/v3"
        tls = tls_with(ca_file=authority.ca_file)
        settings = Credentials.model_validate(credentials(url))
        async with open_keystone_session(1) as session:
            api = KeystoneApi(url, session, timeout_s=20, tls=tls)
            peer.is_polite = False
            with pytest.raises(KeystoneUnavailableError):
                await KeystoneLogin(settings, api).token()
            peer.is_polite = True
            assert await KeystoneLogin(settings, api).token() == "own"
