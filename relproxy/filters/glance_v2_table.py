"""The paths of Glance's image API v2, and what each method of them needs.

The `access` of a row counts only where relproxy is the only wall (`tenancy: relproxy`); a registry
that authenticates its callers judges for itself. Source: glance/api/v2/router.py of Glance 33; a
test walks that router and fails for a route without a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    is_version_document: bool = False


def _row(  # noqa: PLR0913 - a row has that many columns
    methods: str,
    path: str,
    name: str,
    access: Access,
    treatment: Treatment = Treatment.PASS,
    *,
    has_effect: bool = False,
    is_version_document: bool = False,
) -> Iterator[TableRow]:
    pattern = tuple(path.strip("/").split("/")) if path != "/" else ()
    for method in methods.split():
        yield TableRow(method, pattern, name, access, treatment, has_effect, is_version_document)


_IMAGE = "/v2/images/{image_id}"
_BY_ID = Treatment.IMAGE

TABLE: tuple[TableRow, ...] = (
    *_row("GET", "/", "versions", Access.ANYONE, is_version_document=True),
    *_row("GET", "/versions", "versions", Access.ANYONE, is_version_document=True),
    # An old client's endpoint may end in the version: Glance redirects it to /v2/.
    *_row("GET", "/v2", "version", Access.ANYONE),
    *_row("GET", "/healthcheck", "healthcheck", Access.ADMIN),
    *_row("GET", "/v2/images", "image-list", Access.CALLER, Treatment.LIST),
    *_row("POST", "/v2/images", "image-create", Access.CALLER, Treatment.CREATE, has_effect=True),
    *_row("GET", _IMAGE, "image-show", Access.VISIBLE, _BY_ID),
    *_row("PATCH", _IMAGE, "image-update", Access.OWN, _BY_ID, has_effect=True),
    *_row("DELETE", _IMAGE, "image-delete", Access.OWN, _BY_ID),
    *_row("GET", f"{_IMAGE}/file", "image-download", Access.VISIBLE, _BY_ID),
    *_row("PUT", f"{_IMAGE}/file", "image-upload", Access.OWN, _BY_ID),
    *_row("PUT", f"{_IMAGE}/stage", "image-stage", Access.OWN, _BY_ID),
    *_row("POST", f"{_IMAGE}/import", "image-import", Access.OWN, _BY_ID, has_effect=True),
    *_row("PUT DELETE", f"{_IMAGE}/tags/{{tag}}", "image-tag", Access.OWN, _BY_ID),
    *_row("GET", f"{_IMAGE}/tasks", "image-tasks", Access.ADMIN, _BY_ID),
    *_row("GET POST", f"{_IMAGE}/locations", "image-locations", Access.ADMIN, _BY_ID),
    *_row("POST", f"{_IMAGE}/actions/deactivate", "image-deactivate", Access.ADMIN, _BY_ID),
    *_row("POST", f"{_IMAGE}/actions/reactivate", "image-reactivate", Access.ADMIN, _BY_ID),
    # There is no sharing where the registry knows no customers.
    *_row("GET POST", f"{_IMAGE}/members", "image-members", Access.REFUSED, _BY_ID),
    *_row("GET PUT DELETE", f"{_IMAGE}/members/{{member}}", "image-member", Access.REFUSED, _BY_ID),
    *_row("DELETE", "/v2/stores/{store}/{image_id}", "store-image", Access.ADMIN, _BY_ID),
    *_row("GET POST", "/v2/tasks", "tasks", Access.ADMIN),
    *_row("GET DELETE", "/v2/tasks/{task}", "task", Access.ADMIN),
    *_row("GET DELETE", "/v2/cache", "cache", Access.ADMIN),
    *_row("POST", "/v2/cache/clean", "cache", Access.ADMIN),
    *_row("POST", "/v2/cache/prune", "cache", Access.ADMIN),
    *_row("GET", "/v2/cache/nodes/{image_id}", "cache", Access.ADMIN),
    *_row("PUT DELETE", "/v2/cache/{image_id}", "cache", Access.ADMIN),
    *_row("GET", "/v2/info/import", "info", Access.CALLER),
    *_row("GET", "/v2/info/stores", "info", Access.CALLER),
    *_row("GET", "/v2/info/stores/detail", "info", Access.ADMIN),
    *_row("GET", "/v2/info/usage", "info", Access.ADMIN),
    *_row("GET", "/v2/schemas/{schema}", "schema", Access.CALLER),
    *_row("GET", "/v2/schemas/metadefs/{schema}", "schema", Access.CALLER),
    # A registry without customers shows its private namespaces to everyone: reads are closed too.
    *_row("GET POST PUT DELETE", "/v2/metadefs/**", "metadefs", Access.ADMIN),
)


def matching_rows(segments: tuple[str, ...]) -> tuple[TableRow, ...]:
    """Return the rows of the first path of the table that `segments` matches."""
    for candidate in TABLE:
        if _matches(candidate.pattern, segments):
            return tuple(row for row in TABLE if row.pattern == candidate.pattern)
    return ()


def image_id_in(pattern: tuple[str, ...], segments: tuple[str, ...]) -> str | None:
    """Return the segment that stands where the pattern has the image's id, if it has one."""
    return segments[pattern.index(IMAGE_ID)] if IMAGE_ID in pattern else None


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
