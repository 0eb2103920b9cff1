"""PROXY protocol headers for tests to send."""

from __future__ import annotations

from ipaddress import ip_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, RELAYED = 0x20, 0x21
TCP4, UDP4, TCP6, UDP6, UNIX_STREAM, UNIX_DATAGRAM = 0x11, 0x12, 0x21, 0x22, 0x31, 0x32
UNSPECIFIED = 0x00


def v1(source: str, destination: str | None = None, ports: str = "56324 9292") -> bytes:
    """Return the line of version 1 for a client."""
    family = ip_address(source).version
    other = destination or ("192.0.2.200" if family == 4 else "2001:db8::200")
    return f"PROXY TCP{family} {source} {other} {ports}\r\n".encode()


def v2(source: str, *, kind: int | None = None, tlvs: bytes = b"") -> bytes:
    """Return the header of version 2 for a client."""
    packed = ip_address(source).packed
    block = packed + bytes(len(packed)) + b"\xdc\x04\x24\x4c" + tlvs
    return v2_of(RELAYED, kind or (TCP4 if len(packed) == 4 else TCP6), block)


def v2_of(command: int, kind: int, block: bytes = b"") -> bytes:
    """Return a header of version 2 with this block behind its first sixteen bytes."""
    return SIGNATURE + bytes((command, kind)) + len(block).to_bytes(2, "big") + block
