from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relproxy.errors import AnnouncementError
from relproxy.filters.proxy_protocol import Announcement, missing_bytes, read_announcement
from relproxy.networks import parse_address
from tests.announcements import (
    LOCAL,
    RELAYED,
    SIGNATURE,
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    UNIX_DATAGRAM,
    UNIX_STREAM,
    UNSPECIFIED,
    v1,
    v2,
    v2_of,
)

PEER = ip_address("192.0.2.1")
LONGEST_V1 = b"PROXY UNKNOWN " + b"x" * (107 - 14 - 2) + b"\r\n"
BIG_TLVS = b"\xea\x01\x00" + bytes(256)

WHOLE = [
    pytest.param(v1("198.51.100.7"), "198.51.100.7", id="v1 IPv4"),
    pytest.param(v1("2001:db8::7"), "2001:db8::7", id="v1 IPv6"),
    pytest.param(v1("2001:DB8::ABCD"), "2001:db8::abcd", id="v1 IPv6 in capitals"),
    pytest.param(v1("::ffff:198.51.100.7"), "198.51.100.7", id="v1 IPv4 in its IPv6 form"),
    pytest.param(v1("0.0.0.0", ports="0 65535"), "0.0.0.0", id="v1 ports at both ends"),
    pytest.param(v2("198.51.100.7"), "198.51.100.7", id="v2 IPv4"),
    pytest.param(v2("198.51.100.7", kind=UDP4), "198.51.100.7", id="v2 IPv4, UDP"),
    pytest.param(v2("2001:db8::7"), "2001:db8::7", id="v2 IPv6"),
    pytest.param(v2("2001:db8::7", kind=UDP6), "2001:db8::7", id="v2 IPv6, UDP"),
    pytest.param(v2("::ffff:198.51.100.7"), "198.51.100.7", id="v2 IPv4 in its IPv6 form"),
    pytest.param(v2("198.51.100.7", tlvs=BIG_TLVS), "198.51.100.7", id="v2 with TLVs"),
    pytest.param(v2("198.51.100.7", tlvs=b"\xff"), "198.51.100.7", id="v2 with half a TLV"),
    pytest.param(v2_of(RELAYED, UNIX_STREAM, bytes(216)), None, id="v2 Unix socket"),
    pytest.param(v2_of(RELAYED, UNIX_DATAGRAM, bytes(216)), None, id="v2 Unix datagrams"),
    pytest.param(v2_of(RELAYED, UNSPECIFIED), None, id="v2 of an unknown protocol"),
    pytest.param(v2_of(RELAYED, UNSPECIFIED, bytes(12)), None, id="v2 unknown, with addresses"),
    pytest.param(b"PROXY UNKNOWN\r\n", str(PEER), id="v1 unknown"),
    pytest.param(b"PROXY UNKNOWN 1.2.3.4 5\xff\r\n", str(PEER), id="v1 unknown, with addresses"),
    pytest.param(LONGEST_V1, str(PEER), id="v1 as long as it may be"),
    pytest.param(v2_of(LOCAL, UNSPECIFIED), str(PEER), id="v2 local"),
    pytest.param(v2_of(LOCAL, TCP4, bytes(12)), str(PEER), id="v2 local, with addresses"),
    pytest.param(v2_of(LOCAL, 0xFF, b"x"), str(PEER), id="v2 local, whatever else it says"),
]


@pytest.mark.parametrize(("header", "source"), WHOLE)
def test_a_header_says_whose_connection_it_is_and_where_it_ends(
    header: bytes, source: str | None
) -> None:
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", v1("203.0.113.9"), SIGNATURE, b"\0"):
        announcement = read_announcement(header + rest)

        assert announcement is not None
        assert announcement.length == len(header)
        assert announcement.source(PEER) == (parse_address(source) if source else None)


@pytest.mark.parametrize(("header", "source"), WHOLE)
def test_a_header_that_is_cut_anywhere_is_waited_for(header: bytes, source: str | None) -> None:
    del source
    for length in range(len(header)):
        assert read_announcement(header[:length]) is None, header[:length]


