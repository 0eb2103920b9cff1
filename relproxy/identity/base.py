"""What the flow asks of an identity provider."""

from __future__ import annotations

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
