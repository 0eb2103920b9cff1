"""What was learnt of tokens, for a while: bounded, and without any token in it."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_Known = TypeVar("_Known")


class TokenNames:
    """Gives tokens the names by which they are remembered: hashes with a key of this process's own.

    So no dump of a cache gives anybody a token, and no hash can be made ahead.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def name(self, token: str, *, allow_expired: bool) -> bytes:
        """Return the name; what was learnt where a token's end didn't count has another one."""
        digest = hashlib.blake2b(token.encode(), key=self._key, digest_size=32)
        digest.update(b"\0expired" if allow_expired else b"\0")
        return digest.digest()


class TokenCache(Generic[_Known]):
    """Remembers at most `size` things by name; what was asked for longest ago goes first."""

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, _Known]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: bytes) -> _Known | None:
        """Return what is known, or None; what is too old is forgotten."""
        found = self._known.get(name)
        if found is None:
            return None
        until, known = found
        if self._clock() >= until:
            del self._known[name]
            return None
        self._known.move_to_end(name)
        return known

    def keep(self, name: bytes, known: _Known, *, for_s: float) -> None:
        """Remember something for so many seconds, and forget what was asked for before that."""
        now = self._clock()
        self._known[name] = now + for_s, known
        self._known.move_to_end(name)
        # What isn't first can have ended too: it goes when what was asked for before it has ended.
        while self._known and next(iter(self._known.values()))[0] <= now:
            self._known.popitem(last=False)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
