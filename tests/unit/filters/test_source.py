from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relproxy.errors import BadRequestError
from relproxy.filters.source import Fronts, with_source
from relproxy.messages import RequestHead
from relproxy.networks import Address, parse_address
from tests.unit.given import fields

FRONT, OTHER_FRONT, CLIENT = "192.0.2.1", "2001:db8::f", "198.51.100.7"
NETWORKS = (ip_network("192.0.2.0/29"), ip_network("2001:db8::f/128"))
FORWARDED, XFF = "Forwarded", "X-Forwarded-For"


def head(
    *pairs: tuple[str, str], peer: str | None = FRONT, connection_source: str | None = ""
) -> RequestHead:
    """Return a head whose connection is the peer's own, unless somebody else is announced."""
    known = peer if connection_source == "" else connection_source
    return RequestHead(
        "GET", "/", fields(*pairs), address(peer), "public", connection_source=address(known)
    )


def address(text: str | None) -> Address | None:
    return parse_address(text) if text is not None else None


def source(request: RequestHead, header: str = "none") -> str | None:
    found = with_source(request, Fronts(NETWORKS, header.lower())).source
    return str(found) if found is not None else None


# -- the connection


def test_a_head_has_no_source_until_it_was_read() -> None:
    assert head().source is None


@pytest.mark.parametrize("header", ["none", FORWARDED, XFF])
def test_a_peer_that_is_no_front_is_the_source_whatever_it_says(header: str) -> None:
    said = head(
        (XFF, "203.0.113.1"), ("X_Forwarded_For", "a"), (FORWARDED, "for=203.0.113.1"), peer=CLIENT
    )
    assert source(said, header) == CLIENT


def test_without_fronts_the_source_is_the_peer() -> None:
    said = head((XFF, CLIENT))
    assert with_source(said, Fronts((), "x-forwarded-for")).source == ip_address(FRONT)


def test_nobody_is_announced_by_a_peer_that_is_no_front() -> None:
    assert source(head(peer=CLIENT, connection_source="203.0.113.1")) == CLIENT


def test_an_unknown_peer_is_an_unknown_source() -> None:
    assert source(head((XFF, CLIENT), peer=None), XFF) is None


def test_an_announced_client_is_the_source() -> None:
    assert source(head(connection_source=CLIENT)) == CLIENT


@pytest.mark.parametrize("header", ["none", FORWARDED, XFF])
def test_a_front_that_announces_nobody_has_nobody_as_its_source(header: str) -> None:
    said = head((XFF, CLIENT), (FORWARDED, f"for={CLIENT}"), connection_source=None)
    assert source(said, header) is None


def test_a_header_of_an_announced_client_that_is_no_front_counts_for_nothing() -> None:
    assert source(head((XFF, "203.0.113.1"), connection_source=CLIENT), XFF) == CLIENT


@pytest.mark.parametrize("header", ["none", FORWARDED, XFF])
def test_a_header_on_a_connection_of_the_fronts_own_counts_for_nothing(header: str) -> None:
    said = head((XFF, CLIENT), ("X_Forwarded_For", CLIENT), (FORWARDED, f"for={CLIENT}"))
    assert source(replace(said, is_fronts_own=True), header) == FRONT


def test_a_header_of_an_announced_front_is_read() -> None:
    assert source(head((XFF, CLIENT), connection_source=OTHER_FRONT), XFF) == CLIENT


# -- which header


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("none", FRONT, id="no header is believed"),
        pytest.param(XFF, "198.51.100.1", id="X-Forwarded-For is"),
        pytest.param(FORWARDED, "198.51.100.2", id="Forwarded is"),
    ],
)
def test_one_header_is_believed_and_no_other(header: str, expected: str) -> None:
    said = head((XFF, "198.51.100.1"), (FORWARDED, "for=198.51.100.2"), ("X-Real-IP", CLIENT))
    assert source(said, header) == expected


@pytest.mark.parametrize("header", [FORWARDED, XFF])
def test_a_front_that_sets_no_header_is_the_source_itself(header: str) -> None:
    other = FORWARDED if header == XFF else XFF
    assert source(head((other, f"for={CLIENT}")), header) == FRONT


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (XFF, "X_Forwarded_For"),
        (XFF, "x-forwarded_for"),
        (XFF, "X_FORWARDED-FOR"),
    ],
)
@pytest.mark.parametrize("has_own", [True, False], ids=["beside the front's", "alone"])
def test_a_header_in_another_spelling_is_refused(header: str, name: str, has_own: bool) -> None:  # noqa: FBT001
    own = [(header, CLIENT)] if has_own else []
    with pytest.raises(BadRequestError, match="'_'"):
        source(head(*own, (name, "203.0.113.1")), header)


