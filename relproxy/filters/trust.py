"""Who vouches for instance metadata headers.

A network, a role, a service beside the caller, or a client certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

from relproxy.messages import RequestHead
from relproxy.model import Caller
from relproxy.networks import Network, is_in


@dataclass(frozen=True, slots=True)
class TrustedSources:
    """Each of these alone is enough. All are compared whole, and as they are, case and all."""

    networks: tuple[Network, ...] = ()
    roles: frozenset[str] = frozenset()
    service_roles: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()

    def include(self, head: RequestHead, caller: Caller | None) -> bool:
        """Tell whether this request, by this caller, vouches for its headers."""
        if is_in(head.source, self.networks) or self.certificates & head.certificate_names:
            return True
        if caller is None:
            return False
        of_service = caller.service.roles if caller.service is not None else frozenset()
        return bool(self.roles & caller.roles or self.service_roles & of_service)
