"""How hard the tests try: the same examples every time, or many new ones (`make verify`)."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from lab.postgres import Postgres
from tests.authority import Authority

settings.register_profile("test", derandomize=True, deadline=None, max_examples=200)
settings.register_profile("verify", derandomize=False, deadline=None, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


@pytest.fixture
def seed() -> int:
    """Return the seed of a random test: RELPROXY_SEED, or one of its own under `make verify`."""
    given = os.environ.get("RELPROXY_SEED")
    if given is not None:
        return int(given)
    is_thorough = os.environ.get("HYPOTHESIS_PROFILE") == "verify"
    return random.SystemRandom().randrange(2**32) if is_thorough else 1


@pytest.fixture
def effort() -> int:
    """Return how many times as much a random test does under `make verify`."""
    return 50 if os.environ.get("HYPOTHESIS_PROFILE") == "verify" else 1


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL; tests make databases of their own in it."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The authority of a test's certificates."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """An authority that nobody has heard of."""
    return Authority(tmp_path / "stranger")
