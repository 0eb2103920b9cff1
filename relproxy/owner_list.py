"""The list of owners for a registry that has none: a CSV file of image_id and project.

It is read once before anything is done, and every line that isn't right is told with its number.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from relproxy.errors import WalkRefusedError
from relproxy.filters.base import is_image_id

COLUMNS = ("image_id", "project")
_LONGEST = 255
# What no project's name holds, and what no store can keep.
_UNFIT = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
_TOLD_AT_MOST = 20


class Owner(NamedTuple):
    """One line."""

    image_id: str
    project: str
    line: int


def read_owners(path: Path) -> Iterator[Owner | str]:
    """Yield the lines, ids in lower case; of one that isn't right a sentence that says why.

    Whether an id comes twice is left to whoever keeps them.
    """
    try:
        # A spreadsheet writes a mark of byte order first.
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _owners(file)
    except OSError as failure:
        raise WalkRefusedError(f"{path} can't be read: {failure.strerror}.") from failure
    except UnicodeDecodeError as failure:
        raise WalkRefusedError(f"{path} isn't UTF-8.") from failure


def check_all(path: Path, problems: list[str]) -> None:
    """Raise `WalkRefusedError` where there are any problems, with the first of them."""
    if problems:
        told = "\n".join(f"  {problem}" for problem in problems[:_TOLD_AT_MOST])
        more = len(problems) - _TOLD_AT_MOST
        rest = f"\n  and {more} more" if more > 0 else ""
        raise WalkRefusedError(f"{path} isn't right, and nothing was done:\n{told}{rest}")


def _owners(file: IO[str]) -> Iterator[Owner | str]:
    reader = csv.reader(file, strict=True)
    try:
        header = next(reader, [])
        if sorted(header) != sorted(COLUMNS):
            named = ", ".join(header) or "none"
            yield f"line 1: the columns are {named}; they should be {' and '.join(COLUMNS)}."
            return
        for fields in reader:
            if fields:
                yield _owner(dict(zip(header, fields, strict=False)), len(fields), reader.line_num)
    except csv.Error as failure:
        yield f"line {reader.line_num}: {failure}."


def _owner(fields: dict[str, str], count: int, line: int) -> Owner | str:
    if count != len(COLUMNS):
        return f"line {line}: {count} fields, and there are {len(COLUMNS)} columns."
    image_id, project = (fields[name] for name in COLUMNS)
    if not is_image_id(image_id):
        return f"line {line}: {image_id!r} is no image's id."
    if not project or len(project) > _LONGEST or _UNFIT.search(project):
        return f"line {line}: {project!r} is no project's id."
    return Owner(image_id.lower(), project, line)
