from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from relproxy.networks import is_in, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("10.1.2.3", "10.1.2.3", id="an IPv4 address"),
        pytest.param("2001:db8::1", "2001:db8::1", id="an IPv6 address"),
        pytest.param("::ffff:10.1.2.3", "10.1.2.3", id="IPv4 in its IPv6 form is IPv4"),
        pytest.param("fe80::1%eth0", "fe80::1", id="a zone is not part of an address"),
    ],
)
def test_an_address_is_read(text: str, address: str) -> None:
    assert parse_address(text) == ip_address(address)


@pytest.mark.parametrize("text", ["", "localhost", "10.1.2", "10.1.2.3:9292", "[::1]", "/run/sock"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None


def test_an_address_is_in_one_of_several_networks() -> None:
    networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))

    assert is_in(ip_address("192.0.2.255"), networks)
    assert is_in(ip_address("2001:db8::5"), networks)
    assert not is_in(ip_address("192.0.3.0"), networks)


def test_an_ipv4_peer_of_a_dual_stack_socket_is_in_its_ipv4_network() -> None:
    assert is_in(parse_address("::ffff:192.0.2.9"), (ip_network("192.0.2.0/24"),))


def test_an_unknown_address_is_in_no_network() -> None:
    assert not is_in(None, (ip_network("0.0.0.0/0"), ip_network("::/0")))


def test_no_network_trusts_nobody() -> None:
    assert not is_in(ip_address("127.0.0.1"), ())
