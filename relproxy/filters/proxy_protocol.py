"""The PROXY protocol: what a front says, before anything else, of the connection that it relays.

Both versions, as HAProxy's proxy-protocol.txt (sections 2.1 and 2.2) has them. Exactly that is
read, and nothing is guessed: a sender that means another thing is a mistake or an attack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from relproxy.errors import AnnouncementError
from relproxy.networks import Address, parse_address

_SIGNATURE_V1 = b"PROXY "
_SIGNATURE_V2 = b"\r\n\r\n\0\r\nQUIT\n"

# The longest line of version 1, its end included (section 2.1).
_MAX_V1_BYTES = 107
_MIN_V1_BYTES = len(b"PROXY UNKNOWN\r\n")
# What a TLV may hold is anybody's choice; a client's certificate fits with room.
_MAX_V2_BYTES = 16 * 1024
_HEAD_V2_BYTES = 16

_ADDRESS = rb"([0-9A-Fa-f:.]+)"
_PORT = rb"(0|[1-9][0-9]{0,4})"
_KNOWN_V1 = re.compile(rb"PROXY TCP([46]) %b %b %b %b" % (_ADDRESS, _ADDRESS, _PORT, _PORT))
# The rest of such a line is to be ignored; but a lone CR or LF ends no line.
_UNKNOWN_V1 = re.compile(rb"PROXY UNKNOWN( [^\r\n]*)?")

_LOCAL, _RELAYED = 0x20, 0x21
# Family and transport -> bytes of the source's address, bytes of all addresses and ports. UNSPEC
# and AF_UNIX have no address that a network could be compared with.
_KINDS_V2 = {
    0x00: (0, 0),
    0x11: (4, 12),
    0x12: (4, 12),
    0x21: (16, 36),
    0x22: (16, 36),
    0x31: (0, 216),
    0x32: (0, 216),
}


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a header says. It is `length` bytes long: what follows is the client's own.

    A connection that is not relayed is the front's own, such as a health check (LOCAL, UNKNOWN).
    `client` is None where the front relays a connection whose address it doesn't say.
    """

    length: int
    is_relayed: bool
    client: Address | None = None

    def source(self, peer: Address | None) -> Address | None:
        """Return whose connection this is; `peer` is the front's end of it."""
        return self.client if self.is_relayed else peer


def read_announcement(received: bytes) -> Announcement | None:
    """Read the header at the beginning of a connection; None as long as it isn't whole.

    Raises `AnnouncementError` as soon as no more bytes could make a header of it.
    """
    if received.startswith(_SIGNATURE_V2):
        return _read_v2(received)
    if received.startswith(_SIGNATURE_V1):
        return _read_v1(received)
    if any(signature.startswith(received) for signature in (_SIGNATURE_V1, _SIGNATURE_V2)):
        return None
    raise AnnouncementError("The connection doesn't begin with a PROXY protocol header.")


def missing_bytes(received: bytes) -> int:
    """Return how many bytes at least have yet to come of a header that isn't whole.

    Whoever reads no more than these at a time reads nothing of what follows the header.
    """
    if not received.startswith(_SIGNATURE_V2):
        behind = 1 if received.endswith(b"\r") else 2
        return max(_MIN_V1_BYTES - len(received), behind)
    if len(received) < _HEAD_V2_BYTES:
        return _HEAD_V2_BYTES - len(received)
    return _HEAD_V2_BYTES + int.from_bytes(received[14:16], "big") - len(received)


def _read_v1(received: bytes) -> Announcement | None:
    line, end, _ = received[:_MAX_V1_BYTES].partition(b"\r\n")
    if not end:
        if len(received) >= _MAX_V1_BYTES:
            raise AnnouncementError("The line of PROXY protocol 1 is too long.")
        return None
    length = len(line) + len(end)
    if _UNKNOWN_V1.fullmatch(line):
        return Announcement(length, is_relayed=False)
    known = _KNOWN_V1.fullmatch(line)
    if known is None or any(int(port) > 0xFFFF for port in known.group(4, 5)):
        raise AnnouncementError("The line of PROXY protocol 1 is not one.")
    family, source, destination = (part.decode("ascii") for part in known.group(1, 2, 3))
    client = _address_v1(source, family)
    _address_v1(destination, family)
    return Announcement(length, is_relayed=True, client=client)


def _address_v1(text: str, family: str) -> Address:
    address = parse_address(text)
    if address is None or (":" in text) is not (family == "6"):
        raise AnnouncementError("The line of PROXY protocol 1 has an address that is none.")
    return address


def _read_v2(received: bytes) -> Announcement | None:
    signature = len(_SIGNATURE_V2)
    if received[signature : signature + 1] not in {b"", bytes((_LOCAL,)), bytes((_RELAYED,))}:
        raise AnnouncementError("The header has no version or command of PROXY protocol 2.")
    if len(received) < _HEAD_V2_BYTES:
        return None
    command, kind = received[signature : signature + 2]
    length = _HEAD_V2_BYTES + int.from_bytes(received[signature + 2 : _HEAD_V2_BYTES], "big")
    source_bytes, addresses_bytes = _KINDS_V2.get(kind, (0, None))
    if command == _LOCAL:
        source_bytes, addresses_bytes = 0, 0
    if addresses_bytes is None:
        raise AnnouncementError("The header has no family of PROXY protocol 2.")
    if not _HEAD_V2_BYTES + addresses_bytes <= length <= _MAX_V2_BYTES:
        raise AnnouncementError("The header of PROXY protocol 2 has an impossible length.")
    if len(received) < length:
        return None
    packed = received[_HEAD_V2_BYTES : _HEAD_V2_BYTES + source_bytes]
    client = parse_address(str(ip_address(packed))) if packed else None
    return Announcement(length, is_relayed=command == _RELAYED, client=client)
