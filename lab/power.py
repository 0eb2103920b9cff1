"""A disk that can lose its power under a process: what that hasn't synced is gone then.

`power.c` is preloaded into the process and keeps what is synced. It can also make the disk fail or
stand still, and write down in which order things went to the disk and into sockets.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.venvs import ENVIRONMENTS, ensure

_SOURCE = Path(__file__).with_name("power.c")
_ROOMS = ("content", "listing", "kept")

STALL = 0
"""As a number of a fault: the operation waits until the fault is over."""


@dataclass(frozen=True)
class Event:
    """Something was written to a file, synced, or sent into a socket; in the order of the trace.

    `subject` is a file's path, or names a connection.
    """

    kind: str
    subject: str
    data: bytes


class Disk:
    """A directory whose files survive `lose_power` only as far as they were synced.

    Start a process with `environment`; end it before its disk loses power.
    """

    def __init__(self, home: Path, *, lies: bool = False) -> None:
        """Make `home`, on the disk a directory `store`; one that `lies` keeps nothing."""
        self.root = home / "disk"
        self._shadow = home / "shadow"
        self._trace = home / "trace"
        self._fault = home / "fault"
        self._lies = lies
        (self.root / "store").mkdir(parents=True)
        self._remember()

    @property
    def environment(self) -> Mapping[str, str]:
        """What to start a process with."""
        given = {
            "LD_PRELOAD": str(_library()),
            "POWER_ROOT": str(self.root),
            "POWER_SHADOW": str(self._shadow),
            "POWER_TRACE": str(self._trace),
            "POWER_FAULT": str(self._fault),
        }
        return given | ({"POWER_LIES": "1"} if self._lies else {})

    def lose_power(self) -> None:
        """Throw away what was not synced."""
        kept = self.root.with_name("kept")
        self._rebuild(self.root.stat().st_ino, kept)
        shutil.rmtree(self.root)
        kept.rename(self.root)
        self._remember()

    def events(self) -> Iterator[Event]:
        """Tell what happened, in its order."""
        with self._trace.open() as lines:
            for line in lines:
                kind, subject, data = line.rstrip("\n").split(" ")
                yield Event(kind, subject, bytes.fromhex(data))

    @contextmanager
    def failing(self, operation: str, number: int, below: Path) -> Iterator[None]:
        """Let "open", "write" or "sync" fail with an errno, or `STALL`, for files below a path."""
        made = self._fault.with_name("fault-made")
        made.write_text(f"{operation} {number} {below}\n")
        made.rename(self._fault)
        try:
            yield
        finally:
            self._fault.unlink()

    def _remember(self) -> None:
        """Take everything that is there for durable."""
        shutil.rmtree(self._shadow, ignore_errors=True)
        for room in _ROOMS:
            (self._shadow / room).mkdir(parents=True)
        for directory, _, files in os.walk(self.root):
            here = Path(directory)
            for name in files:
                self._keep(here / name)
            listing = (f"{_kind(p)} {p.stat().st_ino} {p.name}\n" for p in here.iterdir())
            (self._shadow / "listing" / str(here.stat().st_ino)).write_text("".join(listing))

    def _keep(self, file: Path) -> None:
        inode = str(file.stat().st_ino)
        shutil.copyfile(file, self._shadow / "content" / inode)
        os.link(file, self._shadow / "kept" / inode)

    def _rebuild(self, inode: int, path: Path) -> None:
        path.mkdir()
        listing = self._shadow / "listing" / str(inode)
        for line in listing.read_text().splitlines() if listing.exists() else ():
            kind, child, name = line.split(" ", 2)
            content = self._shadow / "content" / child
            if kind == "d":
                self._rebuild(int(child), path / name)
            elif content.exists():
                shutil.copyfile(content, path / name)
            else:
                (path / name).touch()


def _kind(path: Path) -> str:
    return "d" if path.is_dir() else "f"


def _library() -> Path:
    """Return the shared library, made once from its source."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    library = ENVIRONMENTS / f"power-{digest}.so"
    if not library.exists():
        ENVIRONMENTS.mkdir(exist_ok=True)
        made = library.with_name(f"{library.name}.{os.getpid()}")
        flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
        subprocess.run([*_compiler(), *flags, "-o", str(made), str(_SOURCE), "-ldl"], check=True)
        made.rename(library)
    return library


def _compiler() -> list[str]:
    """Return the machine's C compiler, or one from the package index."""
    if (found := shutil.which("cc")) is not None:
        return [found]
    return [str(ensure("zig") / "bin" / "python"), "-m", "ziglang", "cc"]
