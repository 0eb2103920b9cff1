"""Connections to PostgreSQL, and the version of its schema.

A connection whose request was cancelled or failed is closed, never handed on: the next project
would read the previous one's answer. Several hosts may be named; the one that takes writes is used,
so a failover is followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from relproxy.errors import RecordRefusedError, StoreRefusedError, StoreUnavailableError
from relproxy.store.postgres_sql import IDENTITY, VERSION
from relproxy.store.schema_versions import schema_versions
from relproxy.tasks import Shared

_CLOSE_S = 1.0
# Wrong password, no such database or role, no right to connect: SQLSTATE classes 28, 3D, 42501.
_REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
# A character that no text may hold, a number out of range, a name too long for an index: SQLSTATE
# classes 22 and 54, and what asyncpg itself can't encode.
_UNFIT = (
    *(asyncpg.DataError, asyncpg.ProgramLimitExceededError),
    *(ValueError, TypeError, OverflowError),
)
_TRANSIENT = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """How to reach a PostgreSQL. Times are seconds; `dsn` may name several hosts."""

    dsn: str
    password_file: Path | None = None
    connections: int = 8
    connect_s: float = 5
    statement_s: float = 10

    def password(self) -> str | None:
        """Read the password's file, if there is one: it may have been changed. Raises `OSError`."""
        if self.password_file is None:
            return None
        return self.password_file.read_text(encoding="utf-8").rstrip("\n")


class PostgresPool:
    """A few connections, made when they are first needed."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool | None = None
        # One attempt for all who wait: else each would make its own, one after the other.
        self._opening: Shared[None, asyncpg.Pool] = Shared()
        self._is_closed = True
        self.names_itself = True

    async def open(self) -> None:
        """Connect; a server that is away raises `StoreUnavailableError`, and is tried again."""
        self._is_closed = False
        await self._opened()

    async def close(self) -> None:
        """Close every connection, at once where one doesn't end by itself."""
        self._is_closed = True
        await self._opening.cancel()
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await pool.close()
            except (*_TRANSIENT, TimeoutError):
                pool.terminate()

    async def _opened(self) -> asyncpg.Pool:
        if self._is_closed:
            raise StoreUnavailableError("The store is not open.")
        if self._pool is not None:
            return self._pool
        return await self._opening.once(None, self._open, name="connect to PostgreSQL")

    async def _open(self) -> asyncpg.Pool:
        with _translated():
            self._pool = await self._connected()
        return self._pool

    async def _connected(self) -> asyncpg.Pool:
        settings = self._settings
        pool = asyncpg.create_pool(
            settings.dsn,
            password=settings.password(),
            min_size=1,
            max_size=settings.connections,
            timeout=settings.connect_s,
            command_timeout=settings.statement_s,
            target_session_attrs="read-write",
            server_settings={
                "application_name": "relproxy",
                # The server's own limit is the first to end a statement, and a little later ours.
                "statement_timeout": str(int(settings.statement_s * 900)),
                # A host that loses its power in the middle of a put would hold up everybody's.
                "idle_in_transaction_session_timeout": str(int(settings.statement_s * 1000)),
                # Each statement has one good plan, whatever its values and however old the
                # statistics are; and planning anew each time costs more than looking names up.
                "plan_cache_mode": "force_generic_plan",
            },
        )
        try:
            async with asyncio.timeout(settings.connect_s):
                await pool
            async with pool.acquire(timeout=settings.connect_s) as connection:
                await check_version(connection)
                self.names_itself = await _can_name_itself(connection)
        except BaseException:
            pool.terminate()
            raise
        return pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection. Raises `StoreUnavailableError`, `RecordRefusedError` if by a value."""
        pool = await self._opened()
        with _translated():
            connection = await pool.acquire(timeout=self._settings.connect_s)
            is_whole = False
            try:
                with _refused():
                    yield connection
                is_whole = True
            finally:
                # Cancelled or failed in the middle of something: nobody reads the rest of it.
                if not is_whole:
                    connection.terminate()
                await pool.release(connection)


async def check_version(connection: asyncpg.Connection) -> None:
    """Raise `StoreRefusedError` if the schema is older or newer than the one that is known."""
    present = await present_version(connection)
    known = len(schema_versions("postgres"))
    if present > known:
        raise StoreRefusedError(
            f"The store's schema is version {present}, and this relproxy knows {known}: it was "
            "written by a newer relproxy."
        )
    if present < known:
        raise StoreRefusedError(
            f"The store's schema is version {present}, and this relproxy needs {known}: run "
            "`relproxy migrate` first."
        )


async def present_version(connection: asyncpg.Connection) -> int:
    """Return the version of the schema; 0 where there is none."""
    if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
        return 0
    found: int | None = await connection.fetchval(VERSION)
    return found or 0


async def migrate(settings: PostgresSettings) -> tuple[int, int]:
    """Apply the schema versions that are missing, once; return the version before and after.

    Raises `StoreUnavailableError`, and `StoreRefusedError` for a newer schema.
    """
    with _translated():
        connection = await asyncpg.connect(
            settings.dsn,
            password=settings.password(),
            timeout=settings.connect_s,
            target_session_attrs="read-write",
        )
        try:
            async with connection.transaction():
                # One at a time, whoever else migrates; given up with the transaction.
                await connection.execute("SELECT pg_advisory_xact_lock(7264500321)")
                before = await present_version(connection)
                versions = schema_versions("postgres")
                if before > len(versions):
                    await check_version(connection)
                for number, script in enumerate(versions[before:], start=before + 1):
                    await connection.execute(script)
                    await connection.execute("DELETE FROM schema_version")
                    await connection.execute("INSERT INTO schema_version VALUES ($1)", number)
        finally:
            await connection.close(timeout=_CLOSE_S)
    return before, len(versions)


async def _can_name_itself(connection: asyncpg.Connection) -> bool:
    """Tell whether the server says who it is: not every one that speaks its protocol does."""
    try:
        return await connection.fetchval(f"SELECT {IDENTITY}") is not None
    except asyncpg.PostgresError:
        return False


@contextmanager
def _refused() -> Iterator[None]:
    """Tell what no server would take from a server that takes nothing now."""
    try:
        yield
    except _UNFIT as failure:
        raise RecordRefusedError("The store does not take this.") from failure


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the driver's errors into those that the flow knows. No text of theirs is passed on."""
    try:
        yield
    except _REFUSALS as failure:
        reason = f"PostgreSQL refuses relproxy: {type(failure).__name__}."
        raise StoreRefusedError(reason) from failure
    except (*_TRANSIENT, TimeoutError) as failure:
        raise StoreUnavailableError("The store can't be read or written now.") from failure
    except (ValueError, TypeError) as failure:
        # A DSN that is none.
        raise StoreUnavailableError("The store can't be reached so.") from failure
