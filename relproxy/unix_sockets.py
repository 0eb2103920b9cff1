"""Unix sockets to listen on: a file each, that outlives whoever was killed.

A file on which nobody listens any more is replaced. One on which somebody does isn't: two would
have a part of the connections each, or the second one all.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

# A socket file, whatever its name: the device it is on, its number there, and when it was made (in
# nanoseconds), because numbers are given again.
FileId = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a socket of ours, and who may connect to it: a mode such as 0660."""

    id: FileId
    mode: str


# For somebody who listens to answer; it is the kernel that does.
_PROBE_S = 1.0


def bind_unix(path: str, mode: str, backlog: int) -> socket.socket:
    """Listen on a socket at a path, with a mode such as 0660. Raises `OSError` if it can't be."""
    with ExitStack() as unless_done:
        made = unless_done.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        # Before there is a file: at no time may more people connect to it.
        os.fchmod(made.fileno(), int(mode, 8))
        try:
            made.bind(path)
        except OSError as failure:
            if failure.errno != errno.EADDRINUSE or not _is_left_over(path):
                raise
            Path(path).unlink()
            made.bind(path)
        # Whatever this process's umask took away.
        Path(path).chmod(int(mode, 8))
        made.listen(backlog)
        unless_done.pop_all()
    return made


def file_id(path: str) -> FileId | None:
    """Return which socket file is at a path; None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    is_socket = stat.S_ISSOCK(found.st_mode)
    return (found.st_dev, found.st_ino, found.st_mtime_ns) if is_socket else None


def remove(path: str, own: SocketFile) -> None:
    """Remove a socket file, if it is still this one: another relproxy may have replaced it."""
    if file_id(path) == own.id:
        with suppress(OSError):
            Path(path).unlink()


def _is_left_over(path: str) -> bool:
    """Tell whether a socket file is there, and nobody listens on it."""
    if file_id(path) is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            # So many wait to be accepted that one more would have to wait too.
            return False
    return False
