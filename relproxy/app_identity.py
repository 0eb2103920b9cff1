"""The composition root's part about identity: who vouches for callers, and its own log-ins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp

from relproxy.config import Configuration, Registry
from relproxy.config_identity import Identity
from relproxy.identity.base import IdentityProvider
from relproxy.identity.headers import HeadersIdentity
from relproxy.identity.keystone import KeystoneIdentity
from relproxy.keystone import KeystoneApi, KeystoneLogin, TokenJudge, open_keystone_session
from relproxy.metrics import Metrics
from relproxy.settlement import Anonymous, Credentials, front_credentials

# Registry's name -> with what relproxy itself asks it.
Logins = Mapping[str, Credentials]

# Nobody waits for these: entries in doubt are settled whenever it may be.
_LOGIN_CONNECTIONS = 2
_LOGIN_S = 15.0


@asynccontextmanager
async def opened_identity(settings: Identity, metrics: Metrics) -> AsyncIterator[IdentityProvider]:
    """Lend the configured identity provider."""
    keystone = settings.keystone
    if keystone is None:
        yield HeadersIdentity(settings.trusted_networks, settings.admin_roles)
        return
    async with open_keystone_session(keystone.connections) as session:
        api = KeystoneApi(keystone.credentials.auth_url, session, timeout_s=keystone.timeout_s)
        login = KeystoneLogin(keystone.credentials, api)
        identity = KeystoneIdentity(TokenJudge(login, api), keystone, settings.admin_roles, metrics)
        try:
            yield identity
        finally:
            await identity.close()
            await login.close()


@asynccontextmanager
async def opened_logins(configuration: Configuration) -> AsyncIterator[Logins]:
    """Lend what relproxy itself asks each registry with."""
    roles = frozenset(configuration.identity.admin_roles)
    async with open_keystone_session(_LOGIN_CONNECTIONS) as session:
        logins = {r.name: _credentials(r, roles, session) for r in configuration.registries}
        try:
            yield logins
        finally:
            for login in logins.values():
                await login.close()


def _credentials(
    registry: Registry, roles: frozenset[str], session: aiohttp.ClientSession
) -> Credentials:
    settings = registry.credentials
    if settings is not None:
        return KeystoneLogin(settings, KeystoneApi(settings.auth_url, session, timeout_s=_LOGIN_S))
    return front_credentials(roles) if registry.upstream_identity == "headers" else Anonymous()
