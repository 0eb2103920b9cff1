"""The provider `headers`: a front that authenticated the caller says so in identity headers.

They are believed only from configured networks. Whatever they say, they never go on upstream as
they came (relproxy/filters/headers.py).
"""

from __future__ import annotations

from collections.abc import Collection

from relproxy.errors import BadRequestError
from relproxy.identity.base import NoCaller, is_admin, is_project_id
from relproxy.messages import RequestHead
from relproxy.model import Caller, Service
from relproxy.networks import Network, is_in

_NOBODY = NoCaller(
    "This request requires authentication: nobody vouches for you.", 'Token realm="images"'
)


class HeadersIdentity:
    """See `relproxy.identity.base.IdentityProvider`."""

    def __init__(self, trusted: Collection[Network], admin_roles: Collection[str]) -> None:
        self._trusted = tuple(trusted)
        self._admin_roles = frozenset(admin_roles)

    async def identify(self, head: RequestHead) -> Caller | NoCaller:
        """Read X-Project-Id, X-User-Id and X-Roles of a trusted source."""
        if not is_in(head.source, self._trusted):
            return _NOBODY
        status = head.headers.vouched("X-Identity-Status")
        project = head.headers.vouched("X-Project-Id")
        if not project or status not in {None, "Confirmed"}:
            return _NOBODY
        if not is_project_id(project):
            raise BadRequestError("The header 'X-Project-Id' is not a project id.")
        roles = _roles(head, "X-Roles")
        is_admins = _truth(head.headers.vouched("X-Is-Admin-Project"))
        return Caller(
            project,
            head.headers.vouched("X-User-Id"),
            roles,
            is_admin(roles, self._admin_roles, is_admin_project=is_admins),
            is_admin_project=is_admins,
            user_domain=head.headers.vouched("X-User-Domain-Id"),
            project_domain=head.headers.vouched("X-Project-Domain-Id"),
            service=_service(head),
        )


def _service(head: RequestHead) -> Service | None:
    if head.headers.vouched("X-Service-Identity-Status") != "Confirmed":
        return None
    return Service(
        head.headers.vouched("X-Service-Project-Id"),
        head.headers.vouched("X-Service-User-Id"),
        _roles(head, "X-Service-Roles"),
    )


def _truth(text: str | None) -> bool | None:
    """Read a truth as a registry does (oslo_context/context.py, from_environ)."""
    return None if text is None else text.lower() == "true"


def _roles(head: RequestHead, name: str) -> frozenset[str]:
    names = (head.headers.vouched(name) or "").split(",")
    return frozenset(name.strip() for name in names if name.strip())
