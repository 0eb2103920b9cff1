from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from relproxy.filters.trust import TrustedSources
from relproxy.messages import RequestHead
from relproxy.model import Caller, Service
from relproxy.networks import Address
from tests.unit.given import request_head

SOURCES = TrustedSources(
    (ip_network("192.0.2.0/24"),),
    frozenset({"Nova-Snapshot"}),
    frozenset({"service"}),
    frozenset({"dns:nova.example.org", "sha256:" + "ab" * 32}),
)
NOVA = ip_address("192.0.2.1")
ELSEWHERE = ip_address("198.51.100.1")
MEMBER = Caller("p", roles=frozenset({"member"}))


def sent_by(source: Address | None) -> RequestHead:
    return replace(request_head(), source=source)


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
    source: Address | None, caller: Caller | None, *, is_trusted: bool
) -> None:
    assert SOURCES.include(sent_by(source), caller) is is_trusted


@pytest.mark.parametrize(
    ("names", "is_trusted"),
    [
        pytest.param({"dns:nova.example.org"}, True, id="a name"),
        pytest.param({"sha256:" + "ab" * 32}, True, id="a fingerprint"),
        pytest.param({"dns:other.example.org", "dns:nova.example.org"}, True, id="one of two"),
        pytest.param({"dns:other.example.org"}, False, id="another name"),
        pytest.param({"uri:nova.example.org"}, False, id="a name of another kind"),
        pytest.param({"dns:*.example.org"}, False, id="a wildcard"),
        pytest.param({"dns:nova.example.org.evil.example"}, False, id="a longer name"),
        pytest.param({"dns:nova.example.org\0.evil.example"}, False, id="a name behind a NUL"),
        pytest.param({"dns:nova.example"}, False, id="a part of a name"),
        pytest.param(set(), False, id="no certificate"),
    ],
)
def test_which_certificate_vouches_for_metadata_headers(
    names: set[str], *, is_trusted: bool
) -> None:
    head = replace(sent_by(ELSEWHERE), certificate_names=frozenset(names))
    assert SOURCES.include(head, MEMBER) is is_trusted


def test_nobody_vouches_where_nobody_is_trusted() -> None:
    nobody = TrustedSources()

    assert not nobody.include(sent_by(NOVA), served("service", ""))
    assert not nobody.include(sent_by(NOVA), Caller("p", roles=frozenset({"admin"}), is_admin=True))
