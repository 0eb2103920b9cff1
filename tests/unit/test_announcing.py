from __future__ import annotations

import asyncio
import gc
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from relproxy.announcing import Announcements, AnnouncementTerms
from relproxy.metrics import Metrics
from tests.announcements import LOCAL, UNSPECIFIED, v1, v2_of

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

    def __init__(self) -> None:
        self.calls: list[object] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append(transport)

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def announcements(metrics: Metrics) -> Announcements:
    return Announcements(AnnouncementTerms("public", (ip_network("192.0.2.1/32"),), 60), metrics)


def refused(metrics: Metrics, reason: str) -> float:
    value: float = metrics.connections_refused.labels("public", reason)._value.get()  # noqa: SLF001
    return value


def connected(announcements: Announcements, transport: Transport, server: Server) -> Any:
    protocol = announcements.connection(lambda: server)
    protocol.connection_made(transport)
    return protocol


async def test_a_connection_is_handed_over_with_what_came_behind_its_header(
    announcements: Announcements,
) -> None:
    transport, server = Transport(), Server()
    protocol = connected(announcements, transport, server)
    protocol.data_received(v1(CLIENT)[:20])
    assert server.calls == []
    assert announcements.of(transport).source(ip_address(FRONT)) is None

    protocol.data_received(v1(CLIENT)[20:] + b"GET")

    assert transport.served_by is server
    assert server.calls == [transport, b"GET"]
    assert announcements.of(transport).source(ip_address(FRONT)) == ip_address(CLIENT)


async def test_nothing_is_handed_over_that_did_not_come(announcements: Announcements) -> None:
    transport, server = Transport(), Server()
    connected(announcements, transport, server).data_received(v2_of(LOCAL, UNSPECIFIED))

    assert server.calls == [transport]
    assert announcements.of(transport).source(ip_address(FRONT)) == ip_address(FRONT)


async def test_an_address_is_forgotten_with_its_connection(announcements: Announcements) -> None:
    transport = Transport()
    connected(announcements, transport, Server()).data_received(v1(CLIENT))
    assert len(announcements._made) == 1  # noqa: SLF001
    del transport
    gc.collect()

    assert len(announcements._made) == 0  # noqa: SLF001
    assert announcements.of(None).source(ip_address(FRONT)) is None


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
    connected(announcements, served, Server()).data_received(v1(CLIENT))
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
    connected(Announcements(terms, metrics), transport, Server()).data_received(b"GET /")
    await asyncio.sleep(0.01)

    assert transport.is_aborted
    assert refused(metrics, "malformed") == 1
    assert refused(metrics, "timeout") == 0
