"""Bodies that have to be read whole, each within a cap."""

from __future__ import annotations

from collections.abc import AsyncIterator

from relproxy.errors import AnswerTooLargeError, BodyTooLargeError
from relproxy.filters.body import decoded
from relproxy.messages import RequestBody, Response, ResponseHead


async def whole_request(body: RequestBody, *, max_bytes: int) -> bytes:
    """Read a request's body. Raises `BodyTooLargeError`, unread where its length says so."""
    if body.length is not None and body.length > max_bytes:
        raise _too_large(max_bytes)
    content = await read_within(body.chunks(), max_bytes)
    if content is None:
        raise _too_large(max_bytes)
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
        raise AnswerTooLargeError("The registry's answer is over the configured size.")
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
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            return None
        parts.append(chunk)
    return b"".join(parts)


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body of this request is over {max_bytes} bytes.")