def test_the_spelling_of_a_header_that_is_not_read_is_nobodys_business() -> None:
    assert source(head(("X_Forwarded_For", "a"))) == FRONT
    assert source(head(("X_Forwarded_For", "a"), (FORWARDED, f"for={CLIENT}")), FORWARDED) == CLIENT


@pytest.mark.parametrize("name", ["x-forwarded-for", "X-FORWARDED-FOR"])
def test_the_name_of_a_header_is_read_in_any_case(name: str) -> None:
    assert source(head((name, CLIENT)), XFF) == CLIENT


# -- X-Forwarded-For


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([CLIENT], CLIENT, id="one hop"),
        pytest.param([f"{CLIENT}:4711"], CLIENT, id="with a port"),
        pytest.param(["2001:db8::7"], "2001:db8::7", id="IPv6"),
        pytest.param(["[2001:db8::7]"], "2001:db8::7", id="IPv6 in brackets"),
        pytest.param(["[2001:db8::7]:4711"], "2001:db8::7", id="IPv6 with a port"),
        pytest.param([f"::ffff:{CLIENT}"], CLIENT, id="IPv4 in its IPv6 form"),
        pytest.param([f"203.0.113.1, {CLIENT}"], CLIENT, id="the last hop"),
        pytest.param([f"203.0.113.1,\t{CLIENT} , 192.0.2.2"], CLIENT, id="before a front"),
        pytest.param([f"{CLIENT}, {OTHER_FRONT}, 192.0.2.2"], CLIENT, id="before two fronts"),
        pytest.param(["203.0.113.1", CLIENT], CLIENT, id="the last field"),
        pytest.param([CLIENT, "192.0.2.2"], CLIENT, id="a front's own field behind it"),
        pytest.param([f"unknown, ';--, {CLIENT}"], CLIENT, id="garbage before it"),
        pytest.param(["192.0.2.2, 192.0.2.3"], "192.0.2.2", id="fronts alone: the first"),
        pytest.param(["unknown"], None, id="unknown"),
        pytest.param([f"{CLIENT}, unknown"], None, id="behind it: unknown"),
        pytest.param([f"{CLIENT}, _hidden, 192.0.2.2"], None, id="a name that hides an address"),
        pytest.param([f"{CLIENT}, 192.0.2.2, "], None, id="an empty hop"),
        pytest.param([""], None, id="an empty field"),
        pytest.param([CLIENT, ""], None, id="an empty field behind it"),
        pytest.param(["192.0.2.2", ""], None, id="an empty field behind a front"),
        pytest.param([f'"{CLIENT}"'], None, id="in quotes"),
        pytest.param([f"{CLIENT}%eth0"], None, id="a zone"),
        pytest.param(["fe80::1%eth0"], None, id="IPv6 with a zone"),
        pytest.param([f"for={CLIENT}"], None, id="the other header's"),
        pytest.param(["198.51.100"], None, id="half an address"),
        pytest.param(["198.51.100.07"], None, id="a leading zero"),
        pytest.param(["192.0.2.2 192.0.2.3"], None, id="two in one"),
        pytest.param([f"{CLIENT}:"], None, id="a port that is none"),
        pytest.param([f"[{CLIENT}]"], None, id="IPv4 in brackets"),
        pytest.param(["[2001:db8::7"], None, id="half a bracket"),
        pytest.param(["1"], None, id="a number"),
        pytest.param(["\u00b9.2.3.4"], None, id="not ASCII"),
        pytest.param(["192.0.2.2," * 31 + "192.0.2.2"], None, id="more fronts than there can be"),
        pytest.param([CLIENT + ",192.0.2.2" * 31], CLIENT, id="many fronts"),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(values: list[str], expected: str | None) -> None:
    assert source(head(*((XFF, value) for value in values)), XFF) == expected


