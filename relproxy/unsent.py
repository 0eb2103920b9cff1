"""How much of what relproxy answers may wait for clients to take it.

A list is built whole before any of it is sent, and is held until its client has taken it. Small
answers go out whatever waits; of large ones a project has a share, so that no project's clients,
who needn't read, keep the lists of another from being answered.
"""

from __future__ import annotations

from collections import Counter

from relproxy.errors import AnswersWaitError
from relproxy.messages import Response

# Less than a connection may hold anyway.
_SMALL_BYTES = 64 * 1024
_SHARES = 4


class Unsent:
    """The bytes of large answers that are at hand; each is held until its response is closed."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: Counter[str | None] = Counter()

    def held(self, response: Response, project: str | None) -> Response:
        """Return the response, counted until it is closed. Raises `AnswersWaitError`.

        One that is larger than may be held is answered all the same while nothing else is.
        """
        if not isinstance(response.body, bytes) or len(response.body) <= _SMALL_BYTES:
            return response
        size, own, total = len(response.body), self._held[project], self._held.total()
        is_over_share = own and own + size > self._max_bytes // _SHARES
        if is_over_share or (total and total + size > self._max_bytes):
            raise AnswersWaitError("Too many answers wait to be read by their clients.")
        self._held[project] += size

        async def aclose() -> None:
            self._held[project] -= size
            if not self._held[project]:
                del self._held[project]
            await response.aclose()

        return Response(response.head, response.body, aclose)
