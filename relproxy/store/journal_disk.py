"""What a disk does for a journal, and what is its fault.

Source of the result codes: https://www.sqlite.org/rescode.html. The low byte is the kind.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

# SQLITE_ERROR is what a schema that makes no sense comes to.
_OF_CONTENT = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_busy(failure: sqlite3.Error) -> bool:
    """Tell whether another process has the file."""
    return getattr(failure, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def is_of_the_disk(failure: Exception) -> bool:
    """Tell whether it is the disk that fails, and not one work."""
    # sqlite3 says "corrupt" and "not a database" by the base class itself.
    is_general = type(failure) is sqlite3.DatabaseError
    return is_general or isinstance(failure, sqlite3.OperationalError | OSError)


def is_of_content(failure: Exception) -> bool:
    """Tell whether it is what a file holds that keeps it from being read, and not its disk."""
    if isinstance(failure, sqlite3.Error):
        return getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _OF_CONTENT
    return not isinstance(failure, OSError)
