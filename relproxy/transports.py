"""Connections that can't be made, and ending those that are for good."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct

# No descriptor, or no memory for one: of this process, or of the whole system.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_LINGERING = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """End a connection, and what the system still holds for it: it would for minutes."""
    if (peer := transport.get_extra_info("socket")) is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
    transport.abort()
