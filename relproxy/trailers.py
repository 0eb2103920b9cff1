"""Trailers of requests: whether a connection may have had any, and so must end.

aiohttp's parser keeps the last trailer of a message, and has the head of the next one begin with
it: whoever shares a connection with others, behind a front, could put a field before their next
request. The parser doesn't say that there was one. So the connection is used again only where the
bytes themselves show that there was none: where chunks end, and with them all that has arrived, in
a last chunk with nothing behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

# Of a line with a field in it this can't be the end: no field is called `0` and has no colon.
_PLAIN_END = b"\r\n0\r\n\r\n"


class Payload(Protocol):
    """The body of a message that is being received."""

    # Of its content, so far.
    total_bytes: int

    def is_eof(self) -> bool:
        """Tell whether it has been received whole."""
        ...


class Trailers:
    """Looks at what arrives on one connection."""

    def __init__(self) -> None:
        self.may_have_come = False
        self._under_way: Payload | None = None
        self._tail = b""
        self._content = 0
        # How much has arrived of a body since the last of its content: trailers, or what tells
        # chunks apart.
        self.size = 0

    def took(
        self, data: bytes, parsed: Sequence[tuple[object, Payload]], *, is_all: bool = True
    ) -> None:
        """Look at what has arrived, and at the messages whose heads ended in it.

        `is_all` is whether the parser has surely held nothing of it back.
        """
        self._tail = (self._tail + data[-len(_PLAIN_END) :])[-len(_PLAIN_END) :]
        chunked = [
            payload if getattr(message, "chunked", False) else None for message, payload in parsed
        ]
        *before, last = [self._under_way, *chunked]
        # What was held back is parsed when there is room for it: then nobody knows what is its end.
        is_plain = is_all and bool(data) and self._tail == _PLAIN_END
        if any(before) or (last is not None and last.is_eof() and not is_plain):
            self.may_have_come = True
        self._count(None if last is None or last.is_eof() else last, len(data))

    def _count(self, under_way: Payload | None, size: int) -> None:
        content = 0 if under_way is None else under_way.total_bytes
        is_more = under_way is self._under_way and content == self._content
        self.size = self.size + size if is_more and under_way is not None else 0
        self._under_way, self._content = under_way, content
