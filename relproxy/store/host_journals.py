"""Reading the journals of every worker of this host, from their files, beside those who write them.

Only what is open is ever read: creates under way, completed entries that the store may lack, and
entries in doubt.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from relproxy.store.base import EntryKind, EntryState
from relproxy.store.journal_room import files_in
from relproxy.store.journal_row import PARKED, SELECT_ENTRY, Row, row_of

_LOG = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 1.0

_PENDING = f"state = '{EntryState.COMPLETED}'"
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


class HostJournals:
    """The files of one directory; a thread of its own reads them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journals")
        self._opened: dict[tuple[Path, int], sqlite3.Connection] = {}

    async def close(self) -> None:
        """Close every file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def pending_of_images(self, image_ids: Collection[str]) -> list[Row]:
        """Return the completed entries of some images in every registry, oldest first."""
        condition = "image_id IN (SELECT value FROM json_each(?))"
        return await self._pending((f"{_PENDING} AND {condition}",), json.dumps(list(image_ids)))

    async def pending_of_instance(self, instance_id: str) -> list[Row]:
        """Return the completed entries that name an instance, and all changes, oldest first.

        A change is one of an owner, or a deletion: neither names the instance that it concerns.
        """
        return await self._pending((f"{_PENDING} AND instance_id = ?", _CHANGES), instance_id)

    async def pending_of_project(self, project: str) -> list[Row]:
        """Return the completed entries that name a project, and all changes, oldest first.

        And those of the images that a change gives to the project, whoever created them.
        """
        rows = await self._pending((f"{_PENDING} AND project = ?", _CHANGES), project)
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

    async def _pending(self, conditions: Sequence[str], value: str) -> list[Row]:
        return _in_order(await self._run(conditions, (value,)))

    async def _run(self, conditions: Sequence[str], parameters: tuple[object, ...]) -> list[Row]:
        # One statement, so that one moment is seen of each file.
        statement = " UNION ALL ".join(f"{SELECT_ENTRY} WHERE {c}" for c in conditions)
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._rows, statement, parameters
        )

    def _rows(self, statement: str, parameters: tuple[object, ...]) -> list[Row]:
        # By id, because an entry that is being adopted stands in two files.
        found: dict[str, Row] = {}
        for path, connection in self._connections():
            try:
                cursor = connection.execute(statement, parameters)
                found |= {row.id: row for row in map(row_of, cursor)}
            except sqlite3.Error as failure:
                # Its owner says so in its own log and metrics; the others' are still worth reading.
                _LOG.warning("journal not read", extra={"path": str(path), "reason": str(failure)})
        return list(found.values())

    def _connections(self) -> Iterator[tuple[Path, sqlite3.Connection]]:
        present: set[tuple[Path, int]] = set()
        for path in files_in(self._directory):
            try:
                key = (path, path.stat().st_ino)
                if key not in self._opened:
                    self._opened[key] = _opened(path)
            except (OSError, sqlite3.Error) as failure:
                _LOG.warning("journal not read", extra={"path": str(path), "reason": str(failure)})
                continue
            present.add(key)
            yield path, self._opened[key]
        for key in self._opened.keys() - present:
            self._opened.pop(key).close()

    def _close(self) -> None:
        for connection in self._opened.values():
            connection.close()
        self._opened.clear()


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
