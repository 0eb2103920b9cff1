"""What a walk has done so far, in a file: it goes on from there after a crash, and counts once.

A SQLite file beside the journals, one for each command and registry, removed when the walk is over.
It holds a row for each image that was passed, so that memory doesn't grow with them. What is to be
told to the store is written here first, then told, then marked as told: it is told again after a
crash, which changes nothing, and is counted as often as it was written, once.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from relproxy.errors import WalkRefusedError
from relproxy.model import Burial, Change, ImageKey, ImageRecord, OwnerChange
from relproxy.owner_list import Owner

_SCHEMA = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE finding (
    sequence   INTEGER PRIMARY KEY,
    image_id   TEXT NOT NULL,
    created_at TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    detail     TEXT NOT NULL,
    kind       TEXT,
    change     BLOB,
    UNIQUE (image_id, created_at)
);
CREATE INDEX finding_outcome ON finding (outcome);
CREATE INDEX finding_untold ON finding (sequence) WHERE change IS NOT NULL;
CREATE TABLE owner (
    image_id TEXT PRIMARY KEY, project TEXT NOT NULL, line INTEGER NOT NULL, is_met INTEGER NOT NULL
) WITHOUT ROWID;
"""
_VERSION = 1
_KINDS: Mapping[str, type[Change]] = {
    kind.__name__: kind for kind in (ImageRecord, Burial, OwnerChange)
}
_AT_ONCE = 500
_PROBLEMS_AT_MOST = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one image, in a word, with a detail for a person; and what the store is told.

    `change` is None where it is told nothing.
    """

    image_id: str
    created_at: str
    outcome: str
    detail: str = ""
    change: Change | None = None


class WalkFile:
    """The file of one walk; `terms` is what has to be the same to go on with one that was begun.

    `was_begun` says that there was one.
    """

    def __init__(self, path: Path, terms: Mapping[str, object], *, is_anew: bool) -> None:
        """Open or make it. Raises `WalkRefusedError`."""
        self._path = path
        self._lock = _locked(path)
        try:
            if is_anew:
                path.unlink(missing_ok=True)
            self._connection = self._opened(json.dumps(terms, sort_keys=True))
        except BaseException:
            self._lock.close()
            raise

    @property
    def begun_at(self) -> datetime:
        """When the walk was begun."""
        return datetime.fromisoformat(str(self.fact("begun_at")))

    def close(self) -> None:
        """Leave the walk to be gone on with."""
        self._connection.close()
        self._lock.close()

    def remove(self) -> None:
        """Say that the walk is over."""
        self._path.unlink()
        self.close()

    # -- the way

    def fact(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return what was written down under a name, None if nothing was."""
        with self._said():
            row = self._connection.execute("SELECT value FROM fact WHERE name = ?", (name,))
            found = row.fetchone()
        return None if found is None else json.loads(found[0])

    def note(
        self, findings: Iterable[Finding], facts: Mapping[str, object] | None = None
    ) -> Sequence[Change]:
        """Write findings down, and how far the walk has come; return what the store is to be told.

        Of an image that was passed before nothing is written.
        """
        told = []
        with self._said(), self._connection:
            for f in findings:
                kind = type(f.change).__name__ if f.change is not None else None
                raw = msgspec.json.encode(f.change) if f.change is not None else None
                values = (f.image_id, f.created_at, f.outcome, f.detail, kind, raw)
                written = self._connection.execute(
                    "INSERT INTO finding (image_id, created_at, outcome, detail, kind, change) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    values,
                )
                if written.rowcount and f.change is not None:
                    told.append(f.change)
            self._write_facts(facts or {})
        return told

    def decide(self, decided: Iterable[Finding], facts: Mapping[str, object] | None = None) -> None:
        """Write down what became of images that were noted before."""
        with self._said(), self._connection:
            for f in decided:
                kind = type(f.change).__name__ if f.change is not None else None
                raw = msgspec.json.encode(f.change) if f.change is not None else None
                self._connection.execute(
                    "UPDATE finding SET outcome = ?, detail = ?, kind = ?, change = ? "
                    "WHERE image_id = ? AND created_at = ?",
                    (f.outcome, f.detail, kind, raw, f.image_id, f.created_at),
                )
            self._write_facts(facts or {})

    def untold(self) -> Sequence[Change]:
        """Return some of what the store has not been told for certain."""
        with self._said():
            rows = self._connection.execute(
                "SELECT kind, change FROM finding WHERE change IS NOT NULL ORDER BY sequence "
                "LIMIT ?",
                (_AT_ONCE,),
            )
            return [msgspec.json.decode(raw, type=_KINDS[kind]) for kind, raw in rows]

    def mark_told(self, changes: Iterable[Change]) -> None:
        """Say that the store has taken these."""
        with self._said(), self._connection:
            self._connection.executemany(
                "UPDATE finding SET change = NULL WHERE image_id = ? AND created_at = ?",
                [(change.image_id, change.created_at) for change in changes],
            )

    def passed(self) -> Iterator[str]:
        """Yield the ids of the images that were passed, the latest first."""
        yield from (f.image_id for f in self._findings("TRUE", (), "DESC"))

    def has_passed(self, keys: Collection[ImageKey]) -> set[ImageKey]:
        """Return those of some images that were passed."""
        asked = json.dumps([key.id for key in keys])
        with self._said():
            rows = self._connection.execute(
                "SELECT image_id, created_at FROM finding "
                "WHERE image_id IN (SELECT value FROM json_each(?))",
                (asked,),
            )
            return {ImageKey(*row) for row in rows}.intersection(keys)

    def findings(self, *outcomes: str) -> Iterator[Finding]:
        """Yield the images of some outcomes, in the order in which they were passed.

        The file may be written to meanwhile.
        """
        yield from self._findings(
            "outcome IN (SELECT value FROM json_each(?))", (json.dumps(outcomes),), "ASC"
        )

    def counts(self) -> Mapping[str, int]:
        """Return how many images had each outcome."""
        with self._said():
            return dict(
                self._connection.execute("SELECT outcome, COUNT(*) FROM finding GROUP BY outcome")
            )

    # -- owners

    def take_owners(self, owners: Iterable[Owner | str]) -> list[str]:
        """Keep the owners of images; return what is wrong with the list, and then keep none."""
        problems: list[str] = []
        with self._said(), self._connection:
            self._connection.execute("DELETE FROM owner")
            for owner in owners:
                problem = owner if isinstance(owner, str) else self._taken(owner)
                if problem is not None and len(problems) < _PROBLEMS_AT_MOST:
                    problems.append(problem)
            if problems:
                self._connection.rollback()
        return problems

    def owners(self, image_ids: Collection[str]) -> Mapping[str, str]:
        """Return image id -> project, of those that the list names; they are met thereby."""
        asked = (json.dumps(list(image_ids)),)
        of_asked = "WHERE image_id IN (SELECT value FROM json_each(?))"
        with self._said(), self._connection:
            self._connection.execute(f"UPDATE owner SET is_met = 1 {of_asked}", asked)  # noqa: S608
            return dict(
                self._connection.execute(f"SELECT image_id, project FROM owner {of_asked}", asked)  # noqa: S608
            )

    def unmet_owners(self) -> Iterator[Owner]:
        """Yield what the list names and the registry hasn't shown."""
        line = 0
        while True:
            with self._said():
                rows = self._connection.execute(
                    "SELECT image_id, project, line FROM owner WHERE is_met = 0 AND line > ? "
                    "ORDER BY line LIMIT ?",
                    (line, _AT_ONCE),
                ).fetchall()
            if not rows:
                return
            line = rows[-1][-1]
            yield from (Owner(*row) for row in rows)

    def _taken(self, owner: Owner) -> str | None:
        taken = self._connection.execute(
            "INSERT INTO owner VALUES (?, ?, ?, 0) ON CONFLICT DO NOTHING", owner
        )
        if taken.rowcount:
            return None
        (first,) = self._connection.execute(
            "SELECT line FROM owner WHERE image_id = ?", (owner.image_id,)
        ).fetchone()
        return f"line {owner.line}: {owner.image_id} is in line {first} already."

    # -- the file

    def _opened(self, terms: str) -> sqlite3.Connection:
        with self._said():
            connection = sqlite3.connect(self._path)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                # What was begun and isn't even this far is nothing.
                connection.close()
                self._path.unlink()
                connection = sqlite3.connect(self._path)
                begun_at = json.dumps(datetime.now(UTC).isoformat())
                connection.executescript(f"BEGIN; {_SCHEMA}; PRAGMA user_version = {_VERSION}")
                connection.execute("INSERT INTO fact VALUES ('begun_at', ?)", (begun_at,))
                connection.execute("INSERT INTO fact VALUES ('terms', ?)", (terms,))
                connection.commit()
            elif version != _VERSION:
                raise WalkRefusedError(f"{self._path} is another relproxy's: begin with --anew.")
        self.was_begun = bool(version)
        (found,) = connection.execute("SELECT value FROM fact WHERE name = 'terms'").fetchone()
        if found != terms:
            connection.close()
            raise WalkRefusedError(
                f"A walk was begun with other arguments ({found}): go on with these, or --anew."
            )
        return connection

    def _write_facts(self, facts: Mapping[str, object]) -> None:
        self._connection.executemany(
            "INSERT INTO fact VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [(name, json.dumps(value)) for name, value in facts.items()],
        )

    def _findings(
        self, condition: str, parameters: tuple[object, ...], order: str
    ) -> Iterator[Finding]:
        """Yield findings by pages: none is held, and the file may be written to meanwhile."""
        sign, place = (">", 0) if order == "ASC" else ("<", 2**62)
        statement = (
            "SELECT sequence, image_id, created_at, outcome, detail FROM finding "  # noqa: S608
            f"WHERE {condition} AND sequence {sign} ? ORDER BY sequence {order} LIMIT {_AT_ONCE}"
        )
        while True:
            with self._said():
                rows = self._connection.execute(statement, (*parameters, place)).fetchall()
            if not rows:
                return
            place = rows[-1][0]
            yield from (Finding(*row[1:]) for row in rows)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as failure:
            raise WalkRefusedError(
                f"{self._path} can't be read or written: {failure}. If it is broken: --anew."
            ) from failure


def _locked(path: Path) -> IO[str]:
    """Take the walk's lock; raises `WalkRefusedError` if somebody is on the way."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = Path(f"{path}.lock").open("w")  # noqa: SIM115 - held until `close`
    except OSError as failure:
        raise WalkRefusedError(f"{path} can't be made: {failure.strerror}.") from failure
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise WalkRefusedError("The same walk is under way on this host.") from None
    return lock
