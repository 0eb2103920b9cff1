"""Bodies that have to be read whole, each within a cap; and such as are sent on all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from relproxy.errors import AnswerTooLargeError, BodyTooLargeError, RelproxyError
from relproxy.filters.body import decoded
from relproxy.messages import RequestBody, Response, ResponseHead


async def whole_request(body: RequestBody, *, max_bytes: int) -> bytes:
    """Read a request's body. Raises `BodyTooLargeError`, unread where its length says so."""
    if body.length is not None and body.length > max_bytes:
        raise too_large(max_bytes)
    content = await read_within(body.chunks(), max_bytes)
    if content is None:
        raise too_large(max_bytes)
    return content


async def whole_response(response: Response, *, max_bytes: int) -> bytes:
    """Read a response's body without its content codings, and close the response.

    Raises `RegistryGarbageError` if it is over the cap, broken, or in an unknown coding.
    """
    try:
        if isinstance(response.body, bytes):
            body: bytes | None = response.body
        else:
            body = await read_within(response.body, max_bytes)
    finally:
        await response.aclose()
    if body is None:
        raise _answer_too_large()
    codings = response.head.headers.values("Content-Encoding")
    return decoded(body, codings, max_bytes=max_bytes) if codings else body


def whole(head: ResponseHead, body: bytes) -> Response:
    """Return a response whose body was read and is sent on without its content codings."""
    headers = head.headers.without(("Content-Encoding",))
    headers = headers.with_replaced("Content-Length", str(len(body)))
    return Response(ResponseHead(head.status, head.reason, headers), body)


async def read_within(chunks: AsyncIterator[bytes], max_bytes: int) -> bytes | None:
    """Return all that arrives, or None as soon as it is more than `max_bytes`."""
    parts: list[bytes] = []
    return b"".join(parts) if await _gather(chunks, max_bytes, into=parts) else None


async def read_ahead(body: RequestBody, *, max_bytes: int) -> tuple[bytes | None, RequestBody]:
    """Return a request's body, None where it is over the cap; and the same body to be sent on."""
    if body.length is not None and body.length > max_bytes:
        return None, body
    parts: list[bytes] = []
    chunks = body.chunks()
    is_whole = await _gather(chunks, max_bytes, into=parts)
    return b"".join(parts) if is_whole else None, _Reread(body, parts, chunks)


@dataclass(frozen=True, slots=True)
class Copy:
    """An answer that is sent on as it came, and what could be read of it.

    `body` has its content codings still, and is None where it broke off with `failure`, or is over
    the cap.
    """

    response: Response
    body: bytes | None
    failure: RelproxyError | None = None

    def whole(self) -> Response:
        """Return the answer to be read; raises a `RelproxyError` where it isn't whole."""
        if self.body is None:
            raise self.failure or _answer_too_large()
        return Response(self.response.head, self.body)


async def copied(response: Response, *, max_bytes: int) -> Copy:
    """Read an answer as far as the cap; what is sent on is the very bytes, in whatever framing."""
    if isinstance(response.body, bytes):
        return Copy(response, response.body)
    parts: list[bytes] = []
    failure, is_whole = None, False
    try:
        is_whole = await _gather(response.body, max_bytes, into=parts)
    except RelproxyError as broken_off:
        failure = broken_off
    stream = _resumed(parts, response.body, failure)
    if failure is None and not is_whole:
        return Copy(Response(response.head, stream, response.aclose), None)
    await response.aclose()
    body = b"".join(parts) if is_whole else None
    return Copy(Response(response.head, stream), body, failure)


class _Reread:
    """A request's body of which the beginning has been read; see `RequestBody`."""

    def __init__(
        self, body: RequestBody, parts: Sequence[bytes], rest: AsyncIterator[bytes]
    ) -> None:
        self._body = body
        self._parts = parts
        self._rest = rest

    @property
    def is_empty(self) -> bool:
        return self._body.is_empty

    @property
    def length(self) -> int | None:
        return self._body.length

    @property
    def is_awaited(self) -> bool:
        return False

    def chunks(self) -> AsyncIterator[bytes]:
        return _resumed(self._parts, self._rest, None)


async def _gather(chunks: AsyncIterator[bytes], max_bytes: int, *, into: list[bytes]) -> bool:
    """Read into a list; False as soon as it holds more than `max_bytes`."""
    size = 0
    async for chunk in chunks:
        into.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            return False
    return True


async def _resumed(
    parts: Sequence[bytes], rest: AsyncIterator[bytes], failure: RelproxyError | None
) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if failure is not None:
        raise failure
    async for chunk in rest:
        yield chunk


def _answer_too_large() -> AnswerTooLargeError:
    return AnswerTooLargeError("The registry's answer is over the configured size.")


def too_large(max_bytes: int) -> BodyTooLargeError:
    """Return what a request's body over the cap is refused with."""
    return BodyTooLargeError(f"The body of this request is over {max_bytes} bytes.")
