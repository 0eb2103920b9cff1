from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from relproxy.arrival import Arrival
from relproxy.certificates import read_proofs
from relproxy.config import Configuration
from relproxy.draining import InFlight
from relproxy.metrics import Metrics
from relproxy.securing import Securing, SecuringTerms
from relproxy.tls_contexts import listener_context
from tests.authority import PLAIN, Authority
from tests.unit.test_config import LEAST

PATIENCE_S = 20
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


class Server(asyncio.Protocol):
    """What a connection is handed over to: says what came, and echoes it."""

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.calls: list[str] = []
        self.is_lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.calls.append("data")
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.is_lost.set()


class Securings:
    """A listener of its own with TLS, and what it has served."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.metrics = Metrics()
        in_flight = InFlight(self.metrics)
        self.securing = Securing(SecuringTerms("public", context, 60), self.metrics, in_flight)
        self.served: list[Server] = []
        self.port = 0

    def connection(self) -> asyncio.Protocol:
        return self.securing.connection(self._serve, Arrival())

    def _serve(self, arrival: Arrival) -> Server:
        self.served.append(Server(arrival))
        return self.served[-1]


@asynccontextmanager
async def listening(authority: Authority) -> AsyncIterator[Securings]:
    listener = {"name": "public", "bind": "127.0.0.1:0", "tls": authority.asking("optional")}
    configuration = Configuration.model_validate(LEAST | {"listeners": [listener]})
    tls = configuration.listeners[0].tls
    assert tls is not None
    made = Securings(listener_context(read_proofs(configuration)["listeners[0].tls"], tls))
    server = await asyncio.get_running_loop().create_server(made.connection, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
        for each in made.served:
            each.transport.abort()
            await each.is_lost.wait()


@asynccontextmanager
async def connected(made: Securings, context: ssl.SSLContext) -> AsyncIterator[Server]:
    """Connect, and lend what serves the connection once it does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port, ssl=context)
    try:
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        yield made.served[-1]
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_is_made_known_its_connection_before_what_came_on_it(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.trusting()
    context.minimum_version = context.maximum_version = version
    async with listening(authority) as made:
        for _ in range(20):
            async with connected(made, context) as server:
                assert server.calls == ["made", "data"]


async def test_what_comes_together_with_the_end_of_the_handshake_is_not_lost(
    authority: Authority,
) -> None:
    """In TLS 1.3 a client may send at once: its request comes in one piece with its Finished."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    async with listening(authority) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        writer.write(outgoing.read())
        while True:
            incoming.write(await reader.read(65536))
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
        client.write(b"hello")
        writer.write(outgoing.read())
        received = b""
        async with asyncio.timeout(PATIENCE_S):
            while received != b"hello":
                try:
                    received += client.read(5)
                except ssl.SSLWantReadError:
                    incoming.write(await reader.read(65536))
        writer.transport.abort()
        assert made.served[0].calls == ["made", "data"]


async def test_a_connection_holds_little_before_anything_is_known_of_it(
    authority: Authority,
) -> None:
    async with listening(authority) as made, connected(made, authority.trusting()) as server:
        assert server.arrival.beneath is not None
        protocol = server.arrival.beneath.get_protocol()
        assert isinstance(protocol, asyncio.BufferedProtocol)
        assert memoryview(protocol.get_buffer(-1)).nbytes <= 64 * 1024
        _, high = server.transport.get_write_buffer_limits()
        assert high <= 64 * 1024


async def test_a_name_that_can_not_be_read_ends_the_connection_without_a_traceback(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    file = unreadable(authority)
    with caplog.at_level(logging.INFO):
        async with listening(authority) as made:
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                async with connected(made, authority.trusting(file)):
                    pass
    assert made.served == []
    assert not [record for record in caplog.records if record.exc_info]


def unreadable(authority: Authority) -> Path:
    """Return a certificate whose name is no text."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.ca.cert_pem.bytes())
    signer = serialization.load_pem_private_key(authority.ca.private_key_pem.bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    name = x509.UnrecognizedExtension(
        x509.OID_SUBJECT_ALTERNATIVE_NAME, b"\x30\x04\x82\x02\xff\xfe"
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(issuer.subject)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(name, critical=False)
        .sign(signer, hashes.SHA256())
    )
    file = authority.home / "unreadable.pem"
    file.write_bytes(made.public_bytes(PEM) + key.private_bytes(PEM, PKCS8, PLAIN))
    return file


async def test_who_has_not_finished_is_closed_with_the_listener_and_so_is_who_comes_later(
    authority: Authority,
) -> None:
    async with listening(authority) as made:
        reader, waiting = await asyncio.open_connection("127.0.0.1", made.port)
        # Who came later has been served, so this one has begun.
        async with connected(made, authority.trusting()):
            made.securing.close()
        later, late = await asyncio.open_connection("127.0.0.1", made.port)
        for each in (reader, later):
            with suppress(ConnectionResetError):
                assert await each.read() == b""
        for writer in (waiting, late):
            writer.transport.abort()


async def test_a_connection_that_nobody_serves_ends(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serves_nobody(_: Arrival) -> Server:
        raise ConnectionAbortedError("nobody serves any more")

    async with listening(authority) as made:
        monkeypatch.setattr(made, "_serve", serves_nobody)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", made.port, ssl=authority.trusting()
        )
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.transport.abort()
