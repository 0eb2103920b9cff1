"""How changes become the columns of the statements that write them to PostgreSQL.

Projects and sources stand in a record as numbers. The numbers are asked for within the transaction
that writes them, and never remembered: a standby that was promoted may lack a name that its
predecessor had, or have given its number to another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import asyncpg

from relproxy.model import Burial, Change, ImageRecord, OwnerChange
from relproxy.store.packing import packed_created_at, packed_id, packed_time
from relproxy.store.postgres_sql import (
    ADD_OPAQUE,
    ADD_PROJECTS,
    ADD_SOURCES,
    BURY,
    CHANGE_OWNER,
    NUMBERS,
    PUT,
    PUT_AGAIN,
    TABLES,
)

# What many records have in common: registry, installation, grade, the end of created_at.
_Source = tuple[str, str | None, str | None, str]
# The values of one change, in the order of its statement's parameters; the image id is the first.
_Row = tuple[Any, ...]

_PROJECT, _SOURCE = 4, 5


class PackedChanges:
    """Changes, packed; `write` puts them into the tables within the caller's transaction."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._opaque: dict[str, str] = {}
        self._projects: dict[str, int] = {}
        self._sources: dict[_Source, int] = {}
        self._rows = [(type(change), self._packed(change)) for change in changes]

    async def write(self, connection: asyncpg.Connection, asked: str) -> str | None:
        """Write them, in their order; return what the expression `asked` says of the server."""
        statement = NUMBERS.format(asked=asked)
        answer = await self._numbered(connection, statement)
        if answer is None:
            await connection.execute(ADD_PROJECTS, sorted(self._projects))
            if self._sources:
                sources = sorted(self._sources, key=repr)
                await connection.execute(ADD_SOURCES, *_columns(sources))
            answer = await self._numbered(connection, statement)
            if answer is None:
                # Not a `DataError`: the same change will be taken when it is put again.
                raise asyncpg.InternalServerError("a name was not kept")
        if self._opaque:
            await connection.execute(ADD_OPAQUE, *_columns(sorted(self._opaque.items())))
        for kind, run in itertools.groupby(self._rows, lambda pair: pair[0]):
            for batch in _without_repeats(row for _, row in run):
                await self._written(connection, kind, batch)
        found: str | None = answer["asked"]
        return found

    async def _numbered(
        self, connection: asyncpg.Connection, statement: str
    ) -> asyncpg.Record | None:
        """Ask for the numbers of all names; None if there is one that has none."""
        sources = _columns(list(self._sources)) if self._sources else [[], [], [], []]
        answer = await connection.fetchrow(statement, list(self._projects), *sources)
        if answer is None or None in answer["projects"] or None in answer["sources"]:
            return None
        self._projects = dict(zip(self._projects, answer["projects"], strict=True))
        self._sources = dict(zip(self._sources, answer["sources"], strict=True))
        return answer

    async def _written(
        self, connection: asyncpg.Connection, kind: type[Change], batch: Sequence[_Row]
    ) -> None:
        """Write changes of one kind, of different images."""
        columns = _columns(batch)
        if kind is not Burial:
            columns[_PROJECT] = [self._projects[name] for name in columns[_PROJECT]]
        if kind is not ImageRecord:
            statement = BURY if kind is Burial else CHANGE_OWNER
            for table in TABLES:
                await connection.execute(statement.format(table=table), *columns)
            return
        columns[_SOURCE] = [self._sources[source] for source in columns[_SOURCE]]
        status = await connection.execute(PUT, *columns)
        # Those that did not go in: known already, or another image has had their id.
        if int(status.rpartition(" ")[2]) < len(batch):
            await connection.execute(PUT_AGAIN, *columns)

    def _packed(self, change: Change) -> _Row:
        image_id = self._id(change.image_id)
        match change:
            case ImageRecord(registry, _, created_at, project, capture, recorded_at):
                seconds, suffix = packed_created_at(created_at)
                instance = None
                source: _Source = (registry, None, None, suffix)
                if capture is not None:
                    instance = self._id(capture.instance.id)
                    installation = capture.instance.installation
                    source = registry, installation, capture.grade.value, suffix
                self._sources[source] = 0
                self._projects[project] = 0
                return image_id, instance, seconds, packed_time(recorded_at), project, source
            case OwnerChange():
                seconds, suffix = packed_created_at(change.created_at)
                self._projects[change.project] = 0
                at = packed_time(change.at)
                return image_id, change.registry, seconds, suffix, change.project, at
            case Burial():
                return image_id, change.registry, packed_time(change.at)

    def _id(self, text: str) -> str:
        stands_for, is_opaque = packed_id(text)
        if is_opaque:
            self._opaque[stands_for] = text
        return stands_for


def _columns(rows: Sequence[_Row]) -> list[list[Any]]:
    """Return the parameters of a statement, a list for each column. There is at least one row."""
    return [list(column) for column in zip(*rows, strict=True)]


def _without_repeats(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Cut rows where an image comes a second time: one statement touches each row once."""
    batch: dict[str, _Row] = {}
    for row in rows:
        if row[0] in batch:
            yield _in_one_order(batch)
            batch = {}
        batch[row[0]] = row
    yield _in_one_order(batch)


def _in_one_order(batch: dict[str, _Row]) -> list[_Row]:
    # Two relays that lock the same rows lock them in the same order.
    return [batch[image_id] for image_id in sorted(batch)]
