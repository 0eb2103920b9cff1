"""Addresses and networks: who a connection comes from."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse_address(text: str) -> Address | None:
    """Return an address, an IPv4 one out of its IPv6 form; None where `text` is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_in(address: Address | None, networks: Collection[Network]) -> bool:
    """Tell whether the address is in one of the networks; an unknown one never is."""
    return address is not None and any(address in network for network in networks)
