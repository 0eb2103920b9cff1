"""A tap on a connection: passes bytes on, and keeps what clients sent."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_HEAD = re.compile(rb"(GET|POST|PUT|PATCH|DELETE|HEAD) (\S+) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)+)\r\n")


@dataclass(frozen=True)
class Sent:
    """One request as it went by: headers by name in lower case, no body that came in chunks."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Tap:
    """What went by since the last `forget`."""

    url: str
    _wires: list[bytearray] = field(default_factory=list)

    def sent(self) -> list[Sent]:
        """Return the requests, those of one connection in order."""
        return [request for wire in self._wires for request in _read(bytes(wire))]

    def forget(self) -> None:
        """Keep nothing of what has gone by until now."""
        for wire in self._wires:
            wire.clear()

    def new_wire(self) -> bytearray:
        """Return what a new connection's bytes are kept in."""
        self._wires.append(bytearray())
        return self._wires[-1]


def _read(wire: bytes) -> Iterator[Sent]:
    for found in _HEAD.finditer(wire):
        lines = [line.partition(":") for line in found[3].decode().splitlines()]
        headers = {name.lower(): value.strip() for name, _, value in lines}
        length = int(headers.get("content-length", 0))
        body = wire[found.end() : found.end() + length]
        yield Sent(found[1].decode(), found[2].decode(), headers, body)


@contextlib.contextmanager
def tapped(url: str) -> Iterator[Tap]:
    """Listen on loopback and pass on to `url`; end with every connection."""
    upstream = urlsplit(url)
    assert upstream.hostname is not None
    assert upstream.port is not None
    with socket.create_server(("127.0.0.1", 0)) as server:
        tap = Tap(f"http://127.0.0.1:{server.getsockname()[1]}")
        where = (upstream.hostname, upstream.port)
        thread = threading.Thread(target=_accept, args=(server, where, tap), daemon=True)
        thread.start()
        yield tap
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(server: socket.socket, where: tuple[str, int], tap: Tap) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, where, tap.new_wire()), daemon=True).start()


def _serve(client: socket.socket, where: tuple[str, int], kept: bytearray) -> None:
    with client, contextlib.suppress(OSError), socket.create_connection(where) as upstream:
        back = threading.Thread(target=_pass_on, args=(upstream, client, bytearray()), daemon=True)
        back.start()
        _pass_on(client, upstream, kept)
        back.join()


def _pass_on(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            # Kept before it is passed on: whoever has the answer can see what was asked.
            kept += data
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
