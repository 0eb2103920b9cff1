"""What Keystone says of one token: its JSON, read once.

Source: Identity API v3, "Validate and show information for token".
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from relproxy.errors import KeystoneUnavailableError
from relproxy.model import AccessRule

# Names that go into a header's list: one with a comma in it would be two roles.
_ROLE = re.compile(r"[\x21-\x2b\x2d-\x7e]([\x20-\x2b\x2d-\x7e]*[\x21-\x2b\x2d-\x7e])?")
_ID = re.compile(r"[\x21-\x7e]{1,255}")
# What is remembered of a token may be as large as its owner makes it: so no more rules than anybody
# writes, and of each no more than Keystone's own database holds.
_MAX_RULES = 200
_MAX_PATH = 128
_MAX_METHOD = 16
_GARBAGE = "Keystone's answer can't be understood."


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Domain(msgspec.Struct, frozen=True):
    id: str | None = None


class _Scoped(msgspec.Struct, frozen=True):
    id: str
    domain: _Domain = _Domain()


class _Rule(msgspec.Struct, frozen=True):
    service: str
    method: str
    path: str


class _Application(msgspec.Struct, frozen=True):
    access_rules: list[_Rule] | None = None


class _Token(msgspec.Struct, frozen=True):
    user: _Scoped
    expires_at: str
    project: _Scoped | None = None
    roles: list[_Named] = []
    is_admin_project: bool | None = None
    application_credential: _Application | None = None
    bind: dict[str, object] | None = None
    # RFC 8705: good only together with a certificate, which a front may have taken off.
    oauth2_credential: dict[str, object] | None = None


class _Document(msgspec.Struct, frozen=True):
    token: _Token


_DOCUMENT = msgspec.json.Decoder(_Document)


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says. `project` is None where its scope is a domain, the system, or nothing.

    Ids that no header could carry are left out, and of `roles` those whose names no list could.
    `is_bound` says that it is good for one client only, in a way that relproxy can't check.
    """

    user: str | None
    user_domain: str | None
    project: str | None
    project_domain: str | None
    roles: frozenset[str]
    expires_at: datetime
    is_admin_project: bool | None
    access_rules: tuple[AccessRule, ...] | None
    is_bound: bool


def read_token(body: bytes, *, service_type: str) -> Token:
    """Read Keystone's answer, and of access rules those for this service.

    Raises `KeystoneUnavailableError` if it isn't one about a token.
    """
    try:
        said = _DOCUMENT.decode(body).token
        expires_at = datetime.fromisoformat(said.expires_at)
    except (msgspec.DecodeError, ValueError, RecursionError) as failure:
        raise KeystoneUnavailableError(_GARBAGE) from failure
    project, rules = said.project, _rules(said, service_type)
    return Token(
        user=_sendable(said.user.id),
        user_domain=_sendable(said.user.domain.id),
        project=project.id if project else None,
        project_domain=_sendable(project.domain.id) if project else None,
        roles=frozenset(role.name for role in said.roles if _ROLE.fullmatch(role.name)),
        expires_at=expires_at if expires_at.tzinfo is not None else expires_at.replace(tzinfo=UTC),
        is_admin_project=said.is_admin_project,
        access_rules=rules,
        is_bound=bool(said.bind or said.oauth2_credential),
    )


def _sendable(text: str | None) -> str | None:
    return text if text is not None and _ID.fullmatch(text) else None


def _rules(said: _Token, service_type: str) -> tuple[AccessRule, ...] | None:
    """Return those for this service; where there are rules and none for it, it is closed."""
    application = said.application_credential
    if application is None or application.access_rules is None:
        return None
    rules = [r for r in application.access_rules if r.service == service_type]
    if len(rules) > _MAX_RULES:
        return ()  # Closed, as where there are rules and none for this service.
    return tuple(
        AccessRule(service_type, sys.intern(rule.method), rule.path)
        for rule in rules
        if len(rule.path) <= _MAX_PATH and len(rule.method) <= _MAX_METHOD
    )
