"""How changes become the columns of the statements that write them to PostgreSQL.

Records first, then what is kept of owners and deletions; then the records of these images are made
to be as all that is kept of them says, whichever was told first. Two who put at the same time see
nothing of each other. So whoever has put an owner change or a burial looks again, once nobody is
left who had begun to put before that was there to be seen: see `ALONE`, and docs/decisions/0013.

Projects and sources stand in a record as numbers. The numbers are asked for within the transaction
that writes them, and never remembered: a standby that was promoted may lack a name that its
predecessor had, or have given its number to another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import asyncpg

from relproxy.model import Burial, Change, ImageRecord, OwnerChange
from relproxy.store.packing import (
    ANY_CREATED_AT,
    packed_created_at,
    packed_id,
    packed_moment,
    packed_time,
)
from relproxy.store.postgres_changes_sql import (
    ADD_OPAQUE,
    ADD_PROJECTS,
    ADD_SOURCES,
    ALONE,
    BEGIN_PUT,
    IS_UNTAKEN,
    KEEP_BURIALS,
    KEEP_OWNERS,
    NUMBERS,
    PUT,
    PUT_AGAIN,
    TAKE_BURIALS,
    TAKE_OWNERS,
)

# What many records have in common: registry, installation, grade, the end of created_at.
_Source = tuple[str, str | None, str | None, str]
# The values of one change, in the order of its statement's parameters; the image id is the first.
_Row = tuple[Any, ...]

_ORIGIN_OF_RECORD = 6


class PackedChanges:
    """Changes, packed; `write` puts them into the tables within the caller's transaction.

    Once that is committed, `meet` has to follow.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self._opaque: dict[str, str] = {}
        self._projects: dict[str, int] = {}
        self._sources: dict[_Source, int] = {}
        self._records = [self._record(c) for c in changes if isinstance(c, ImageRecord)]
        owners = sorted(
            (change for change in changes if isinstance(change, OwnerChange)),
            key=lambda change: (change.at, change.project),
        )
        # The last one of each image, because one statement touches each row once.
        latest = {(c.image_id, c.registry, c.created_at): self._owner(c) for c in owners}
        self._owners = sorted(latest.values(), key=repr)
        self._burials = [self._burial(c) for c in changes if isinstance(c, Burial)]

    async def write(self, connection: asyncpg.Connection, asked: str) -> str | None:
        """Write them; return what the expression `asked` says of the server."""
        answer = await self._named(connection, NUMBERS.format(asked=asked))
        if self._opaque:
            await connection.execute(ADD_OPAQUE, *_columns(sorted(self._opaque.items())))
        has_owners, has_burials = bool(self._owners), bool(self._burials)
        for batch in _without_repeats(self._records):
            found = await self._put(connection, batch)
            has_owners |= found["has_owners"]
            has_burials |= found["has_burials"]
        if self._owners:
            owners = self._numbered(self._owners, (3,), (2,))
            # Twice, as in `_put`: the project of a change that is kept may be younger than the
            # statement that waited for it.
            for _ in range(2):
                await connection.execute(KEEP_OWNERS, *owners)
        if self._burials:
            await connection.execute(KEEP_BURIALS, *self._numbered(self._burials, (), (2,)))
        ids = {row[0] for row in (*self._records, *self._owners, *self._burials)}
        await _take(connection, ids, owners=has_owners, burials=has_burials)
        identity: str | None = answer["asked"]
        return identity

    async def meet(self, connection: asyncpg.Connection) -> None:
        """See that no record which was being put at the same time has missed a change."""
        ids = {row[0] for row in (*self._owners, *self._burials)}
        if not ids:
            return
        await connection.execute(ALONE)
        if await connection.fetchval(IS_UNTAKEN, ids):
            async with connection.transaction(isolation="read_committed"):
                await connection.execute(BEGIN_PUT)
                await _take(connection, ids, owners=True, burials=True)

    async def _named(self, connection: asyncpg.Connection, statement: str) -> asyncpg.Record:
        """Have a number for each name; return what the statement answers."""
        answer = await self._asked(connection, statement)
        if answer is None:
            await connection.execute(ADD_PROJECTS, sorted(self._projects))
            if self._sources:
                sources = sorted(self._sources, key=repr)
                await connection.execute(ADD_SOURCES, *_columns(sources))
            answer = await self._asked(connection, statement)
            if answer is None:
                # Not a `DataError`: the same change will be taken when it is put again.
                raise asyncpg.InternalServerError("a name was not kept")
        return answer

    async def _asked(self, connection: asyncpg.Connection, statement: str) -> asyncpg.Record | None:
        """Ask for the numbers of all names; None if there is one that has none."""
        sources = _columns(list(self._sources)) if self._sources else [[], [], [], []]
        answer = await connection.fetchrow(statement, list(self._projects), *sources)
        if answer is None or None in answer["projects"] or None in answer["sources"]:
            return None
        self._projects = dict(zip(self._projects, answer["projects"], strict=True))
        self._sources = dict(zip(self._sources, answer["sources"], strict=True))
        return answer

    async def _put(self, connection: asyncpg.Connection, batch: Sequence[_Row]) -> asyncpg.Record:
        """Write records of different images; return whether something is kept of these."""
        columns = self._numbered(batch, (4,), (5, _ORIGIN_OF_RECORD))
        found = await connection.fetchrow(PUT, *columns[:_ORIGIN_OF_RECORD])
        # Those that did not go in: known already, or another image has had their id.
        if found["written"] < len(batch):
            # Or somebody else was putting them, with a source that is younger than this statement
            # and wasn't seen by it. All of them are locked now, so the next one sees all there is.
            found = await connection.fetchrow(PUT, *columns[:_ORIGIN_OF_RECORD])
            await connection.execute(PUT_AGAIN, *columns)
        return found

    def _numbered(
        self, rows: Sequence[_Row], projects: Iterable[int], sources: Iterable[int]
    ) -> list[list[Any]]:
        """Return columns; the names in some of them become numbers."""
        columns = _columns(rows)
        numbers: Mapping[Any, int]
        for places, numbers in ((projects, self._projects), (sources, self._sources)):
            for place in places:
                columns[place] = [numbers[name] for name in columns[place]]
        return columns

    def _record(self, record: ImageRecord) -> _Row:
        image_id, instance = self._id(record.image_id), None
        seconds, suffix = packed_created_at(record.created_at)
        origin = source = self._source((record.registry, None, None, suffix))
        grade = record.grade.value if record.grade else None
        if (capture := record.capture) is not None:
            instance = self._id(capture.instance.id)
            source = self._source((record.registry, capture.instance.installation, grade, suffix))
        elif grade is not None:
            source = self._source((record.registry, None, grade, suffix))
        recorded, project = packed_time(record.recorded_at), self._project(record.project)
        return image_id, instance, seconds, recorded, project, source, origin

    def _owner(self, change: OwnerChange) -> _Row:
        seconds, suffix = packed_created_at(change.created_at)
        origin = self._source((change.registry, None, None, suffix))
        project, at = self._project(change.project), packed_moment(change.at)
        return self._id(change.image_id), seconds, origin, project, at

    def _burial(self, change: Burial) -> _Row:
        seconds, suffix = ANY_CREATED_AT, ""
        if change.created_at:
            seconds, suffix = packed_created_at(change.created_at)
        origin = self._source((change.registry, None, None, suffix))
        return self._id(change.image_id), seconds, origin, packed_time(change.at)

    def _id(self, text: str) -> str:
        stands_for, is_opaque = packed_id(text)
        if is_opaque:
            self._opaque[stands_for] = text
        return stands_for

    def _project(self, name: str) -> str:
        self._projects[name] = 0
        return name

    def _source(self, source: _Source) -> _Source:
        self._sources[source] = 0
        return source


async def _take(
    connection: asyncpg.Connection, ids: Collection[str], *, owners: bool, burials: bool
) -> None:
    """Let the records of images be as what is kept of these says, where there is something."""
    for statement in (*(TAKE_OWNERS if owners else ()), *(TAKE_BURIALS if burials else ())):
        await connection.execute(statement, ids)


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
    if batch:
        yield _in_one_order(batch)


def _in_one_order(batch: dict[str, _Row]) -> list[_Row]:
    # Two relays that lock the same rows lock them in the same order.
    return [batch[image_id] for image_id in sorted(batch)]
