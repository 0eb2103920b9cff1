"""The settings that say how much may be under way at once."""

from __future__ import annotations

from pydantic import Field

from relproxy.config_types import Count, Section


class AtOnce(Section):
    """How many requests may be under way at once, image data apart: it is slow and cheap."""

    requests: Count | None = Field(
        default=None, description="All but uploads, stagings and downloads; null: no limit."
    )
    transfers: Count | None = Field(
        default=None, description="Uploads, stagings and downloads of image data; null: no limit."
    )


class Concurrency(Section):
    """What one worker takes on at once: of all, and of each project."""

    connections: Count | None = Field(
        default=None,
        description="Connections of clients that one worker holds, idle ones too; more wait. Left "
        "out: half of the descriptors that it may open, because each may need another one to a "
        "registry.",
    )
    worker: AtOnce = AtOnce()
    project: AtOnce = AtOnce()
