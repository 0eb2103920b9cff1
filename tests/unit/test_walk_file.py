"""What a walk has done so far, in a file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relproxy.errors import WalkRefusedError
from relproxy.model import (
    Burial,
    Capture,
    Change,
    Grade,
    ImageKey,
    ImageRecord,
    Instance,
    OwnerChange,
)
from relproxy.owner_list import Owner
from relproxy.walk_file import Finding, WalkFile

AT = datetime(2030, 1, 1, 12, 30, 1, 5, tzinfo=UTC)
CREATED = "2029-01-01T00:00:00Z"
CAPTURE = Capture(Instance("6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01", "i"), Grade.IMPORTED)
TERMS = {"command": "import"}


def opened(path: Path, *, is_anew: bool = False) -> WalkFile:
    return WalkFile(path / "walk.db", TERMS, is_anew=is_anew)


@pytest.mark.parametrize(
    "change",
    [
        ImageRecord("r", "a", CREATED, "p", CAPTURE, AT, is_imported=True),
        ImageRecord("r", "a", CREATED, "p", None, AT, is_imported=True),
        OwnerChange("r", "a", CREATED, "p", AT),
        Burial("r", "a", AT, CREATED),
    ],
)
def test_what_wasnt_told_for_certain_is_there_when_the_file_is_opened_again(
    tmp_path: Path, change: Change
) -> None:
    with closing(opened(tmp_path)) as file:
        assert file.note([Finding("a", CREATED, "x", change=change)], {"place": 7}) == [change]
    with closing(opened(tmp_path)) as file:
        assert (file.was_begun, file.fact("place")) == (True, 7)
        assert file.untold() == [change]
        file.mark_told([change])
        assert file.untold() == []
        assert file.counts() == {"x": 1}


def test_an_image_that_is_passed_again_is_neither_counted_nor_told_again(tmp_path: Path) -> None:
    change = OwnerChange("r", "a", CREATED, "p", AT)
    with closing(opened(tmp_path)) as file:
        file.note([Finding("a", CREATED, "first", change=change)])
        again = Finding("a", CREATED, "second", change=change)
        assert file.note([again, Finding("a", "later", "anew")]) == []
        assert file.counts() == {"first": 1, "anew": 1}
        keys = [ImageKey("a", CREATED), ImageKey("a", "never"), ImageKey("b", CREATED)]
        assert file.has_passed(keys) == {keys[0]}


def test_findings_come_in_order_and_may_be_decided_meanwhile(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as file:
        file.note(Finding(f"{n:04}", CREATED, "x" if n % 2 else "y") for n in range(1200))
        seen = []
        for finding in file.findings("x"):
            file.decide([Finding(finding.image_id, CREATED, "z", "a detail")])
            seen.append(int(finding.image_id))
        assert seen == list(range(1, 1200, 2))
        assert file.counts() == {"y": 600, "z": 600}
        assert [int(i) for i in file.passed()] == list(range(1199, -1, -1))


def test_a_list_of_owners_that_isnt_right_leaves_none(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as file:
        told: list[Owner | str] = [
            Owner("a", "p", 2),
            Owner("b", "p", 3),
            "line 4: x",
            Owner("a", "q", 5),
        ]
        assert file.take_owners(told) == ["line 4: x", "line 5: a is in line 2 already."]
        assert file.owners(["a", "b"]) == {}
        assert file.take_owners(told[:2]) == []
        assert file.owners(["b", "c"]) == {"b": "p"}
        assert list(file.unmet_owners()) == [Owner("a", "p", 2)]


def test_a_walk_that_is_over_or_begun_anew_leaves_nothing(tmp_path: Path) -> None:
    for end in (WalkFile.remove, WalkFile.close):
        file = opened(tmp_path, is_anew=True)
        assert (file.was_begun, file.counts()) == (False, {})
        file.note([Finding("a", CREATED, "x")])
        end(file)


def test_a_newer_relproxys_file_is_not_touched(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "walk.db")) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(WalkRefusedError, match="--anew"):
        opened(tmp_path)
    opened(tmp_path, is_anew=True).close()
