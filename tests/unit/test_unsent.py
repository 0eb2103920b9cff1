from __future__ import annotations

import pytest

from relproxy.errors import AnswersWaitError
from relproxy.messages import Headers, Response, ResponseHead
from relproxy.unsent import Unsent

KiB = 1024


def answer(size: int) -> Response:
    return Response(ResponseHead(200, "OK", Headers()), bytes(size))


async def test_a_project_holds_its_share_and_no_more_until_it_has_taken_some() -> None:
    unsent = Unsent(800 * KiB)
    first = unsent.held(answer(100 * KiB), "bob")
    unsent.held(answer(100 * KiB), "bob")
    with pytest.raises(AnswersWaitError):
        unsent.held(answer(100 * KiB), "bob")
    unsent.held(answer(100 * KiB), "alice")
    await first.aclose()
    unsent.held(answer(100 * KiB), "bob")


async def test_all_projects_together_hold_no_more_than_configured() -> None:
    unsent = Unsent(400 * KiB)
    held = [unsent.held(answer(100 * KiB), f"p{number}") for number in range(4)]
    with pytest.raises(AnswersWaitError):
        unsent.held(answer(100 * KiB), "one more")
    for response in held:
        await response.aclose()
    unsent.held(answer(100 * KiB), "one more")


def test_a_small_answer_goes_out_whatever_waits() -> None:
    unsent = Unsent(100 * KiB)
    unsent.held(answer(100 * KiB), "bob")
    small = answer(64 * KiB)
    assert unsent.held(small, "bob") is small


async def test_what_is_larger_than_may_be_held_is_answered_while_nothing_else_is() -> None:
    unsent = Unsent(100 * KiB)
    large = unsent.held(answer(900 * KiB), "bob")
    with pytest.raises(AnswersWaitError):
        unsent.held(answer(65 * KiB), "alice")
    await large.aclose()
    unsent.held(answer(900 * KiB), "alice")


async def test_what_a_response_itself_holds_is_closed_too() -> None:
    closed = []

    async def aclose() -> None:
        closed.append(1)

    body = answer(100 * KiB)
    await Unsent(100 * KiB).held(Response(body.head, body.body, aclose), None).aclose()
    assert closed == [1]
