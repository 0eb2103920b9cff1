from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from relproxy.cli.replacement import read, replace
from relproxy.errors import ConfigurationError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "nova.conf"
    made.write_text("old\n")
    return made


def test_a_file_keeps_its_mode_its_owner_and_its_attributes(file: Path) -> None:
    file.chmod(0o640)
    if os.getuid() == 0:
        os.chown(file, 4711, 4712)
    os.setxattr(file, "user.remark", b"kept")
    was = file.stat()
    replace(read(file), "new\n")
    now = file.stat()
    assert file.read_text() == "new\n"
    assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)
    assert os.getxattr(file, "user.remark") == b"kept"
    assert now.st_mtime_ns > was.st_mtime_ns
    assert now.st_ino != was.st_ino
    assert list(file.parent.iterdir()) == [file]


def test_a_link_leads_to_the_new_file(file: Path) -> None:
    link = file.parent / "link.conf"
    link.symlink_to(file.name)
    replace(read(link), "new\n")
    assert link.is_symlink()
    assert file.read_text() == "new\n"


def test_a_file_that_somebody_else_has_changed_meanwhile_is_left(file: Path) -> None:
    original = read(file)
    file.write_text("theirs\n")
    with pytest.raises(ConfigurationError, match="has changed meanwhile"):
        replace(original, "new\n")
    assert file.read_text() == "theirs\n"
    assert list(file.parent.iterdir()) == [file]


def test_line_ends_are_what_they_were(file: Path) -> None:
    file.write_bytes(b"a\r\nb\n")
    replace(read(file), read(file).text)
    assert file.read_bytes() == b"a\r\nb\n"


def test_what_is_no_readable_file_is_a_sentence(file: Path) -> None:
    for other, said in (
        (file.parent, "no plain file"),
        (file.parent / "none.conf", "can't be read: No such file"),
        (file / "below", "can't be read: Not a directory"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            read(other)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        _ = read(file).text


def test_a_disk_that_takes_nothing_leaves_the_file_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="can't be written: No space left"):
        replace(read(file), "new\n")
    assert file.read_text() == "old\n"
    assert list(file.parent.iterdir()) == [file]


def test_the_new_file_is_never_readable_by_more_than_the_old_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nova.conf holds passwords."""
    file.chmod(0o600)
    modes = []
    fchown = os.fchown

    def seen(handle: int, user: int, group: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        fchown(handle, user, group)

    monkeypatch.setattr(os, "fchown", seen)
    replace(read(file), "new\n")
    assert modes == [0o600]
