"""A file's text replaced at once: whoever reads it sees the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from relproxy.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Original:
    """A file as it was read; a link is followed to what it leads to."""

    named: Path
    path: Path
    data: bytes

    @property
    def text(self) -> str:
        """Its text, with the line ends that it has. Raises `ConfigurationError` if it has none."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise ConfigurationError((f"{self.named}: can't be read: it is not UTF-8.",)) from None


def read(named: Path) -> Original:
    """Read a file. Raises `ConfigurationError` if there is none, or it is no plain file."""
    try:
        path = named.resolve(strict=True)
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError((f"{named}: is no plain file.",))
        return Original(named, path, path.read_bytes())
    except OSError as failure:
        raise ConfigurationError((f"{named}: can't be read: {failure.strerror}.",)) from failure


def replace(original: Original, text: str) -> None:
    """Put another text in a file's place, with its mode, owner, times and attributes.

    Raises `ConfigurationError` if that can't be done, or the file has changed since it was read;
    then it is as it was.
    """
    try:
        _replace(original, text.encode())
    except OSError as failure:
        raise ConfigurationError(
            (f"{original.named}: can't be written: {failure.strerror}.",)
        ) from failure


def _replace(original: Original, data: bytes) -> None:
    path = original.path
    was = path.stat()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    half = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            # Before its mode: a change of owner takes bits of that away.
            os.fchown(file.fileno(), was.st_uid, was.st_gid)
            shutil.copystat(path, half)
            os.utime(half)
            os.fsync(file.fileno())
        _check_unchanged(original)
        half.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            half.unlink()
        raise
    _sync_directory(path.parent)


def _check_unchanged(original: Original) -> None:
    if original.path.read_bytes() != original.data:
        raise ConfigurationError((f"{original.named}: has changed meanwhile.",))


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
