"""relproxy's own way into Keystone: a token for a user with a password, kept until it ends.

Source: Identity API v3, "Password authentication with scoped authorization".
"""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from relproxy.bodies import read_within
from relproxy.config import Credentials
from relproxy.errors import KeystoneUnavailableError

_LOG = logging.getLogger(__name__)

_TOTAL_S = 15.0
_MAX_BYTES = 1024**2
# Not used to its last second: a request takes a while, and clocks differ.
_MARGIN = timedelta(seconds=60)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class KeystoneLogin:
    """See `relproxy.settlement.Credentials`."""

    def __init__(self, settings: Credentials, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._one_at_a_time = asyncio.Lock()
        self._token = ""
        self._good_until = _LONG_AGO

    async def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the token's header field. Raises `KeystoneUnavailableError`."""
        async with self._one_at_a_time:
            if datetime.now(UTC) >= self._good_until:
                self._token, expires_at = await self._logged_in()
                self._good_until = expires_at - _MARGIN
            return (("X-Auth-Token", self._token),)

    async def forget(self) -> None:
        """Log in anew the next time: the token was revoked, or Keystone forgot its keys."""
        async with self._one_at_a_time:
            self._good_until = _LONG_AGO

    async def _logged_in(self) -> tuple[str, datetime]:
        url = f"{self._settings.auth_url}/auth/tokens"
        try:
            async with asyncio.timeout(_TOTAL_S):
                async with self._session.post(
                    url,
                    data=json.dumps(self._request()),
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                    allow_redirects=False,
                ) as answer:
                    body = await read_within(answer.content.iter_any(), _MAX_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            raise KeystoneUnavailableError("Keystone can't be reached.") from failure
        token = answer.headers.get("X-Subject-Token")
        if answer.status != 201 or not token:
            raise KeystoneUnavailableError(
                f"Keystone answers {answer.status} to relproxy's own log-in as "
                f"'{self._settings.username}'."
            )
        _LOG.info("logged in to Keystone", extra={"username": self._settings.username})
        return token, _expiry(body or b"")

    def _request(self) -> dict[str, Any]:
        settings = self._settings
        try:
            password = settings.password_file.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as failure:
            raise KeystoneUnavailableError(
                f"The password in {settings.password_file} can't be read."
            ) from failure
        user = {
            "name": settings.username,
            "domain": {"name": settings.user_domain},
            "password": password,
        }
        project = {"name": settings.project, "domain": {"name": settings.project_domain}}
        return {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": project},
            }
        }


def _expiry(body: bytes) -> datetime:
    """Return when the token ends; raises `KeystoneUnavailableError` if that isn't said."""
    try:
        expires_at = datetime.fromisoformat(json.loads(body)["token"]["expires_at"])
    except (ValueError, KeyError, TypeError) as failure:
        raise KeystoneUnavailableError("Keystone's answer can't be understood.") from failure
    return expires_at if expires_at.tzinfo is not None else expires_at.replace(tzinfo=UTC)
