"""The provider `keystone`: X-Auth-Token is validated against Keystone, as keystonemiddleware does.

What Keystone has said is believed for a configured time, and no longer than the token lasts. A
token that it doesn't know is remembered too, for less. Requests that bring one token at the same
time share one question. Nothing else of a request says who sent it.

A valid service token (X-Service-Token, of a configured role) vouches for a service beside the
caller, and lets a user's token through that has ended meanwhile.

Source: keystonemiddleware/auth_token/__init__.py (`BaseAuthProtocol.process_request`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Protocol

from relproxy.config_identity import TokenValidation
from relproxy.errors import KeystoneUnavailableError
from relproxy.identity.base import NoCaller, is_admin, is_project_id
from relproxy.identity.token import Token, read_token
from relproxy.identity.token_cache import TokenCache, TokenNames
from relproxy.messages import RequestHead
from relproxy.metrics import Metrics
from relproxy.model import Caller, Service
from relproxy.tasks import Shared

# A Fernet token has about 200 characters, a signed one some hundred more.
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
# Keystone's nodes may learn of new keys one after the other.
_UNKNOWN_S = 10.0


class Judge(Protocol):
    """Who says what a token is worth."""

    async def shown(self, token: str, *, allow_expired: bool) -> bytes | None:
        """Return the JSON of a token, or None; see `relproxy.keystone.TokenJudge`."""
        ...


class KeystoneIdentity:
    """See `relproxy.identity.base.IdentityProvider`."""

    def __init__(
        self,
        judge: Judge,
        settings: TokenValidation,
        admin_roles: Collection[str],
        metrics: Metrics,
    ) -> None:
        self._judge = judge
        self._cache_s = settings.cache_s
        self._service_type = settings.service_type
        self._service_roles = frozenset(settings.service_token_roles)
        self._admin_roles = frozenset(role.lower() for role in admin_roles)
        uri = settings.www_authenticate_uri or settings.credentials.auth_url
        self._challenge = f'Keystone uri="{uri}"'
        self._metrics = metrics
        self._names = TokenNames()
        self._known: TokenCache[Token] = TokenCache(settings.cached_tokens)
        # Apart from the others: whoever makes tokens up drives nobody's out.
        self._unknown: TokenCache[bool] = TokenCache(settings.cached_tokens)
        self._asking: Shared[bytes, Token | None] = Shared()

    async def close(self) -> None:
        """Give up asking."""
        await self._asking.cancel()

    async def identify(self, head: RequestHead) -> Caller | NoCaller:
        """Validate the request's token, and its service token if there is one."""
        token = _user_token(head)
        if not token:
            return self._nobody("This request requires authentication: send X-Auth-Token.")
        service: Service | None = None
        if service_token := head.headers.vouched("X-Service-Token"):
            said = await self._token(service_token, allow_expired=False)
            if said is None:
                return self._nobody("X-Service-Token is not valid, or has ended.")
            service = self._service(said)
        found = await self._token(token, allow_expired=service is not None)
        if found is None:
            return self._nobody("X-Auth-Token is not valid, or has ended: log in again.")
        if found.project is None:
            return NoCaller("X-Auth-Token is not of a project: log in to one.", None)
        return self._caller(found, found.project, service)

    def _nobody(self, sentence: str) -> NoCaller:
        return NoCaller(sentence, self._challenge)

    def _service(self, token: Token) -> Service | None:
        """Return the service; None where the token is a good one, and not that of a service.

        What access rules narrow isn't one: it would widen itself by being its own service.
        """
        if self._service_roles.isdisjoint(token.roles) or token.access_rules is not None:
            return None
        return Service(token.project, token.user, token.roles)

    def _caller(self, token: Token, project: str, service: Service | None) -> Caller:
        return Caller(
            project=project,
            user=token.user,
            roles=token.roles,
            is_admin=is_admin(
                token.roles, self._admin_roles, is_admin_project=token.is_admin_project
            ),
            user_domain=token.user_domain,
            project_domain=token.project_domain,
            is_admin_project=token.is_admin_project,
            service=service,
            # What a service asks for in a chain of requests isn't the credential's own request.
            access_rules=None if service is not None else token.access_rules,
        )

    async def _token(self, token: str, *, allow_expired: bool) -> Token | None:
        """Return what a token says, or None for one that isn't good."""
        if not _TOKEN.fullmatch(token):
            return None
        name = self._names.name(token, allow_expired=allow_expired)
        found = self._known.get(name)
        if found is None and not self._unknown.get(name):
            found = await self._asking.once(
                name,
                lambda: self._asked(name, token, allow_expired=allow_expired),
                name="validate a token",
            )
        if found is None or (not allow_expired and found.expires_at <= datetime.now(UTC)):
            return None
        return found

    async def _asked(self, name: bytes, token: str, *, allow_expired: bool) -> Token | None:
        with self._metrics.keystone_seconds.time():
            try:
                shown = await self._judge.shown(token, allow_expired=allow_expired)
                found = (
                    None
                    if shown is None
                    else _checked(read_token(shown, service_type=self._service_type))
                )
            except KeystoneUnavailableError:
                self._metrics.token_validations.labels("unavailable").inc()
                raise
        self._metrics.token_validations.labels("unknown" if found is None else "valid").inc()
        if found is None:
            self._unknown.keep(name, True, for_s=min(_UNKNOWN_S, self._cache_s))
        else:
            self._known.keep(name, found, for_s=self._cache_s)
        return found


def _user_token(head: RequestHead) -> str | None:
    """Return the token, wherever keystonemiddleware would read it; "" for an empty one."""
    token = head.headers.vouched("X-Auth-Token")
    return token if token is not None else head.headers.vouched("X-Storage-Token")


def _checked(token: Token) -> Token | None:
    """Return the token if it can be one that relproxy vouches for; None for any other."""
    if token.is_bound or (token.project is not None and not is_project_id(token.project)):
        return None
    return token
