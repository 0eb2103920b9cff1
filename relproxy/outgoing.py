"""One request on its way to a registry: what is sent, and how long that may take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from multidict import CIMultiDict

from relproxy.errors import RelproxyError
from relproxy.messages import Errand, RequestBody

# RFC 9110, section 9.2.1, but for TRACE.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Upload:
    """A body that is streamed, which can be done once."""

    def __init__(self, body: RequestBody) -> None:
        self._body = body
        self._deadline: asyncio.Timeout | None = None
        # Whether it was the client that broke it off; whether any of it has been taken; what the
        # client is told, if it is still there.
        self.has_failed = False
        self.has_begun = False
        self.refusal: RelproxyError | None = None

    @property
    def is_awaited(self) -> bool:
        """Tell whether the client sends it only once it was told to go on."""
        return self._body.is_awaited

    @contextlib.contextmanager
    def moving(self, deadline: asyncio.Timeout) -> Iterator[None]:
        """Move a deadline as the body is sent, for as long as there is no answer."""
        self._deadline = deadline
        try:
            yield
        finally:
            self._deadline = None

    async def chunks(self, *, piece_s: float, head_s: float | None) -> AsyncIterator[bytes]:
        """Yield the body; each piece has its time to be taken, and what follows it to be answered.

        What the client has for sending it is none of the registry's time.
        """
        try:
            async for chunk in self._body.chunks():
                self.has_begun = True
                self._allow(piece_s)
                yield chunk
                self._allow(None)
        except Exception as failure:
            self.has_failed = True
            self.refusal = failure if isinstance(failure, RelproxyError) else None
            raise
        self._allow(head_s)

    def _allow(self, seconds: float | None) -> None:
        if self._deadline is not None and not self._deadline.expired():
            when = None if seconds is None else asyncio.get_running_loop().time() + seconds
            self._deadline.reschedule(when)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request as it is sent, to whichever endpoint."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes | None
    upload: Upload | None
    errand: Errand

    @property
    def is_repeatable(self) -> bool:
        """Tell whether it may be sent again although the registry may have got it."""
        return self.method in _SAFE and not self.body and self.upload is None
