"""Which store a configuration means: opened to serve, for a command, or only to be read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from relproxy import config
from relproxy.errors import StoreUnavailableError
from relproxy.store.base import Store
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings, migrate
from relproxy.store.sqlite import SqliteStore
from relproxy.store.sqlite_reader import SqliteReader


def store_of(settings: config.Store) -> Store:
    """Return the configured store, not open yet."""
    if settings.dsn is None:
        return SqliteStore(settings.path)
    return PostgresStore(_postgres_settings(settings))


@asynccontextmanager
async def opened_store(settings: config.Store) -> AsyncIterator[Store]:
    """Open the configured store, for a command. Raises `StoreUnavailableError`."""
    store = store_of(settings)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def store_to_read(settings: config.Store) -> AsyncIterator[Store]:
    """Lend the configured store for reading alone: it is neither made nor brought up to date.

    One that is away is lent too: each look-up raises `StoreUnavailableError` and says why.
    """
    store = store_of(settings) if settings.dsn is not None else SqliteReader(settings.path)
    try:
        with suppress(StoreUnavailableError):
            await store.open()
        yield store
    finally:
        await store.close()


async def migrated(settings: config.Store) -> str:
    """Bring the store's schema up to date, and say what was done."""
    if settings.dsn is None:
        async with opened_store(settings):
            return "the SQLite file is up to date"
    before, after = await migrate(_postgres_settings(settings))
    return f"schema version {after}" + (f", it was {before}" if before != after else "")


def _postgres_settings(settings: config.Store) -> PostgresSettings:
    """Return how the configuration says that a PostgreSQL is reached."""
    return PostgresSettings(
        dsn=settings.dsn or "",
        password_file=settings.password_file,
        connections=settings.connections,
        connect_s=settings.connect_s,
        statement_s=settings.statement_s,
    )
