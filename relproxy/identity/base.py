"""What the flow asks of an identity provider."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from relproxy.errors import ForbiddenError, UnauthenticatedError
from relproxy.messages import RequestHead
from relproxy.model import Caller

# A project id goes into queries, records and headers: visible ASCII without separators.
_PROJECT = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class NoCaller:
    """Nobody can be vouched for: the sentence for a request that needs a caller.

    `challenge` says how a client makes itself known (RFC 9110, section 11.6.1); it is None for one
    that is known and is no project's.
    """

    sentence: str
    challenge: str | None

    def refusal(self) -> UnauthenticatedError | ForbiddenError:
        """Return what to raise; a new one each time, because each keeps its own traceback."""
        if self.challenge is None:
            return ForbiddenError(self.sentence)
        return UnauthenticatedError(self.sentence, challenge=self.challenge)


class IdentityProvider(Protocol):
    """Vouches for callers."""

    async def identify(self, head: RequestHead) -> Caller | NoCaller:
        """Return who sent the request, or why nobody can be vouched for.

        Raises `BadRequestError` where a request says two things about its caller, and
        `KeystoneUnavailableError`.
        """
        ...


def is_project_id(text: str) -> bool:
    """Tell whether this can be the id of a project."""
    return _PROJECT.fullmatch(text) is not None


def is_admin(
    roles: frozenset[str], admin_roles: frozenset[str], *, is_admin_project: bool | None
) -> bool:
    """Tell whether one of the roles makes an admin; `admin_roles` are in lower case.

    An admin of a project that is said not to be the admins' own is none: a cloud where that is
    said has admins of single projects.
    """
    return is_admin_project is not False and any(role.lower() in admin_roles for role in roles)
