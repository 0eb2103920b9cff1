from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from relproxy.filters.trust import trusted_sources
from relproxy.model import Caller, Service

SOURCES = trusted_sources((ip_network("192.0.2.0/24"),), ["Nova-Snapshot"], ["service"])
NOVA = ip_address("192.0.2.1")
ELSEWHERE = ip_address("198.51.100.1")
MEMBER = Caller("p", roles=frozenset({"member"}))


def served(*roles: str) -> Caller:
    return Caller("p", service=Service("services", "nova", frozenset(roles)))


@pytest.mark.parametrize(
    ("source", "caller", "is_trusted"),
    [
        pytest.param(NOVA, None, True, id="a network, whoever it is"),
        pytest.param(ELSEWHERE, None, False, id="another network"),
        pytest.param(None, None, False, id="from nowhere"),
        pytest.param(ELSEWHERE, MEMBER, False, id="a caller without the role"),
        pytest.param(
            ELSEWHERE,
            Caller("p", roles=frozenset({"Nova-Snapshot"})),
            True,
            id="a caller with the role",
        ),
        pytest.param(
            ELSEWHERE, Caller("p", roles=frozenset({"nova-snapshot"})), False, id="a like role"
        ),
        pytest.param(ELSEWHERE, served("service"), True, id="a service beside the caller"),
        pytest.param(ELSEWHERE, served("Service"), False, id="a service with a like role"),
        pytest.param(ELSEWHERE, served("glance"), False, id="another service"),
        pytest.param(
            ELSEWHERE, Caller("p", roles=frozenset({"service"})), False, id="a service's role alone"
        ),
        pytest.param(ELSEWHERE, served("Nova-Snapshot"), False, id="a caller's role at a service"),
    ],
)
def test_who_vouches_for_metadata_headers(
    source: object, caller: Caller | None, *, is_trusted: bool
) -> None:
    assert SOURCES.include(source, caller) is is_trusted  # type: ignore[arg-type]


def test_nobody_vouches_where_nobody_is_trusted() -> None:
    nobody = trusted_sources((), (), ())

    assert not nobody.include(NOVA, served("service", ""))
    assert not nobody.include(NOVA, Caller("p", roles=frozenset({"admin"}), is_admin=True))
