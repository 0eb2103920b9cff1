from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lab.postgres import Postgres
from relproxy.store.base import Store
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings, migrate
from relproxy.store.sqlite import SqliteStore

Reopen = Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgres"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Return a function that makes a store of the same records, not yet opened."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "store.db")
    postgres: Postgres = request.getfixturevalue("postgres")
    settings = PostgresSettings(postgres.create_database(f"contract-{uuid.uuid4()}"))
    await migrate(settings)
    return lambda: PostgresStore(settings)


@pytest.fixture
async def store(reopen: Reopen) -> AsyncIterator[Store]:
    opened = reopen()
    await opened.open()
    yield opened
    await opened.close()
