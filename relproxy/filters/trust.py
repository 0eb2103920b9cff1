"""Who vouches for instance metadata headers: a network, a role, or a service beside the caller."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from relproxy.model import Caller
from relproxy.networks import Address, Network, is_in


@dataclass(frozen=True, slots=True)
class TrustedSources:
    """Each of these alone is enough. Roles are compared as they are, case and all."""

    networks: tuple[Network, ...] = ()
    roles: frozenset[str] = frozenset()
    service_roles: frozenset[str] = frozenset()

    def include(self, source: Address | None, caller: Caller | None) -> bool:
        """Tell whether a request from this address, by this caller, vouches for its headers."""
        if is_in(source, self.networks):
            return True
        if caller is None:
            return False
        of_service = caller.service.roles if caller.service is not None else frozenset()
        return bool(self.roles & caller.roles or self.service_roles & of_service)


def trusted_sources(
    networks: tuple[Network, ...], roles: Collection[str], service_roles: Collection[str]
) -> TrustedSources:
    """Return the sources that are configured."""
    return TrustedSources(networks, frozenset(roles), frozenset(service_roles))
