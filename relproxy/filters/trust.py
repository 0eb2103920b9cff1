"""Who vouches for instance metadata headers: a network, a role, or a service beside the caller."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from relproxy.model import Caller
from relproxy.networks import Address, Network, is_in


@dataclass(frozen=True, slots=True)
class TrustedSources:
    """Each of these alone is enough; roles are compared without case."""

    networks: tuple[Network, ...] = ()
    roles: frozenset[str] = frozenset()
    service_roles: frozenset[str] = frozenset()

    def include(self, source: Address | None, caller: Caller | None) -> bool:
        """Tell whether a request from this address, by this caller, vouches for its headers."""
        if is_in(source, self.networks):
            return True
        if caller is None:
            return False
        service = caller.service
        return _has(caller.roles, self.roles) or (
            service is not None and _has(service.roles, self.service_roles)
        )


def trusted_sources(
    networks: tuple[Network, ...], roles: Collection[str], service_roles: Collection[str]
) -> TrustedSources:
    """Return the sources that are configured."""
    return TrustedSources(networks, _lower(roles), _lower(service_roles))


def _lower(names: Collection[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def _has(roles: Collection[str], wanted: frozenset[str]) -> bool:
    return not wanted.isdisjoint(_lower(roles))
