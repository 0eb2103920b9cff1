"""A SQLite store that is only read, beside the relproxies that write it or without any.

Nothing is made, migrated or claimed. A connection is opened for each look-up: what asks so asks
once, and a file that isn't there is what its answer says.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiosqlite

from relproxy.errors import StoreUnavailableError
from relproxy.store.schema_versions import schema_versions
from relproxy.store.sqlite import SqliteStore

_BUSY_TIMEOUT_S = 5.0


class SqliteReader(SqliteStore):
    """See `relproxy.store.base.Store`; whatever would write raises `StoreUnavailableError`."""

    async def open(self) -> None:
        """Do nothing: each look-up opens the file."""

    @asynccontextmanager
    async def _connection(
        self, _: aiosqlite.Connection | None
    ) -> AsyncIterator[aiosqlite.Connection]:
        # First without aiosqlite, whose thread outlives a connection that can't be opened.
        address = await asyncio.to_thread(self._checked)
        connecting = aiosqlite.connect(address, uri=True, timeout=_BUSY_TIMEOUT_S)
        async with connecting as connection, super()._connection(connection):
            yield connection

    def _checked(self) -> str:
        """Return how to open the file.

        Raises `StoreUnavailableError` unless it can be read and its schema is known.
        """
        address = f"{self._path.resolve().as_uri()}?mode=ro"
        if not Path(f"{self._path}-wal").exists():
            # Nobody has it open. SQLite would make a log for a reader, and leave it there.
            address += "&immutable=1"
        try:
            with closing(sqlite3.connect(address, uri=True)) as connection:
                present = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as failure:
            raise StoreUnavailableError(
                f"The store {self._path} can't be read: {failure}."
            ) from failure
        if present != (known := len(schema_versions("sqlite"))):
            raise StoreUnavailableError(
                f"The store's schema is version {present}, and this relproxy knows {known}."
            )
        return address