# -- Forwarded


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([f"for={CLIENT}"], CLIENT, id="one hop"),
        pytest.param([f"For={CLIENT}"], CLIENT, id="a name in capitals"),
        pytest.param([f'for="{CLIENT}:4711"'], CLIENT, id="with a port"),
        pytest.param([f'for="{CLIENT}:_port"'], CLIENT, id="with a port's name"),
        pytest.param(['for="[2001:db8::7]"'], "2001:db8::7", id="IPv6"),
        pytest.param(['for="[2001:db8::7]:4711"'], "2001:db8::7", id="IPv6 with a port"),
        pytest.param([f'for="[::ffff:{CLIENT}]"'], CLIENT, id="IPv4 in its IPv6 form"),
        pytest.param(['for="198.51\\.100.7"'], CLIENT, id="an escaped character"),
        pytest.param([f"by=192.0.2.1;for={CLIENT};proto=http"], CLIENT, id="among others"),
        pytest.param([f"proto=http; for={CLIENT} ; host=a"], CLIENT, id="with blanks"),
        pytest.param([f"proto=http;;for={CLIENT};"], CLIENT, id="with empty pairs"),
        pytest.param([f"for=203.0.113.1, for={CLIENT}"], CLIENT, id="the last hop"),
        pytest.param([f"for={CLIENT},for=192.0.2.2"], CLIENT, id="before a front"),
        pytest.param(["for=203.0.113.1", f"for={CLIENT}"], CLIENT, id="the last field"),
        pytest.param([f"for={CLIENT}", "for=192.0.2.2"], CLIENT, id="a front's own field behind"),
        pytest.param([f'host="a, for=203.0.113.1";for={CLIENT}'], CLIENT, id="a comma in quotes"),
        pytest.param([f'host="\\", for=203.0.113.1";for={CLIENT}'], CLIENT, id="an escaped quote"),
        pytest.param([f"for=unknown, for=_h, for={CLIENT}"], CLIENT, id="unknown ones before it"),
        pytest.param(['for="', f"for={CLIENT}"], CLIENT, id="garbage in a field before it"),
        pytest.param(["for=192.0.2.2, for=192.0.2.3"], "192.0.2.2", id="fronts alone: the first"),
        pytest.param(["for=unknown"], None, id="unknown"),
        pytest.param([f"for={CLIENT}, for=_hidden"], None, id="a name that hides an address"),
        pytest.param([f"for={CLIENT}, proto=http"], None, id="a hop that doesn't say"),
        pytest.param([f"for={CLIENT}, "], None, id="an empty hop"),
        pytest.param([""], None, id="an empty field"),
        pytest.param([f"for={CLIENT}", ""], None, id="an empty field behind it"),
        pytest.param([f"for={CLIENT};for=192.0.2.2"], None, id="two in one hop"),
        pytest.param([f"for={CLIENT};proto=a;Proto=b"], None, id="another one twice"),
        pytest.param([f"for={CLIENT}:4711"], None, id="a port without quotes"),
        pytest.param(["for=[2001:db8::7]"], None, id="IPv6 without quotes"),
        pytest.param(['for="2001:db8::7"'], None, id="IPv6 without brackets"),
        pytest.param([f'for="{CLIENT}'], None, id="half a quote"),
        pytest.param([f'for=", for={CLIENT}'], None, id="a client's half a quote"),
        pytest.param([f'for="\\", for={CLIENT}'], None, id="a client's half an escape"),
        pytest.param([f"for = {CLIENT}"], None, id="blanks around ="),
        pytest.param([f"for={CLIENT} for=192.0.2.2"], None, id="no comma"),
        pytest.param([f'for="{CLIENT}"x'], None, id="something behind a quote"),
        pytest.param([f"for={CLIENT}, ="], None, id="no name"),
        pytest.param(["for="], None, id="no value"),
        pytest.param(['for=""'], None, id="an empty value"),
        pytest.param([f'for=" {CLIENT}"'], None, id="a blank in quotes"),
        pytest.param([CLIENT], None, id="the other header's"),
        pytest.param([f'a="{"b" * 8000}", for={CLIENT}'], CLIENT, id="a long field"),
        pytest.param([f'a="{"b" * 8200}", for={CLIENT}'], None, id="a field that is too long"),
        pytest.param(["for=192.0.2.2, garbage"], None, id="garbage behind a front"),
    ],
)
def test_forwarded_is_read_from_the_right(values: list[str], expected: str | None) -> None:
    assert source(head(*((FORWARDED, value) for value in values)), FORWARDED) == expected


# -- what no client can do

client_fields = st.lists(
    st.text(st.sampled_from('192.0.2.17,;: "\\=for_[]unknown\t'), max_size=40), max_size=3
)


@given(said=client_fields)
@pytest.mark.parametrize(
    ("header", "own"), [(XFF, CLIENT), (FORWARDED, f"for={CLIENT};proto=https")]
)
def test_a_client_has_no_say_behind_a_front_that_adds_a_field(
    header: str, own: str, said: list[str]
) -> None:
    assert source(head(*((header, value) for value in said), (header, own)), header) == CLIENT


@given(said=client_fields)
def test_a_client_has_no_say_behind_a_front_that_adds_to_its_x_forwarded_for(
    said: list[str],
) -> None:
    assert source(head((XFF, ",".join([*said, CLIENT]))), XFF) == CLIENT


@given(said=client_fields)
def test_a_client_can_only_hide_behind_a_front_that_adds_to_its_forwarded(said: list[str]) -> None:
    joined = ", ".join([*said, f"for={CLIENT};proto=https"])
    assert source(head((FORWARDED, joined)), FORWARDED) in {CLIENT, None}


