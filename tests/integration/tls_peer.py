"""A server on the library's own blocking sockets: it sends alerts, and may leave without a word.

asyncio's servers do neither: they lose the alert that ends a handshake, and always take their leave
by close_notify.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_PATIENCE_S = 20


@dataclass
class TlsPeer:
    """Answers each request with the same bytes, and then ends the connection.

    `is_polite` is whether it says close_notify first. `failures` are handshakes that failed.
    """

    context: ssl.SSLContext
    answer: bytes = b""
    is_polite: bool = True
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def serve(self, listening: socket.socket) -> None:
        """Serve one connection after the other until the listening socket is shut down."""
        self.context.sni_callback = lambda _, name, __: self.names.append(name)
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                accepted.settimeout(_PATIENCE_S)
                self._serve(accepted)

    def _serve(self, accepted: socket.socket) -> None:
        try:
            with self.context.wrap_socket(accepted, server_side=True) as connection:
                request = b""
                while b"\r\n\r\n" not in request and (got := connection.recv(65536)):
                    request += got
                self.requests.append(request)
                connection.sendall(self.answer)
                if self.is_polite:
                    with contextlib.suppress(OSError):
                        connection.unwrap()
        except OSError as failure:
            self.failures.append(str(failure))


@contextlib.contextmanager
def peering(context: ssl.SSLContext) -> Iterator[TlsPeer]:
    """Run a peer on a free port, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = TlsPeer(context, port=listening.getsockname()[1])
        thread = threading.Thread(target=peer.serve, args=(listening,))
        thread.start()
        try:
            yield peer
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
