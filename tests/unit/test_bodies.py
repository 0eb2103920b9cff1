from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest

from relproxy.bodies import Copy, copied, read_ahead, whole, whole_request, whole_response
from relproxy.errors import BodyTooLargeError, RegistryGarbageError, RegistryUnreachableError
from relproxy.messages import Response, ResponseHead
from tests.unit.given import Body, fields


@pytest.mark.parametrize("length", [10, None], ids=["with a length", "chunked"])
async def test_a_request_of_exactly_the_cap_is_read(length: int | None) -> None:
    body = Body(b"01234", b"56789", length=length)

    assert await whole_request(body, max_bytes=10) == b"0123456789"


async def test_an_empty_request_is_empty() -> None:
    assert await whole_request(Body(length=0), max_bytes=10) == b""
    assert await whole_request(Body(), max_bytes=10) == b""


async def test_a_request_that_promises_too_much_is_refused_unread() -> None:
    body = Body(b"01234567890", length=11)

    with pytest.raises(BodyTooLargeError, match="10 bytes"):
        await whole_request(body, max_bytes=10)
    assert body.taken == 0


async def test_a_chunked_request_is_read_no_further_than_the_cap() -> None:
    body = Body(b"0123456789", b"x", b"y", b"z")

    with pytest.raises(BodyTooLargeError):
        await whole_request(body, max_bytes=10)
    assert body.taken == 2


async def test_a_request_that_is_longer_than_it_promised_is_refused() -> None:
    with pytest.raises(BodyTooLargeError):
        await whole_request(Body(b"01234567890", length=3), max_bytes=10)


class Answer:
    """A response whose body arrives in chunks, and which notes that it was closed."""

    def __init__(
        self, *chunks: bytes, coding: str | None = None, failure: Exception | None = None
    ) -> None:
        self._chunks = chunks
        self._failure = failure
        self.closed = 0
        headers = fields() if coding is None else fields(("Content-Encoding", coding))
        self.response = Response(ResponseHead(200, "OK", headers), self._body(), self._close)

    async def _body(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._failure is not None:
            raise self._failure

    async def _close(self) -> None:
        self.closed += 1


async def test_a_response_is_read_and_closed() -> None:
    answer = Answer(b"01234", b"56789")

    assert await whole_response(answer.response, max_bytes=10) == b"0123456789"
    assert answer.closed == 1


async def test_a_response_over_the_cap_is_garbage_and_closed() -> None:
    answer = Answer(b"01234", b"567890")

    with pytest.raises(RegistryGarbageError, match="size"):
        await whole_response(answer.response, max_bytes=10)
    assert answer.closed == 1


async def test_a_response_that_breaks_is_closed() -> None:
    answer = Answer(b"01234", failure=RegistryUnreachableError("gone"))

    with pytest.raises(RegistryUnreachableError):
        await whole_response(answer.response, max_bytes=10)
    assert answer.closed == 1


async def test_a_compressed_response_is_read_plain() -> None:
    answer = Answer(gzip.compress(b"0123456789"), coding="gzip")

    assert await whole_response(answer.response, max_bytes=100) == b"0123456789"


async def test_a_compressed_response_is_capped_by_its_plain_size() -> None:
    answer = Answer(gzip.compress(bytes(1000)), coding="gzip")

    with pytest.raises(RegistryGarbageError, match="size"):
        await whole_response(answer.response, max_bytes=999)


async def test_a_response_that_is_at_hand_is_taken_as_it_is() -> None:
    response = Response(ResponseHead(200, "OK", fields()), b"0123456789")

    assert await whole_response(response, max_bytes=10) == b"0123456789"


def test_a_body_that_was_read_goes_on_plain_with_its_length() -> None:
    headers = fields(
        ("Date", "today"), ("Content-Encoding", "gzip"), ("content-length", "3"), ("Via", "a")
    )

    response = whole(ResponseHead(201, "Created", headers), b"0123456789")

    assert response.head == ResponseHead(
        201, "Created", fields(("Date", "today"), ("Content-Length", "10"), ("Via", "a"))
    )
    assert response.body == b"0123456789"


def test_a_body_that_came_chunked_goes_on_with_its_length() -> None:
    response = whole(ResponseHead(200, "OK", fields()), b"x")

    assert response.head.headers.values("Content-Length") == ("1",)


# -- bodies that are sent on all the same


@pytest.mark.parametrize("length", [10, None], ids=["with a length", "chunked"])
async def test_a_request_that_was_read_ahead_is_sent_on_as_it_came(length: int | None) -> None:
    read, onward = await read_ahead(Body(b"01234", b"56789", length=length), max_bytes=10)

    assert read == b"0123456789"
    assert (onward.is_empty, onward.length) == (False, length)
    assert [chunk async for chunk in onward.chunks()] == [b"01234", b"56789"]


async def test_a_request_over_the_cap_is_read_no_further_and_sent_on_whole() -> None:
    body = Body(b"0123456789", b"x", b"y", b"z")
    read, onward = await read_ahead(body, max_bytes=10)

    assert (read, body.taken) == (None, 2)
    assert b"".join([chunk async for chunk in onward.chunks()]) == b"0123456789xyz"


async def test_a_request_that_promises_too_much_is_sent_on_unread() -> None:
    body = Body(b"01234567890", length=11)

    assert await read_ahead(body, max_bytes=10) == (None, body)
    assert body.taken == 0


async def sent_on(copy: Copy) -> bytes:
    assert not isinstance(copy.response.body, bytes)
    return b"".join([chunk async for chunk in copy.response.body])


async def test_an_answer_is_copied_with_its_coding_and_closed() -> None:
    coded = gzip.compress(b"0123456789")
    answer = Answer(coded, coding="gzip")
    copy = await copied(answer.response, max_bytes=100)

    assert (copy.body, copy.whole().body, await sent_on(copy)) == (coded, coded, coded)
    assert copy.response.head == answer.response.head
    assert answer.closed == 1


async def test_an_answer_over_the_cap_is_sent_on_and_closed_by_who_sends_it() -> None:
    answer = Answer(b"01234", b"56789", b"x")
    copy = await copied(answer.response, max_bytes=9)

    assert await sent_on(copy) == b"0123456789x"
    with pytest.raises(RegistryGarbageError, match="size"):
        copy.whole()
    assert answer.closed == 0
    await copy.response.aclose()
    assert answer.closed == 1


async def test_an_answer_that_breaks_off_breaks_off_where_it_did() -> None:
    answer = Answer(b"01234", failure=RegistryUnreachableError("gone"))
    copy = await copied(answer.response, max_bytes=10)

    assert not isinstance(copy.response.body, bytes)
    assert await anext(copy.response.body) == b"01234"
    with pytest.raises(RegistryUnreachableError):
        await anext(copy.response.body)
    with pytest.raises(RegistryUnreachableError):
        copy.whole()
    assert answer.closed == 1
