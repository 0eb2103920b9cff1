"""The way to Keystone: relproxy's own token, and what Keystone says of the tokens of others.

Source: Identity API v3, "Password authentication with scoped authorization", "Authenticating with
an application credential", "Validate and show information for token".
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from relproxy.bodies import read_within
from relproxy.config_identity import Credentials
from relproxy.errors import KeystoneUnavailableError
from relproxy.tasks import Shared
from relproxy.tls_failures import cause_of, detail_of
from relproxy.upstream_tls import Tls
from relproxy.upstream_wire import Connector, HandshakeRefusedError

_LOG = logging.getLogger(__name__)

Fields = tuple[tuple[str, str], ...]

# Less than any server keeps an idle connection. One that is closed all the same just when it is
# used costs nothing: the client library asks again, because a GET changes nothing.
_KEEPALIVE_S = 1.5
_MAX_BYTES = 1024**2
# Not used to its last second: a request takes a while, and clocks differ.
_MARGIN = timedelta(seconds=60)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
# Keystone says 404 of a token that it doesn't know; 400 and 431 are for one that can't be one.
_UNKNOWN = frozenset({400, 404, 431})


@asynccontextmanager
async def open_keystone_session(connections: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Lend a client session of its own, which keeps to so many connections at a time."""
    async with aiohttp.ClientSession(
        connector=Connector(limit=connections, keepalive_timeout=_KEEPALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
    ) as session:
        yield session


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer of Keystone's; `body` is None where it is too long to be one."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class KeystoneApi:
    """Asks one Keystone; each question has `timeout_s` seconds."""

    def __init__(
        self,
        auth_url: str,
        session: aiohttp.ClientSession,
        *,
        timeout_s: float,
        tls: Tls | None = None,
    ) -> None:
        self._url = f"{auth_url}/auth/tokens"
        self._session = session
        self._timeout_s = timeout_s
        self._tls = tls.options(auth_url) if tls is not None else {}
        # Why TLS failed the last time; None if it didn't.
        self._tls_cause: str | None = None

    async def ask(
        self, method: str, query: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> _Answer:
        """Return what Keystone answers. Raises `KeystoneUnavailableError` where it doesn't."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._asked(method, query, headers, body)
        except (aiohttp.ClientSSLError, HandshakeRefusedError) as failure:
            self._distrust(failure.__cause__)
            raise KeystoneUnavailableError("Keystone can't be reached securely.") from failure
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            raise KeystoneUnavailableError("Keystone can't be reached.") from failure
        self._tls_cause = None
        return answer

    def _distrust(self, failure: BaseException | None) -> None:
        """Say why TLS failed, once for as long as it goes on."""
        cause = cause_of(failure)
        if cause != self._tls_cause:
            told = {"url": self._url, "reason": cause, "detail": detail_of(failure)}
            _LOG.error("Keystone fails TLS", extra=told)
        self._tls_cause = cause

    async def _asked(
        self, method: str, query: str, headers: Mapping[str, str], body: bytes | None
    ) -> _Answer:
        async with self._session.request(
            method,
            f"{self._url}{query}",
            data=body,
            headers={"Accept": "application/json", **headers},
            allow_redirects=False,
            **self._tls,
        ) as answer:
            content = await read_within(answer.content.iter_any(), _MAX_BYTES)
            return _Answer(answer.status, answer.headers, content)


class KeystoneLogin:
    """See `relproxy.settlement.Credentials`: one token for all who need it, until it ends."""

    def __init__(self, settings: Credentials, api: KeystoneApi) -> None:
        self._settings = settings
        self._api = api
        self._logging_in: Shared[None, None] = Shared()
        self._token = ""
        self._good_until = _LONG_AGO

    async def token(self) -> str:
        """Return a token of relproxy's own. Raises `KeystoneUnavailableError`."""
        if datetime.now(UTC) >= self._good_until:
            await self._logging_in.once(None, self._log_in, name="log in to Keystone")
        return self._token

    async def headers(self) -> Fields:
        """Return the token's header field. Raises `KeystoneUnavailableError`."""
        return (("X-Auth-Token", await self.token()),)

    def forget(self, fields: Fields) -> None:
        """Log in anew the next time, unless somebody has since these fields were given."""
        if fields == (("X-Auth-Token", self._token),):
            self._good_until = _LONG_AGO

    async def close(self) -> None:
        """Give up logging in."""
        await self._logging_in.cancel()

    async def _log_in(self) -> None:
        request = await asyncio.to_thread(_log_in_request, self._settings)
        answer = await self._api.ask(
            "POST", "", {"Content-Type": "application/json"}, json.dumps(request).encode()
        )
        token = answer.headers.get("X-Subject-Token")
        if answer.status != 201 or not token:
            raise KeystoneUnavailableError(
                f"Keystone answers {answer.status} to relproxy's own log-in as "
                f"'{self._settings.login_name}'."
            )
        self._good_until = _expiry(answer.body or b"") - _MARGIN
        self._token = token
        _LOG.info("logged in to Keystone", extra={"username": self._settings.login_name})


class TokenJudge:
    """Asks Keystone about the tokens of others, with relproxy's own."""

    def __init__(self, login: KeystoneLogin, api: KeystoneApi) -> None:
        self._login = login
        self._api = api

    async def shown(self, token: str, *, allow_expired: bool) -> bytes | None:
        """Return the JSON that Keystone shows of a token; None where it knows no such token.

        With `allow_expired` it knows one for a while after its end too. Raises
        `KeystoneUnavailableError`.
        """
        query = "?nocatalog&allow_expired=1" if allow_expired else "?nocatalog"
        own = await self._login.headers()
        answer = await self._asked(query, token, own)
        if answer.status == 401:
            # It is ours that Keystone doesn't take any more.
            self._login.forget(own)
            answer = await self._asked(query, token, await self._login.headers())
        named = answer.headers.get("X-Subject-Token")
        if named != token and (answer.status == 200 or named is not None):
            # Something in between has answered another's question: it would be another's token.
            raise KeystoneUnavailableError("Keystone's answer is about another token.")
        if answer.status == 200 and answer.body is not None:
            return answer.body
        if answer.status in _UNKNOWN:
            return None
        raise KeystoneUnavailableError(f"Keystone answers {answer.status} when asked for a token.")

    async def _asked(self, query: str, token: str, own: Fields) -> _Answer:
        # Without the last field Keystone knows no token that access rules narrow.
        told = {"X-Subject-Token": token, "OpenStack-Identity-Access-Rules": "1.0"}
        return await self._api.ask("GET", query, {**dict(own), **told})


def _log_in_request(settings: Credentials) -> dict[str, Any]:
    if settings.application_credential_secret_file is not None:
        credential = {
            "id": settings.application_credential_id,
            "secret": _secret(settings.application_credential_secret_file),
        }
        methods = ["application_credential"]
        return {"auth": {"identity": {"methods": methods, "application_credential": credential}}}
    user = {
        "name": settings.username,
        "domain": {"name": settings.user_domain},
        "password": _secret(settings.password_file or Path()),
    }
    project = {"name": settings.project, "domain": {"name": settings.project_domain}}
    return {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }
    }


def _secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as failure:
        raise KeystoneUnavailableError(f"The secret in {file} can't be read.") from failure


def _expiry(body: bytes) -> datetime:
    """Return when the token ends; raises `KeystoneUnavailableError` if that isn't said."""
    try:
        expires_at = datetime.fromisoformat(json.loads(body)["token"]["expires_at"])
    except (ValueError, KeyError, TypeError, RecursionError) as failure:
        raise KeystoneUnavailableError("Keystone's answer can't be understood.") from failure
    return expires_at if expires_at.tzinfo is not None else expires_at.replace(tzinfo=UTC)
