"""What the flow asks of an identity provider."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from relproxy.messages import RequestHead
from relproxy.model import Caller


class IdentityProvider(Protocol):
    """Vouches for callers."""

    async def identify(self, head: RequestHead) -> Caller | None:
        """Return who sent the request, or None where nobody can be vouched for.

        Raises `BadRequestError` where a request says two things about its caller.
        """
        ...


def make_an_admin(roles: Collection[str], admin_roles: Collection[str]) -> bool:
    """Tell whether one of `roles` is one of `admin_roles`, in any case."""
    folded = frozenset(role.lower() for role in admin_roles)
    return any(role.lower() in folded for role in roles)
