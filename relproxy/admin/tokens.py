"""Whose token is it? The file that says so, read anew whenever it has changed.

While the file can't be read, or has a mistake, nobody is let in: somebody may just have been taken
out of it.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Collection
from pathlib import Path

from relproxy.config_tokens import Token, digest_of, parse_tokens
from relproxy.errors import ConfigurationError, TokensUnusableError

_LOG = logging.getLogger(__name__)

# A file that was changed so shortly before it was read may change again with the same times.
_SETTLED_NS = 2_000_000_000
_MAX_BYTES = 1024**2
# As short a secret as may not stand in the file is none, even if its hash stands there.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]{32,256}=*)", re.IGNORECASE)

_Stamp = tuple[int, ...]


class TokenFile:
    """The tokens of a file; raises `ConfigurationError` if they can't be had at the beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._reason: str | None = None
        self._tokens = self._read()

    def holder(self, authorization: str) -> Token | None:
        """Return the entry of a token, as the header Authorization has it; None if it has none.

        Raises `TokensUnusableError` while the file can't be used.
        """
        self._refresh()
        if (given := _BEARER.fullmatch(authorization)) is None:
            return None
        digest = digest_of(given[1])
        # Every one is compared, so that the time tells nothing.
        found = [t for t in self._tokens if hmac.compare_digest(t.digest or b"", digest)]
        return found[0] if found else None

    def named(self, names: Collection[str]) -> Token | None:
        """Return the first entry of one of a certificate's names; None if it has none.

        Raises `TokensUnusableError` while the file can't be used.
        """
        self._refresh()
        return next((token for token in self._tokens if token.certificate in names), None)

    def _refresh(self) -> None:
        try:
            if self._stamp is None or _stamp_of(self._path) != self._stamp:
                self._tokens = self._read()
                self._tell(None)
        except (ConfigurationError, OSError) as failure:
            self._stamp = None
            self._tell(str(failure))
            raise TokensUnusableError("The file of tokens can't be used: ask again later.") from (
                failure
            )

    def _read(self) -> tuple[Token, ...]:
        # Before the text: a change between the two is seen the next time.
        try:
            stamp = _stamp_of(self._path)
            with self._path.open("rb") as file:
                text = file.read(_MAX_BYTES).decode("utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8"
            raise ConfigurationError((f"{self._path}: can't be read: {reason}.",)) from None
        tokens = parse_tokens(text, str(self._path))
        is_settled = time.time_ns() - max(stamp[:2]) > _SETTLED_NS
        self._stamp = stamp if is_settled else None
        return tokens

    def _tell(self, reason: str | None) -> None:
        """Log a change for the worse, or for the better, once."""
        if reason is not None and reason != self._reason:
            _LOG.error("admin tokens can't be used", extra={"reason": reason})
        elif reason is None and self._reason is not None:
            _LOG.info("admin tokens can be used again")
        self._reason = reason


def _stamp_of(path: Path) -> _Stamp:
    found = path.stat()
    return (
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_size,
        found.st_ino,
        found.st_dev,
    )
