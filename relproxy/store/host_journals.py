"""Reading the journals of every worker of this host, from their files, beside those who write them.

Only what is open is ever read: creates under way, completed entries that the store may lack, and
entries in doubt.

While a dead worker's journal is being adopted, an entry may stand in two files, the further copy
holds; or be missed in both, where the one was read too early and the other too late: then all are
read once more. A file that can't be read is no reason to go on without it: what it says may take
an image from whom it belonged to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

from relproxy.errors import StoreUnavailableError
from relproxy.store.base import EntryKind, EntryState
from relproxy.store.journal_room import files_in
from relproxy.store.journal_row import (
    DUE,
    LEAVING,
    NONSENSE,
    PARKED,
    SELECT_ENTRY,
    Row,
    rank_in,
    row_of,
)

_LOG = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 1.0
_UNREADABLE = "The journals of this host can't be read now."

_PENDING = f"state = '{EntryState.COMPLETED}'"
_OF_IMAGES = f"{_PENDING} AND image_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
# A row of no image, if anything is pending: what that is needn't even be understood.
_NO_ID = ""
_IF_PENDING = f"""
UNION ALL
SELECT '{_NO_ID}', '{EntryKind.CREATE}', '{EntryState.COMPLETED}', '', NULL, 0, NULL, NULL, NULL,
       NULL, NULL, NULL, 0, NULL, NULL, NULL
