"""Plays one written story after the other; of one that fails, the shortest that fails too."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

from tests.model.operations import Story
from tests.model.shrinking import shortest
from tests.model.writing import Writer


def check_stories(play: Callable[[Story], None], count: int, *, seed: int, lists: int) -> None:
    """Play `count` stories with some `lists` a turn; RELPROXY_SEED plays the same ones again."""

    def failure(story: Story) -> Exception | None:
        try:
            play(story)
        except Exception as failed:  # noqa: BLE001 - whatever goes wrong is made small
            return failed
        return None

    def fails_alike(kind: type[Exception], shorter: Story) -> bool:
        # One made so short that it makes no sense fails too, but of something else.
        return isinstance(failure(shorter), kind)

    for number in range(count):
        story = Writer(random.Random(f"{seed}/{number}")).story(lists=lists)
        if (first := failure(story)) is not None:
            short = shortest(story, partial(fails_alike, type(first)))
            said = f"RELPROXY_SEED={seed}, story {number}, in short:\n{short!r}\n"
            pytest.fail(f"{said}{failure(short)!r}", pytrace=False)
