"""Tables of paths: what each method of each path of an image API needs.

The `access` of a row counts only where relproxy is the only wall (`tenancy: relproxy`); a registry
that authenticates its callers judges for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relproxy.filters.base import Operation
from relproxy.model import Access, Treatment

IMAGE_ID = "{image_id}"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One method of one path; a segment in braces stands for any one segment, `**` for the rest."""

    method: str
    pattern: tuple[str, ...]
    name: str
    access: Access
    treatment: Treatment = Treatment.PASS
    has_effect: bool = False
    is_said_in_headers: bool = False
    moves_data: bool = False
    is_version_document: bool = False


def rows(
    methods: str,
    path: str,
    name: str,
    access: Access,
    treatment: Treatment = Treatment.PASS,
    **traits: bool,
) -> Iterator[TableRow]:
    """Yield a row for each of the methods of a path; `traits` are the row's own names."""
    pattern = tuple(path.strip("/").split("/")) if path != "/" else ()
    for method in methods.split():
        yield TableRow(method, pattern, name, access, treatment, **traits)


def matching_rows(table: Sequence[TableRow], segments: tuple[str, ...]) -> tuple[TableRow, ...]:
    """Return the rows of the first path of the table that `segments` matches."""
    for candidate in table:
        if _matches(candidate.pattern, segments):
            return tuple(row for row in table if row.pattern == candidate.pattern)
    return ()


def image_id_in(pattern: tuple[str, ...], segments: tuple[str, ...]) -> str | None:
    """Return the segment that stands where the pattern has the image's id, if it has one."""
    return segments[pattern.index(IMAGE_ID)] if IMAGE_ID in pattern else None


def row_operation(row: TableRow, segments: tuple[str, ...], path: str) -> Operation:
    """Return the operation of a row that was matched; `path` is what the registry gets."""
    return Operation(
        name=row.name,
        treatment=row.treatment,
        access=row.access,
        path=path,
        image_id=image_id_in(row.pattern, segments),
        has_effect=row.has_effect,
        is_said_in_headers=row.is_said_in_headers,
        moves_data=row.moves_data,
        is_version_document=row.is_version_document,
    )


def _matches(pattern: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    if pattern and pattern[-1] == "**":
        head = pattern[:-1]
        return len(segments) > len(head) and segments[: len(head)] == head
    if len(pattern) != len(segments):
        return False
    return all(
        part.startswith("{") or part == segment
        for part, segment in zip(pattern, segments, strict=True)
    )
