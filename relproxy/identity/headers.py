"""The provider `headers`: a front that authenticated the caller says so in identity headers.

They are believed only from configured networks. Whatever they say, they never go on upstream as
they came (relproxy/filters/headers.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from relproxy.errors import BadRequestError
from relproxy.identity.base import make_an_admin
from relproxy.messages import RequestHead
from relproxy.model import Caller
from relproxy.networks import Network, is_in

# A project id goes into queries, records and headers: visible ASCII without separators.
_PROJECT = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,255}")


class HeadersIdentity:
    """See `relproxy.identity.base.IdentityProvider`."""

    def __init__(self, trusted: Collection[Network], admin_roles: Collection[str]) -> None:
        self._trusted = tuple(trusted)
        self._admin_roles = frozenset(admin_roles)

    async def identify(self, head: RequestHead) -> Caller | None:
        """Read X-Project-Id, X-User-Id and X-Roles of a trusted peer."""
        if not is_in(head.peer, self._trusted):
            return None
        status = head.headers.vouched("X-Identity-Status")
        project = head.headers.vouched("X-Project-Id")
        if not project or status not in {None, "Confirmed"}:
            return None
        if not _PROJECT.fullmatch(project):
            raise BadRequestError("The header 'X-Project-Id' is not a project id.")
        roles = _roles(head)
        is_admin = make_an_admin(roles, self._admin_roles)
        return Caller(project, head.headers.vouched("X-User-Id"), roles, is_admin)


def _roles(head: RequestHead) -> frozenset[str]:
    names = (head.headers.vouched("X-Roles") or "").split(",")
    return frozenset(name.strip() for name in names if name.strip())
