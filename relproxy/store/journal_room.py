"""The directory of a host's journals: its identity, and a file for each worker process.

`identity` names the directory for good. Beside it each worker holds `worker-N.db`, and for as long
as it lives an exclusive lock on `worker-N.lock`: a file whose lock is free belongs to a process
that has died, and the next to look takes it over. Lock files are never removed, because a lock on a
removed file excludes nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from relproxy.errors import JournalRefusedError
from relproxy.store.journal_disk import is_of_content, sync_directory
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_row import NONSENSE
from relproxy.store.journal_salvage import finish_replacing, replace_broken
from relproxy.store.journal_schema import NewerJournalError

_LOG = logging.getLogger(__name__)

_IDENTITY = "identity"
_MAX_WORKERS = 1024
# What is lost with the machine's memory, and what is lost with its container.
_VOLATILE = {"tmpfs": "memory", "ramfs": "memory", "overlay": "a container's own layer"}


@dataclass
class Slot:
    """A worker's place in the directory, its lock held: `file` while the journal is open."""

    path: Path
    lock: IO[str]
    salvaged: int = 0
    was_broken: bool = False

    def release(self) -> None:
        """Give the place up."""
        self.lock.close()


class JournalRoom:
    """The directory."""

    def __init__(self, directory: Path, *, allow_volatile: bool) -> None:
        """Make the directory if there is none; raises `JournalRefusedError` if it won't do."""
        self.directory = directory
        try:
            _make(directory)
            if not allow_volatile:
                _check_lasting(directory)
            _check_locks(directory)
            self.identity = _identity(directory)
        except OSError as failure:
            raise JournalRefusedError(
                f"The journal's directory {directory} can't be used: {failure.strerror}."
            ) from failure

    def claim(self) -> Slot:
        """Take the first place that nobody holds; raises `JournalRefusedError`."""
        for number in range(_MAX_WORKERS):
            if (slot := self._try(number)) is not None:
                return slot
        raise JournalRefusedError(f"All places in {self.directory} are taken.")

    def idle(self) -> Iterator[Slot]:
        """Take each place that has a journal and that nobody holds."""
        for path in files_in(self.directory):
            number = int(path.stem.removeprefix("worker-"))
            slot = self._try(number)
            if slot is None:
                continue
            if path.exists():
                yield slot
            else:
                slot.release()

    def _try(self, number: int) -> Slot | None:
        lock = (self.directory / f"worker-{number}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return Slot(self.directory / f"worker-{number}.db", lock)


def open_journal(slot: Slot) -> JournalFile:
    """Open a place's journal; a broken one is set aside, and what can be read is carried over.

    Raises `JournalRefusedError` if it can't be opened for another reason than what is in it.
    """
    try:
        finish_replacing(slot.path)
        return _of_a_worker(slot.path)
    except NewerJournalError as failure:
        raise JournalRefusedError(str(failure)) from failure
    except (sqlite3.Error, OSError, *NONSENSE) as failure:
        if not is_of_content(failure):
            raise _unusable(slot.path, failure) from failure
        _LOG.error("journal is broken", extra={"path": str(slot.path)}, exc_info=failure)
    try:
        return _renewed(slot)
    except (sqlite3.Error, OSError) as failure:
        raise _unusable(slot.path, failure) from failure


def _of_a_worker(path: Path) -> JournalFile:
    """Open a file into which entries come, though they may have gone from it before."""
    file = JournalFile(path)
    try:
        file.leave(is_leaving=False)
    except BaseException:
        file.close()
        raise
    return file


def _renewed(slot: Slot) -> JournalFile:
    slot.salvaged = replace_broken(slot.path)
    slot.was_broken = True
    _LOG.error("entries salvaged", extra={"path": str(slot.path), "entries": slot.salvaged})
    return JournalFile(slot.path)


def files_in(directory: Path) -> list[Path]:
    """Return the journal files of a directory, in the order of their numbers."""
    found = [p for p in directory.glob("worker-*.db") if p.stem.removeprefix("worker-").isdigit()]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("worker-")))


def remove(slot: Slot) -> None:
    """Remove a place's journal, whose entries are elsewhere, and give the place up."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{slot.path}{suffix}").unlink(missing_ok=True)
    sync_directory(slot.path.parent)
    slot.release()


def _unusable(path: Path, failure: Exception) -> JournalRefusedError:
    return JournalRefusedError(f"The journal {path} can't be opened: {failure}.")


def _make(directory: Path) -> None:
    """Make a directory and those above it, each with a name that survives power loss."""
    if directory.is_dir():
        return
    _make(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def _identity(directory: Path) -> str:
    """Return the directory's identity; whoever comes first gives it one."""
    file = directory / _IDENTITY
    if not file.exists():
        made = directory / f".{_IDENTITY}-{uuid.uuid4()}"
        with made.open("w") as out:
            out.write(f"{uuid.uuid4()}\n")
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):
            # A link, unlike a rename, never replaces the identity that another process made.
            os.link(made, file)
        made.unlink()
        sync_directory(directory)
    try:
        return str(uuid.UUID(file.read_text().strip()))
    except ValueError:
        raise JournalRefusedError(
            f"{file} holds no identity: restore it, or remove it if the journals are not those of "
            "this directory."
        ) from None


def _check_lasting(directory: Path) -> None:
    kind = _file_system(directory)
    if (why := _VOLATILE.get(kind)) is not None:
        raise JournalRefusedError(
            f"The journal's directory {directory} is on {kind}: what is in it is lost with {why}. "
            "Give it a disk, or set journal.allow_volatile if that may be."
        )


def _file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the kind of file system that `path` is on; "" where the kernel doesn't tell.

    Source: proc(5), /proc/pid/mountinfo: the mount point is field 5, the type follows " - ".
    """
    resolved = path.resolve()
    kind, depth = "", -1
    with contextlib.suppress(OSError):
        for line in mounts.read_text(errors="surrogateescape").splitlines():
            before, _, after = line.partition(" - ")
            point = Path(before.split(" ")[4].replace("\\040", " "))
            # Of two mounts on one point the later hides the earlier.
            if resolved.is_relative_to(point) and len(point.parts) >= depth:
                kind, depth = after.split(" ")[0], len(point.parts)
    return kind


def _check_locks(directory: Path) -> None:
    """Raise `JournalRefusedError` where a lock doesn't keep a second one out."""
    probe = directory / f".lock-{uuid.uuid4()}"
    try:
        with probe.open("w") as first, probe.open("w") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                raise JournalRefusedError(
                    f"The journal's directory {directory} is on a file system whose locks keep "
                    "nobody out: two processes could write one journal."
                )
    except OSError as failure:
        raise JournalRefusedError(
            f"The journal's directory {directory} is on a file system without locks: {failure}."
        ) from failure
    finally:
        probe.unlink(missing_ok=True)
