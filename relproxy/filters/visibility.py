"""The one rule: may this caller see this image?

Every list, every image by id and every marker is decided by `may_see`. What isn't known is hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

from relproxy.model import Caller, Ownership, Tenancy


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a registry says of one image; None stands for anything missing or unreadable."""

    id: str | None
    owner: str | None
    visibility: str | None
    created_at: str | None


@dataclass(frozen=True, slots=True)
class Viewer:
    """From where a page is looked at. `caller` is None where nobody vouches for one."""

    tenancy: Tenancy
    caller: Caller | None
    asks_for_community: bool = False


def may_see(viewer: Viewer, image: ImageFacts, ownership: Ownership | None) -> bool:
    """Decide whether `viewer` sees `image`; `ownership` is the image's record, if there is one."""
    if image.id is None or image.visibility is None:
        return False
    if viewer.caller is not None and viewer.caller.is_admin:
        return True
    if image.visibility == "public" or is_own(viewer, image, ownership):
        return True
    if viewer.tenancy is Tenancy.RELPROXY or viewer.caller is None:
        return False
    if image.visibility == "shared":
        # The registry listed it for the caller's own token: it knows the members, we don't.
        return True
    return image.visibility == "community" and viewer.asks_for_community


def is_own(viewer: Viewer, image: ImageFacts, ownership: Ownership | None) -> bool:
    """Tell whether the image belongs to the viewer's project, by whoever knows the owners."""
    if viewer.caller is None:
        return False
    if viewer.tenancy is Tenancy.REGISTRY:
        return image.owner == viewer.caller.project
    # A record of an image that was deleted says nothing of one created anew under its id.
    return (
        ownership is not None
        and ownership.project == viewer.caller.project
        and ownership.created_at == image.created_at
    )
