from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from relproxy.announcing import Announcements, AnnouncementTerms
from relproxy.arrival import Arrival
from relproxy.draining import InFlight
from relproxy.filters.proxy_protocol import Announcement
from relproxy.metrics import Metrics
from tests.announcements import LOCAL, UNSPECIFIED, v1, v2, v2_of

FRONT, CLIENT = "192.0.2.1", "198.51.100.7"


class Transport(asyncio.Transport):
    """One end of a connection that goes nowhere."""

    def __init__(self, peername: Any = (FRONT, 4711)) -> None:
        super().__init__({"peername": peername})
        self.served_by: asyncio.BaseProtocol | None = None
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.served_by = protocol


class Server(asyncio.Protocol):
    """What a connection is handed over to."""

    arrival = Arrival()

    def __init__(self) -> None:
        self.calls: list[object] = []

    @property
    def announcement(self) -> Announcement:
        assert self.arrival.announcement is not None
        return self.arrival.announcement

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append(transport)

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def announcements(metrics: Metrics) -> Announcements:
    return made(AnnouncementTerms("public", (ip_network("192.0.2.1/32"),), 60), metrics)


def made(terms: AnnouncementTerms, metrics: Metrics) -> Announcements:
    return Announcements(terms, metrics, InFlight(metrics))


def refused(metrics: Metrics, reason: str) -> float:
    value: float = metrics.connections_refused.labels("public", reason)._value.get()  # noqa: SLF001
    return value


def connected(
    announcements: Announcements, transport: Transport, server: Server
) -> asyncio.BufferedProtocol:
    def serve(arrival: Arrival) -> Server:
        server.arrival = arrival
        return server

    protocol = announcements.connection(serve)
    protocol.connection_made(transport)
    return protocol


def receive(protocol: asyncio.BufferedProtocol, data: bytes) -> bytes:
    """Give a protocol what it takes of what has arrived at once; return the rest."""
    room = memoryview(protocol.get_buffer(-1))
    taken = data[: len(room)]
    room[: len(taken)] = taken
    protocol.buffer_updated(len(taken))
    return data[len(taken) :]


async def test_a_connection_is_handed_over_with_what_came_behind_its_header(
    announcements: Announcements,
) -> None:
    transport, server = Transport(), Server()
    protocol = connected(announcements, transport, server)
    receive(protocol, v1(CLIENT)[:20])
    assert server.calls == []

    receive(protocol, v1(CLIENT)[20:] + b"GET")

    assert transport.served_by is server
    assert server.calls == [transport, b"GET"]
    assert server.announcement.source(ip_address(FRONT)) == ip_address(CLIENT)


async def test_nothing_is_handed_over_that_did_not_come(announcements: Announcements) -> None:
    transport, server = Transport(), Server()
    receive(connected(announcements, transport, server), v2_of(LOCAL, UNSPECIFIED))

    assert server.calls == [transport]
    assert server.announcement.source(ip_address(FRONT)) == ip_address(FRONT)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(v1(CLIENT), id="version 1"),
        pytest.param(v1("2001:db8::7"), id="version 1, IPv6"),
        pytest.param(b"PROXY UNKNOWN\r\n", id="version 1, the shortest"),
        pytest.param(v2(CLIENT, tlvs=bytes(300)), id="version 2"),
        pytest.param(v2_of(LOCAL, UNSPECIFIED), id="version 2, the shortest"),
    ],
)
async def test_nothing_behind_a_header_is_read_before_a_handshake(
    metrics: Metrics, header: bytes
) -> None:
    networks = (ip_network("192.0.2.1/32"),)
    terms = AnnouncementTerms("public", networks, 60, reads_no_further=True)
    transport, server = Transport(), Server()
    protocol = connected(made(terms, metrics), transport, server)
    rest = header + b"\x16\x03\x01"
    while transport.served_by is None:
        rest = receive(protocol, rest)

    assert rest == b"\x16\x03\x01"
    assert server.calls == [transport]


async def test_on_a_socket_of_fronts_everybody_is_one(metrics: Metrics) -> None:
    terms = AnnouncementTerms("public", (), 60, is_fronted=True)
    transport, server = Transport(""), Server()
    receive(connected(made(terms, metrics), transport, server), v1(CLIENT))

    assert server.announcement.source(None) == ip_address(CLIENT)


@pytest.mark.parametrize(
    "peername",
    [
        pytest.param(None, id="gone already"),
        pytest.param("", id="of a Unix socket"),
        pytest.param((CLIENT, 1), id="no front"),
    ],
)
async def test_a_peer_that_is_no_known_front_is_closed_at_once(
    announcements: Announcements, metrics: Metrics, peername: Any
) -> None:
    transport = Transport(peername)
    connected(announcements, transport, Server())

    assert transport.is_aborted
    assert refused(metrics, "not_a_front") == 1


async def test_a_front_on_a_dual_stack_socket_is_a_front(announcements: Announcements) -> None:
    transport = Transport((f"::ffff:{FRONT}", 1, 0, 0))
    connected(announcements, transport, Server())

    assert not transport.is_aborted


async def test_a_connection_that_comes_while_all_is_closed_is_closed_too(
    announcements: Announcements, metrics: Metrics
) -> None:
    waiting, lost, served = Transport(), Transport(), Transport()
    connected(announcements, waiting, Server())
    connected(announcements, lost, Server()).connection_lost(None)
    receive(connected(announcements, served, Server()), v1(CLIENT))
    announcements.close()
    late = Transport()
    connected(announcements, late, Server())

    assert [each.is_aborted for each in (waiting, late)] == [True, True]
    # Those are not its own any more.
    assert [each.is_aborted for each in (lost, served)] == [False, False]
    assert refused(metrics, "not_a_front") == 0


async def test_a_refused_connection_is_counted_once(metrics: Metrics) -> None:
    terms = AnnouncementTerms("public", (ip_network("192.0.2.1/32"),), 0)
    transport = Transport()
    receive(connected(made(terms, metrics), transport, Server()), b"GET /")
    await asyncio.sleep(0.01)

    assert transport.is_aborted
    assert refused(metrics, "malformed") == 1
    assert refused(metrics, "timeout") == 0


async def test_who_is_replaced_waits_for_who_has_announced_nothing_yet(
    announcements: Announcements,
) -> None:
    transport = Transport()
    protocol = connected(announcements, transport, Server())
    ending = asyncio.create_task(announcements.in_flight.end(60))
    await asyncio.sleep(0)
    assert not ending.done()
    # The server has none of its own here, so this is the end of all.
    receive(protocol, v1(CLIENT))
    await ending
    assert not transport.is_aborted
