"""The schema of a journal file: files of `schema/`, in the order of their numbers.

Whoever opens a file for writing brings it up to date: a worker its own, an adopter a dead worker's,
a command what it works on. Two of them may do so at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from relproxy.store.schema_versions import schema_versions


class NewerJournalError(Exception):
    """A journal file was written by a newer relproxy."""


def bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    """Apply the versions that a file lacks, all or none.

    Raises `NewerJournalError`, and `sqlite3.Error` for what is no journal.
    """
    versions = schema_versions("journal")
    if _present(connection, path, len(versions)) == len(versions):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Somebody else may have done it since the look.
        for script in versions[_present(connection, path, len(versions)) :]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(versions)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _present(connection: sqlite3.Connection, path: Path, known: int) -> int:
    present: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if present < 0:
        raise sqlite3.DatabaseError(f"a version that is none: {present}")
    if present > known:
        raise NewerJournalError(
            f"The journal {path} is of version {present}, and this relproxy knows {known}: it "
            "was written by a newer relproxy."
        )
    return present


def _statements(script: str) -> Iterator[str]:
    """Take a script apart: to run it whole, `sqlite3` would end the transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