WHERE EXISTS (SELECT 1 FROM entry WHERE {_PENDING})
"""  # noqa: S608 - constants
_CHANGES = f"{_PENDING} AND kind <> '{EntryKind.CREATE}'"
_CREATE = f"kind = '{EntryKind.CREATE}' AND registry = ?"
# For each state its own, because the indexes are partial. What is completed has its image's id.
_OPEN_CREATES = (
    *(
        f"state = '{state}' AND {_CREATE} "
        "AND (image_id = ? OR (image_id IS NULL AND image_name = ?))"
        for state in (EntryState.BEGUN, EntryState.IN_DOUBT)
    ),
    f"{_PENDING} AND {_CREATE} AND image_id = ?",
)
_RANKS = (
    f"SELECT id, {rank_in('entry')} FROM entry "  # noqa: S608 - constants
    "WHERE id IN (SELECT value FROM json_each(?))"
)
# What is open, by what it waits for. Each in the words of an index, which is all that is read.
_WAITING = {
    "under_way": f"state = '{EntryState.BEGUN}'",
    "to_deliver": DUE,
    "in_doubt": f"state = '{EntryState.IN_DOUBT}'",
    "parked": PARKED,
}
_DEPTH = " UNION ALL ".join(
    f"SELECT '{name}', count(*) FROM entry WHERE {condition}"  # noqa: S608 - constants
    for name, condition in _WAITING.items()
)
# A file: its name may be another's later.
_Key = tuple[Path, int]


class HostJournals:
    """The files of one directory; a thread of its own reads them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journals")
        self._opened: dict[tuple[Path, int], sqlite3.Connection] = {}

    async def close(self) -> None:
        """Close every file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close, self._opened)
        self._thread.shutdown()

    async def pending_of_images(self, image_ids: Collection[str]) -> list[Row]:
        """Return the completed entries of some images in every registry, oldest first."""
        return await self._pending((_OF_IMAGES,), json.dumps(list(image_ids)))

    async def pending_of_images_or_others(
        self, image_ids: Collection[str]
    ) -> tuple[list[Row], bool]:
        """Return the completed entries of some images, and whether there are any of whatever image.

        So that what is done because something is pending doesn't tell of which image it is.
        """
        asked = (json.dumps(list(image_ids)),)
        found = await self._run((_OF_IMAGES,), asked, beside=_IF_PENDING)
        return _whole(row for row in found if row.id != _NO_ID), bool(found)

    async def pending_of_instance(self, instance_id: str) -> list[Row]:
        """Return the completed entries that name an instance, and all changes, oldest first.

        A change is one of an owner, or a deletion: neither names the instance that it concerns.
        """
        return await self._pending((f"{_PENDING} AND instance_id = ?", _CHANGES), instance_id)

    async def pending_of_project(self, project: str, *, at_most: int) -> list[Row] | None:
        """Return the completed entries that name a project, and all changes, oldest first.

        And those of the images that a change gives to the project, whoever created them. None where
        there are more than `at_most`.
        """
        conditions = (f"{_PENDING} AND project = ?", _CHANGES)
        rows = await self._pending(conditions, project, at_most=at_most + 1)
        if len(rows) > at_most:
            return None
        given = {r.image_id for r in rows if r.kind is EntryKind.OWNER and r.project == project}
        if not given:
            return rows
        others = await self.pending_of_images([image_id for image_id in given if image_id])
        return _in_order({row.id: row for row in (*others, *rows)}.values())

    async def in_doubt(self) -> list[Row]:
        """Return the entries in doubt, oldest first."""
        return await self._run((f"state = '{EntryState.IN_DOUBT}'",), ())

    async def open_creates(self, registry: str, image_id: str, image_name: str | None) -> list[Row]:
        """Return the creates that may have made an image, and that the store may not know of.

        Those of its id, under way or not; where a name is given, those too of that name whose image
        isn't known yet. Oldest first.
        """
        open_ones = (registry, image_id, image_name)
        rows = await self._run(_OPEN_CREATES, (*open_ones, *open_ones, registry, image_id))
        return sorted(rows, key=lambda row: row.begun_at)

    async def parked(self) -> list[Row]:
        """Return the entries that the store refuses, oldest first."""
        return await self._run((PARKED,), ())

    async def depth(self) -> Mapping[str, int]:
        """Return how many entries are open, by what they wait for.

        An entry that is on its way to another journal just now may count twice, or not.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._depth)

    def _depth(self) -> Mapping[str, int]:
        depth = dict.fromkeys(_WAITING, 0)

        def count(_: _Key, connection: sqlite3.Connection) -> None:
            for name, number in connection.execute(_DEPTH):
                depth[name] += number

        self._each(count)
        return depth

    async def _pending(
        self, conditions: Sequence[str], value: str, *, at_most: int = -1
    ) -> list[Row]:
        return _whole(await self._run(conditions, (value,), at_most=at_most))

    async def _run(
        self,
        conditions: Sequence[str],
        parameters: tuple[object, ...],
        *,
        at_most: int = -1,
        beside: str = "",
    ) -> list[Row]:
        """Return the rows of all files, no more than so many of each (-1: all).

        `beside` is a further part of the statement.

        Raises `StoreUnavailableError` if there is a file that can't be read.
        """
        # One statement, so that one moment is seen of each file.
        statement = " UNION ALL ".join(f"{SELECT_ENTRY} WHERE {c}" for c in conditions)
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._rows, f"{statement} {beside} LIMIT ?", (*parameters, at_most)
        )

    def _rows(self, statement: str, parameters: tuple[object, ...]) -> list[Row]:
        found: dict[str, Row] = {}
        known: set[_Key] = set()
        while new := self._look(statement, parameters, found) - known:
            known |= new
        self._drop_what_has_ended(found)
        return list(found.values())

    def _look(
        self, statement: str, parameters: tuple[object, ...], found: dict[str, Row]
    ) -> set[_Key]:
        """Add rows to those found, by their ids; return the files that give entries away."""
        giving: set[_Key] = set()

        def read(key: _Key, connection: sqlite3.Connection) -> None:
            for row in map(row_of, connection.execute(statement, parameters)):
                other = found.setdefault(row.id, row)
                if row.rank >= other.rank:
                    found[row.id] = row
            # Asked for after the rows: what is missing in them was given away before.
            if connection.execute("PRAGMA application_id").fetchone()[0] == LEAVING:
                giving.add(key)

        return giving | self._each(read)

    def _drop_what_has_ended(self, found: dict[str, Row]) -> None:
        """Drop rows of which another file has a further copy, whatever was asked for."""
        if not found or len(self._opened) == 1:
            return
        ids = json.dumps(list(found))

        def compare(_: _Key, connection: sqlite3.Connection) -> None:
            for entry_id, rank in connection.execute(_RANKS, (ids,)):
                if entry_id in found and rank > found[entry_id].rank:
                    del found[entry_id]

        self._each(compare)

    def _each(self, read: Callable[[_Key, sqlite3.Connection], None]) -> set[_Key]:
        """Read every file; return those that went meanwhile, with all that they had given away."""
        present: set[_Key] = set()
        gone: set[_Key] = set()
        for path in self._files():
            key = (path, _inode(path))
            try:
                if (connection := self._connection(key)) is not None:
                    read(key, connection)
                    present.add(key)
            except (sqlite3.Error, OSError, *NONSENSE) as failure:
                if _is_there(key):
                    self._close([key])
                    told = {"path": str(path), "reason": str(failure)}
                    _LOG.warning("journal not read", extra=told)
                    raise StoreUnavailableError(_UNREADABLE) from failure
                gone.add(key)
        self._close(self._opened.keys() - present)
        return gone

    def _files(self) -> Iterable[Path]:
        """Return the files; raises `StoreUnavailableError` if nobody can say which there are."""
        try:
            return files_in(self._directory)
        except OSError as failure:
            told = {"path": str(self._directory), "reason": str(failure)}
            _LOG.warning("journal not read", extra=told)
            raise StoreUnavailableError(_UNREADABLE) from failure

    def _connection(self, key: _Key) -> sqlite3.Connection | None:
        """Return a connection to a file; None where nothing was ever written into it."""
        if key not in self._opened:
            with ExitStack() as opened:
                connection = opened.enter_context(closing(_opened(key[0])))
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                # What was opened may be another file of this name, or one without its log.
                _check_there(key)
                if version == 0:
                    return None
                opened.pop_all()
                self._opened[key] = connection
        return self._opened[key]

    def _close(self, keys: Iterable[_Key]) -> None:
        for key in list(keys):
            if (connection := self._opened.pop(key, None)) is not None:
                connection.close()


def _inode(path: Path) -> int:
    """Return which file has this name; 0 for none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _is_there(key: _Key) -> bool:
    return key == (key[0], _inode(key[0])) and key[1] != 0


def _check_there(key: _Key) -> None:
    if not _is_there(key):
        raise FileNotFoundError(key[0])


def _whole(rows: Iterable[Row]) -> list[Row]:
    """Return rows in order; raises `StoreUnavailableError` unless each says all that it has to."""
    rows = _in_order(rows)
    if not all(row.is_whole for row in rows):
        raise StoreUnavailableError(_UNREADABLE)
    return rows


def _in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.at or row.begun_at)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        timeout=_BUSY_TIMEOUT_S,
        check_same_thread=False,
    )
