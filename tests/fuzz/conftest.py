from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.conftest import serve

__all__ = ["serve"]  # a fixture of another room

Inputs = Callable[..., Iterator[random.Random]]


@pytest.fixture
def inputs(request: pytest.FixtureRequest, seed: int, effort: int) -> Iterator[Inputs]:
    """Return `inputs(few, many)`: a source of random numbers for each input, and a report by -s."""
    made = 0
    started = time.monotonic()

    def draw(few: int, many: int) -> Iterator[random.Random]:
        nonlocal made
        source = random.Random(seed)
        for _ in range(many if effort > 1 else few):
            made += 1
            yield source

    yield draw
    seconds = time.monotonic() - started
    name = request.node.name
    print(f"\n{name}: {made} inputs in {seconds:.0f} s, seed {seed}")  # noqa: T201 - shown by -s
