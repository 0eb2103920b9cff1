"""The composition root's part about identity: who vouches for callers, and its own log-ins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp

from relproxy import config_identity
from relproxy.certificates import Proof
from relproxy.config import Configuration, Registry
from relproxy.config_identity import Identity
from relproxy.identity.base import IdentityProvider
from relproxy.identity.headers import HeadersIdentity
from relproxy.identity.keystone import KeystoneIdentity
from relproxy.keystone import KeystoneApi, KeystoneLogin, TokenJudge, open_keystone_session
from relproxy.metrics import Metrics
from relproxy.settlement import Anonymous, Credentials, front_credentials
from relproxy.upstream_tls import Tls, tls_of

# Registry's name -> with what relproxy itself asks it.
Logins = Mapping[str, Credentials]

# Nobody waits for these: entries in doubt are settled whenever it may be.
_LOGIN_CONNECTIONS = 2
_LOGIN_S = 15.0


@asynccontextmanager
async def opened_identity(
    settings: Identity, proofs: Mapping[str, Proof], metrics: Metrics
) -> AsyncIterator[IdentityProvider]:
    """Lend the configured identity provider."""
    keystone = settings.keystone
    if keystone is None:
        yield HeadersIdentity(settings.trusted_networks, settings.admin_roles)
        return
    credentials, timeout_s = keystone.credentials, keystone.timeout_s
    tls = await asyncio.to_thread(_tls_of, credentials, "identity.keystone.credentials.tls", proofs)
    async with open_keystone_session(keystone.connections) as session:
        api = KeystoneApi(credentials.auth_url, session, timeout_s=timeout_s, tls=tls)
        login = KeystoneLogin(credentials, api)
        identity = KeystoneIdentity(TokenJudge(login, api), keystone, settings.admin_roles, metrics)
        try:
            yield identity
        finally:
            await identity.close()
            await login.close()


@asynccontextmanager
async def opened_logins(
    configuration: Configuration, proofs: Mapping[str, Proof]
) -> AsyncIterator[Logins]:
    """Lend what relproxy itself asks each registry with."""
    roles = frozenset(configuration.identity.admin_roles)
    tls = await asyncio.to_thread(_tls_of_logins, configuration, proofs)
    async with open_keystone_session(_LOGIN_CONNECTIONS) as session:
        logins = {
            registry.name: _credentials(registry, roles, session, tls.get(registry.name))
            for registry in configuration.registries
        }
        try:
            yield logins
        finally:
            for login in logins.values():
                await login.close()


def _tls_of_logins(
    configuration: Configuration, proofs: Mapping[str, Proof]
) -> Mapping[str, Tls | None]:
    return {
        registry.name: _tls_of(registry.credentials, f"registries[{index}].credentials.tls", proofs)
        for index, registry in enumerate(configuration.registries)
        if registry.credentials is not None
    }


def _tls_of(
    settings: config_identity.Credentials, path: str, proofs: Mapping[str, Proof]
) -> Tls | None:
    return tls_of(settings.tls, proofs[path]) if settings.has_tls else None


def _credentials(
    registry: Registry, roles: frozenset[str], session: aiohttp.ClientSession, tls: Tls | None
) -> Credentials:
    settings = registry.credentials
    if settings is not None:
        api = KeystoneApi(settings.auth_url, session, timeout_s=_LOGIN_S, tls=tls)
        return KeystoneLogin(settings, api)
    return front_credentials(roles) if registry.upstream_identity == "headers" else Anonymous()
