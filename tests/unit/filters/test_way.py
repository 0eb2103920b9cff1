from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from relproxy.filters.source import Fronts, with_source
from relproxy.filters.way import Way, with_via, with_way
from relproxy.messages import Headers, RequestHead
from relproxy.networks import parse_address
from tests.unit.given import fields, request_head

FRONT, CLIENT = "192.0.2.7", "203.0.113.1"
XFF, XFP, XFH = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"
HOST = "images.example:9292"

FORGED = (
    ("X-Forwarded-For", "10.0.0.1"),
    ("x_forwarded_for", "10.0.0.2"),
    ("X-FORWARDED-PROTO", "https"),
    ("X-Forwarded-Host", "evil"),
    ("X-Forwarded-Prefix", "/evil"),
    ("X-Forwarded-Ssl", "on"),
    ("Forwarded", "for=10.0.0.3;host=evil"),
    ("X-Real-IP", "10.0.0.4"),
)


def said(
    *pairs: tuple[str, str],
    header: str = "x-forwarded",
    fronts: str = "none",
    peer: str | None = FRONT,
    announced: str | None = None,
    is_fronts_own: bool = False,
) -> Headers:
    """Return what goes upstream of the way of a request with these fields."""
    believed = Fronts((ip_network(f"{FRONT}/32"),), fronts)
    head = request_head("/", *pairs, peer=peer)
    head = replace(head, is_fronts_own=is_fronts_own)
    if announced is not None:
        head = replace(head, connection_source=parse_address(announced))
    return sent(with_source(head, believed), Way(believed, header))


def sent(head: RequestHead, way: Way) -> Headers:
    return with_way(head.headers, head, way, host=HOST)


def test_what_a_stranger_says_of_its_way_is_replaced() -> None:
    assert said(*FORGED, peer=CLIENT, fronts="x-forwarded-for") == fields(
        (XFF, CLIENT), (XFP, "http"), (XFH, HOST)
    )
    assert said(*FORGED, peer=CLIENT, header="forwarded", fronts="forwarded") == fields(
        ("Forwarded", f'for={CLIENT};proto=http;host="{HOST}"')
    )


def test_where_nothing_is_to_be_said_a_stranger_says_nothing_either() -> None:
    assert said(("A", "1"), *FORGED, peer=CLIENT, header="none") == fields(("A", "1"))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"fronts": "none"}, id="no header of fronts is believed"),
        pytest.param({"fronts": "forwarded"}, id="another header is believed"),
        pytest.param({"fronts": "x-forwarded-for", "announced": CLIENT}, id="a client announced"),
        pytest.param({"fronts": "x-forwarded-for", "is_fronts_own": True}, id="the front itself"),
    ],
)
def test_what_a_front_lets_pass_is_a_strangers(settings: dict[str, object]) -> None:
    values = said((XFF, "10.0.0.1"), (XFH, "evil"), **settings)  # type: ignore[arg-type]

    assert "10.0.0.1" not in ", ".join(values.values(XFF))
    assert values.values(XFH) == (HOST,)


def test_what_a_front_says_is_added_to() -> None:
    pairs = (
        (XFF, "10.0.0.1"), ("Forwarded", "for=evil"), (XFP, "https"), (XFF, CLIENT),
        (XFH, "images"), ("X-Forwarded-Port", "443"),
    )  # fmt: skip

    assert said(*pairs, fronts="x-forwarded-for") == fields(
        ("X-Forwarded-Port", "443"),
        (XFF, f"10.0.0.1, {CLIENT}, {FRONT}"),
        (XFP, "https"),
        (XFH, "images"),
    )


def test_what_a_front_says_by_forwarded_is_added_to() -> None:
    pairs = (("Forwarded", f"for={CLIENT};proto=https"), (XFF, "evil"))

    assert said(*pairs, header="forwarded", fronts="forwarded") == fields(
        ("Forwarded", f'for={CLIENT};proto=https, for={FRONT};proto=http;host="{HOST}"')
    )


@pytest.mark.parametrize("broken", ['for="x', "for", "for=a;for=b", f"for={'a' * 9000}"])
def test_what_can_not_be_read_does_not_swallow_what_is_added(broken: str) -> None:
    values = said(("Forwarded", broken), header="forwarded", fronts="forwarded")

    assert values.values("Forwarded") == (
        f'for=unknown, for={FRONT};proto=http;host="{HOST}"',
    )  # fmt: skip


def test_the_source_is_told_in_the_other_kind_of_header() -> None:
    forwarded = ("Forwarded", f"for={CLIENT}")

    assert said(forwarded, fronts="forwarded").values(XFF) == (f"{CLIENT}, {FRONT}",)
    assert said(("Forwarded", "for=_x"), fronts="forwarded").values(XFF) == (f"unknown, {FRONT}",)
    told = said((XFF, CLIENT), fronts="x-forwarded-for", header="forwarded")
    assert told.values("Forwarded") == (f'for={CLIENT}, for={FRONT};proto=http;host="{HOST}"',)


def test_what_a_front_says_goes_on_as_it_came_where_nothing_is_added() -> None:
    pairs = ((XFF, CLIENT), ("A", "1"), (XFP, "https"))

    assert said(*pairs, fronts="x-forwarded-for", header="none") == fields(
        ("A", "1"), (XFF, CLIENT), (XFP, "https")
    )


def test_an_announced_client_is_the_one_that_is_named() -> None:
    assert said(announced=CLIENT).values(XFF) == (CLIENT,)


def test_addresses_are_written_as_each_header_has_them() -> None:
    assert said(peer="2001:db8::1").values(XFF) == ("2001:db8::1",)
    assert said(peer="2001:db8::1", header="forwarded").first("Forwarded") == (
        f'for="[2001:db8::1]";proto=http;host="{HOST}"'
    )
    assert said(peer=None).values(XFF) == ("unknown",)
    assert said(peer=None, header="forwarded").values("Forwarded") == (
        f'for=unknown;proto=http;host="{HOST}"',
    )  # fmt: skip


def test_the_scheme_is_that_of_the_connection() -> None:
    head = with_source(replace(request_head("/"), scheme="https"), Fronts())

    assert sent(head, Way(Fronts(), "x-forwarded")).values(XFP) == ("https",)
    assert "proto=https" in (sent(head, Way(Fronts(), "forwarded")).first("Forwarded") or "")


def test_via_is_added_behind_those_before_with_the_version_of_the_message() -> None:
    headers = fields(("Via", "1.1 front"), ("A", "1"))

    assert with_via(headers, "relproxy", (1, 0)) == fields(
        ("Via", "1.1 front"), ("A", "1"), ("Via", "1.0 relproxy")
    )
    assert with_via(headers, None, (1, 1)) == headers
