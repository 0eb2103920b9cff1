"""What the lists of image API v1 and of the registry behind it have in common.

v1 shows the registry's lists: the same members, filters and memberships, below another path. The
sources are named in each dialect, and what differs is there.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from relproxy.filters.base import Operation, Page, Row, created_from
from relproxy.filters.capture import BodyMetadata
from relproxy.filters.glance_pipeline import error_page, render_versions
from relproxy.filters.glance_v1_page import (
    read_image,
    read_listed_metadata,
    read_page,
    read_shared_ids,
    with_private,
    write_page,
)
from relproxy.filters.query import ListQuery
from relproxy.filters.target import canonical_path
from relproxy.model import CreatedImage


class GlanceV1Lists:
    """A part of both dialects; see `relproxy.filters.base.Dialect` for each method."""

    selects_by_id = False
    links_next_page = False
    # An admin who asks for private images too is shown all.
    list_parts: tuple[str, ...] = ("None",)
    # The segments before all paths.
    _root: tuple[str, ...] = ()

    def created_image(self, body: bytes) -> CreatedImage:
        """Read the image that the answer to a create or an update shows."""
        return created_from(read_image(body))

    def image_path(self, image_id: str) -> str:
        """Return the path of one image."""
        return self._path("images", image_id)

    def named_images_target(self, name: str, marker: str | None = None) -> str:
        """Ask by name, as an admin who wants private images too."""
        return f"{self._details}?name={quote(name, safe='')}&is_public=None{_behind(marker)}"

    def part_target(self, part: str, *, limit: int, marker: str | None) -> str:
        """Sort by when images were created, by which they keep their places."""
        query = f"is_public={part}&sort_key=created_at&sort_dir=asc&limit={limit}"
        return f"{self._details}?{query}{_behind(marker)}"

    def listed_metadata(self, raw: bytes) -> BodyMetadata:
        """Read the properties that name an instance."""
        return read_listed_metadata(raw)

    def shares_target(self, project: str) -> str | None:
        """Return the target of a project's memberships; v1 shows a caller its own only."""
        return self._path("shared-images", project)

    def shared_ids(self, body: bytes) -> frozenset[str]:
        """Read the memberships of a project."""
        return read_shared_ids(body)

    def list_path(self, _: Operation) -> str:
        """Return the path of the list in detail: the short one doesn't say whose an image is."""
        return self._details

    def unnarrowed(self, query: ListQuery) -> ListQuery:
        """Ask for private images too, which an admin isn't shown unasked."""
        return with_private(query)

    def page(self, body: bytes, operation: str = "image-list") -> Page:
        """Read a list in detail, its images in short where the client asks for those."""
        return read_page(body, in_short=operation == "image-index")

    def render_page(
        self, _: Page, rows: tuple[Row, ...], *, query: ListQuery, next_marker: str | None
    ) -> bytes:
        """Write a list; this API has no links, whatever follows."""
        del query, next_marker
        return write_page(rows)

    def is_unknown_marker(self, status: int, body: bytes) -> bool:
        """Tell by a sentence that is one for foreign markers, absent ones and what is no id."""
        return status == HTTPStatus.BAD_REQUEST and b"invalid marker" in body.lower()

    def render_versions(self, body: bytes, prefix: str, host: str | None = None) -> bytes:
        """Put `prefix` before the path of every absolute `href`, on `host` if that is given."""
        return render_versions(body, prefix, host)

    def refusal(self, status: int, sentence: str, accept: str) -> tuple[str, bytes]:
        """Render an error as WebOb does."""
        return error_page(status, sentence, accept)

    @property
    def _details(self) -> str:
        return self._path("images", "detail")

    def _path(self, *segments: str) -> str:
        return canonical_path((*self._root, *segments))


def _behind(marker: str | None) -> str:
    return "" if marker is None else f"&marker={quote(marker, safe='')}"
