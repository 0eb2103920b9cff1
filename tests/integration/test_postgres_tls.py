"""TLS with PostgreSQL: what a DSN asks for is what is done, or no word of a log-in is said."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relproxy.errors import StoreUnavailableError
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings
from tests.authority import Authority

# PostgreSQL's protocol, "SSL Session Encryption".
ASKS_FOR_TLS = struct.pack("!ii", 8, 80877103)
PATIENCE_S = 20


@dataclass
class Server:
    """The beginning of a PostgreSQL; `heard` is what was said once there was TLS, or wasn't."""

    context: ssl.SSLContext
    has_tls: bool = True
    port: int = 0
    heard: list[bytes] = field(default_factory=list)

    def serve(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                with accepted, contextlib.suppress(OSError):
                    accepted.settimeout(PATIENCE_S)
                    self._begin(accepted)

    def _begin(self, accepted: socket.socket) -> None:
        if accepted.recv(8) != ASKS_FOR_TLS:
            self.heard.append(b"plain")
            return
        accepted.sendall(b"S" if self.has_tls else b"N")
        if self.has_tls:
            with self.context.wrap_socket(accepted, server_side=True) as connection:
                self.heard.append(connection.recv(65536))
        elif rest := accepted.recv(65536):
            self.heard.append(rest)


@contextlib.contextmanager
def serving(context: ssl.SSLContext) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(context, port=listening.getsockname()[1])
        thread = threading.Thread(target=server.serve, args=(listening,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


async def connect(server: Server, ca_file: Path, mode: str = "verify-full") -> None:
    """Connect as the store does, which the beginning of a server can't satisfy."""
    asked = f"sslmode={mode}&sslrootcert={ca_file}"
    dsn = f"postgresql://relproxy@127.0.0.1:{server.port}/relproxy?{asked}"
    store = PostgresStore(PostgresSettings(dsn, connect_s=PATIENCE_S))
    try:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreUnavailableError):
                await store.open()
    finally:
        await store.close()


async def test_a_server_that_is_verified_hears_who_logs_in(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with serving(authority.context()) as server:
        await connect(server, authority.ca_file)
    assert b"user\0relproxy\0" in server.heard[0]


@pytest.mark.parametrize("why", ["unknown authority", "another name", "no TLS"])
async def test_a_server_that_is_not_verified_hears_nothing(tmp_path: Path, why: str) -> None:
    authority, stranger = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    name = "db.example" if why == "another name" else "127.0.0.1"
    issuer = stranger if why == "unknown authority" else authority
    with serving(issuer.context(name)) as server:
        server.has_tls = why != "no TLS"
        await connect(server, authority.ca_file)
    assert server.heard == []