def test_a_header_is_the_fronts_own_or_relayed() -> None:
    assert read_announcement(v2_of(LOCAL, UNSPECIFIED)) == Announcement(16, is_relayed=False)
    assert read_announcement(v2_of(RELAYED, UNSPECIFIED)) == Announcement(16, is_relayed=True)


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="a request"),
        pytest.param(b"P\r\n", id="another word"),
        pytest.param(b"PROXYTCP4", id="no blank"),
        pytest.param(b"proxy TCP4", id="small letters"),
        pytest.param(b" PROXY", id="a blank before it"),
        pytest.param(b"\r\n\r\nGET", id="empty lines"),
        pytest.param(b"\x16\x03\x01", id="TLS"),
        pytest.param(b"PROXY \r\n", id="v1 without a protocol"),
        pytest.param(b"PROXY TCP4\r\n", id="v1 without addresses"),
        pytest.param(b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", id="v1 of no family"),
        pytest.param(b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", id="v1 of no protocol"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", id="v1 with one port"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", id="v1 with a blank at its end"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", id="v1 with more than it has"),
        pytest.param(b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", id="v1 with two blanks"),
        pytest.param(b"PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n", id="v1 with a tab"),
        pytest.param(b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", id="v1 with a leading zero"),
        pytest.param(b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", id="v1 with no address"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2 1 2\r\n", id="v1 with no destination"),
        pytest.param(b"PROXY TCP4 nova.example 192.0.2.2 1 2\r\n", id="v1 with a name"),
        pytest.param(b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", id="v1 IPv6 as IPv4"),
        pytest.param(b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", id="v1 IPv4 as IPv6"),
        pytest.param(b"PROXY TCP6 2001:db8::1 192.0.2.2 1 2\r\n", id="v1 of two families"),
        pytest.param(b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", id="v1 with a zone"),
        pytest.param(b"PROXY TCP6 [2001:db8::1] [2001:db8::2] 1 2\r\n", id="v1 with brackets"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", id="v1 with no source port"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 70000\r\n", id="v1 with no port"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", id="v1 with a port as 01"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", id="v1 with a port below 0"),
        pytest.param("PROXY TCP4 192.0.2.1 192.0.2.2 \u0661 2\r\n".encode(), id="v1 not ASCII"),
        pytest.param(b"PROXY UNKNOWNS\r\n", id="v1 with another word"),
        pytest.param(b"PROXY UNKNOWN\nGET / HTTP/1.1\r\n", id="v1 ended by LF"),
        pytest.param(b"PROXY UNKNOWN a\nb\r\n", id="v1 unknown, ended by LF"),
        pytest.param(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nA: b\r\n", id="v1 known, ended by LF"),
        pytest.param(b"PROXY UNKNOWN a\rb\r\n", id="v1 with a CR"),
        pytest.param(LONGEST_V1[:-2] + b"x\r\n", id="v1 one byte too long"),
        pytest.param(b"PROXY TCP4 " + b"1" * 96, id="v1 without an end"),
        pytest.param(SIGNATURE + b"\x11", id="v2 of version 1"),
        pytest.param(SIGNATURE + b"\x31", id="v2 of version 3"),
        pytest.param(SIGNATURE + b"\x22", id="v2 with no command"),
        pytest.param(v2_of(RELAYED, 0x13, bytes(12)), id="v2 with no transport"),
        pytest.param(v2_of(RELAYED, 0x10, bytes(12)), id="v2 of an unknown transport"),
        pytest.param(v2_of(RELAYED, 0x01, bytes(12)), id="v2 of an unknown family"),
        pytest.param(v2_of(RELAYED, 0x41, bytes(216)), id="v2 with no family"),
        pytest.param(v2_of(RELAYED, TCP4, bytes(11)), id="v2 IPv4 too short"),
        pytest.param(v2_of(RELAYED, TCP6, bytes(35)), id="v2 IPv6 too short"),
        pytest.param(v2_of(RELAYED, UNIX_STREAM, bytes(215)), id="v2 Unix socket too short"),
        pytest.param(SIGNATURE + b"\x21\x11\xff\xff", id="v2 too long, as soon as it says so"),
        pytest.param(SIGNATURE + b"\x20\x00\xff\xff", id="v2 local and too long"),
    ],
)
def test_what_is_no_header_is_refused(received: bytes) -> None:
    with pytest.raises(AnnouncementError):
        read_announcement(received)


def test_a_header_may_be_as_long_as_a_head_of_http() -> None:
    longest = v2("198.51.100.7", tlvs=bytes(16 * 1024 - 28))
    announcement = read_announcement(longest)

    assert announcement is not None
    assert announcement.length == 16 * 1024
    with pytest.raises(AnnouncementError):
        read_announcement(v2("198.51.100.7", tlvs=bytes(16 * 1024 - 27)))


addresses = st.ip_addresses()


@given(address=addresses, tlvs=st.binary(max_size=600), rest=st.binary(max_size=50))
def test_what_a_front_writes_is_read(address: object, tlvs: bytes, rest: bytes) -> None:
    for header in (v1(str(address)), v2(str(address), tlvs=tlvs)):
        announcement = read_announcement(header + rest)

        assert announcement is not None
        assert announcement.length == len(header)
        assert announcement.client == parse_address(str(address))


noise = st.binary(max_size=60)
beginnings = st.sampled_from(
    [b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE, SIGNATURE + b"\x21\x11\0"]
)


@given(received=st.tuples(beginnings, noise).map(b"".join), further=noise)
def test_more_bytes_never_change_what_was_read(received: bytes, further: bytes) -> None:
    """It doesn't matter how the bytes were cut into packets, or what the client sends next."""
    try:
        early = read_announcement(received)
    except AnnouncementError:
        with pytest.raises(AnnouncementError):
            read_announcement(received + further)
        return

    if early is not None:
        assert read_announcement(received + further) == early
        assert early.length <= len(received)


@given(
    header=addresses.flatmap(lambda a: st.sampled_from([v1(str(a)), v2(str(a))])), data=st.data()
)
def test_one_wrong_byte_makes_another_header_or_none(header: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(header) - 1))
    wrong = bytearray(header)
    wrong[place] ^= data.draw(st.integers(1, 255))
    try:
        announcement = read_announcement(bytes(wrong) + bytes(20))
    except AnnouncementError:
        return

    assert announcement is None or announcement.length <= len(wrong) + 20


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(v1("192.0.2.1"), id="version 1"),
        pytest.param(v1("2001:db8::1"), id="version 1, IPv6"),
        pytest.param(b"PROXY UNKNOWN\r\n", id="version 1, the shortest"),
        pytest.param(b"PROXY UNKNOWN anything at all\r\n", id="version 1, ignored"),
        pytest.param(v2("192.0.2.1", tlvs=bytes(70)), id="version 2"),
        pytest.param(v2_of(LOCAL, UNSPECIFIED), id="version 2, the shortest"),
    ],
)
def test_who_reads_what_is_missing_reads_the_header_and_no_more(header: bytes) -> None:
    stream, received = header + b"\x16\x03\x01" + bytes(200), b""
    reads = 0
    while (announcement := read_announcement(received)) is None:
        missing = missing_bytes(received)
        assert missing > 0
        received, reads = stream[: len(received) + missing], reads + 1
    assert received == header
    assert announcement.length == len(header)
    assert reads < 60