@given(hops=st.lists(st.ip_addresses(), min_size=1, max_size=5), data=st.data())
def test_what_a_chain_of_fronts_writes_is_read(hops: list[Address], data: st.DataObject) -> None:
    """The source is the last hop that is no front, however the fields are cut."""
    cut = data.draw(st.integers(0, len(hops)))
    parts = [part for part in (hops[:cut], hops[cut:]) if part]
    plain = [(XFF, ", ".join(map(str, part))) for part in parts]
    nodes = [
        (FORWARDED, ",".join(f'for="{f"[{h}]" if h.version == 6 else h}"' for h in part))
        for part in parts
    ]
    read = [parse_address(str(hop)) for hop in hops]
    strangers = [hop for hop in read if not any(hop in network for network in NETWORKS)]
    expected = str(strangers[-1] if strangers else read[0])

    assert source(head(*plain), XFF) == expected
    assert source(head(*nodes), FORWARDED) == expected


@pytest.fixture
def an_end() -> Iterator[None]:
    """Stop what would go on for hours."""

    def stop(*_: object) -> None:
        raise AssertionError("it takes more than its length")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 60)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.usefixtures("an_end")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("a=b;" + " " * 1_000_000 + "x y", id="blanks"),
        pytest.param("for=" + "a" * 1_000_000 + '"', id="a token"),
        pytest.param('for="' + "\\a" * 500_000, id="escapes"),
        pytest.param("for=" + "1." * 500_000, id="dots"),
        pytest.param('for="[' + "1:" * 500_000, id="colons"),
    ],
)
def test_a_field_takes_no_more_time_than_its_length(value: str) -> None:
    """Some milliseconds; three hours if it were squared."""
    for header in (FORWARDED, XFF):
        source(head((header, value)), header)


# -- fronts on Unix sockets, and certificates

HEADER = ((XFF, CLIENT),)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({}, CLIENT, id="a front passes on"),
        pytest.param({"is_front_socket": False}, None, id="nobody knows who it is"),
        pytest.param({"is_fronts_own": True}, None, id="the front's own connection"),
        pytest.param({"is_relayed": True}, None, id="somebody unknown is relayed"),
        pytest.param(
            {"is_relayed": True, "connection_source": address(FRONT)},
            CLIENT,
            id="a front is relayed",
        ),
        pytest.param(
            {"is_relayed": True, "connection_source": address("203.0.113.9")},
            "203.0.113.9",
            id="a client is relayed",
        ),
    ],
)
def test_a_front_on_a_socket_is_believed_like_one_with_an_address(
    said: dict[str, object], expected: str | None
) -> None:
    request = replace(head(*HEADER, peer=None), **{"is_front_socket": True} | said)  # type: ignore[arg-type]
    assert source(request, XFF) == expected


NAMES = frozenset({"dns:nova.example.org"})


@pytest.mark.parametrize(
    ("said", "is_its_own"),
    [
        pytest.param({"peer": CLIENT}, True, id="no front"),
        pytest.param({"peer": None}, True, id="a Unix socket"),
        pytest.param({"connection_source": CLIENT}, True, id="a client that a front relays"),
        pytest.param({"connection_source": None}, True, id="somebody whom a front relays"),
        pytest.param({}, False, id="a front"),
        pytest.param({"connection_source": OTHER_FRONT}, False, id="a front that a front relays"),
    ],
)
@pytest.mark.parametrize("header", [XFF, "none"])
def test_a_certificate_is_that_of_who_sends_and_not_of_a_front_that_passes_on(
    said: dict[str, str | None], header: str, *, is_its_own: bool
) -> None:
    for pairs in ((), HEADER):
        request = replace(head(*pairs, **said), certificate_names=NAMES)
        found = with_source(request, Fronts(NETWORKS, header.lower()))
        assert found.certificate_names == (NAMES if is_its_own else frozenset())


@pytest.mark.parametrize(
    ("said", "is_its_own"),
    [
        pytest.param({}, False, id="a front"),
        pytest.param({"is_fronts_own": True}, False, id="its own connection"),
        pytest.param({"is_relayed": True}, True, id="whom it relays"),
    ],
)
def test_a_certificate_on_a_socket_of_fronts_is_that_of_whom_they_relay(
    said: dict[str, bool], *, is_its_own: bool
) -> None:
    made = replace(head(peer=None), is_front_socket=True, certificate_names=NAMES, **said)  # type: ignore[arg-type]
    found = with_source(made, Fronts((), "x-forwarded-for"))
    assert found.certificate_names == (NAMES if is_its_own else frozenset())
