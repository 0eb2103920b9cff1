"""The one rule: may this caller see this image?

Every list, every image by id and every marker is decided by `decide`, which names the part of the
rule that decided: what an operator is told of a decision is the decision's own word. What isn't
known is hidden.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from relproxy.model import Caller, Ownership, Tenancy


class Rule(enum.StrEnum):
    """The part of the rule that decided."""

    ADMIN = "admin"
    PUBLIC = "public"
    OWN_BY_OWNER = "own by owner"
    OWN_BY_RECORD = "own by record"
    SHARED = "shared"
    COMMUNITY_ASKED_FOR = "community, asked for"
    COMMUNITY_NOT_ASKED_FOR = "community, not asked for"
    FOREIGN = "foreign"
    NO_RECORD = "no record"
    EARLIER_RECORD = "record of another image of this id"
    NOBODY_VOUCHED = "nobody vouched for"
    UNREADABLE = "unreadable"


_OWN = frozenset({Rule.OWN_BY_OWNER, Rule.OWN_BY_RECORD})
_SHOWS = _OWN | {Rule.ADMIN, Rule.PUBLIC, Rule.SHARED, Rule.COMMUNITY_ASKED_FOR}


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an image is shown, and by which part of the rule."""

    is_visible: bool
    rule: Rule


_VERDICTS = {rule: Verdict(rule in _SHOWS, rule) for rule in Rule}


def decide(viewer: Viewer, image: ImageFacts, ownership: Ownership | None) -> Verdict:
    """Decide whether `viewer` sees `image`; `ownership` is the image's record, if there is one."""
    return _VERDICTS[_rule(viewer, image, ownership)]


def may_see(viewer: Viewer, image: ImageFacts, ownership: Ownership | None) -> bool:
    """Tell whether `viewer` sees `image`."""
    return decide(viewer, image, ownership).is_visible


def is_own(viewer: Viewer, image: ImageFacts, ownership: Ownership | None) -> bool:
    """Tell whether the image belongs to the viewer's project, by whoever knows the owners."""
    return _whose(viewer, image, ownership) in _OWN


def _rule(viewer: Viewer, image: ImageFacts, ownership: Ownership | None) -> Rule:
    if image.id is None or image.visibility is None:
        return Rule.UNREADABLE
    if viewer.caller is not None and viewer.caller.is_admin:
        return Rule.ADMIN
    if image.visibility == "public":
        return Rule.PUBLIC
    whose = _whose(viewer, image, ownership)
    if whose is not Rule.FOREIGN or viewer.tenancy is Tenancy.RELPROXY:
        return whose
    return _as_listed(viewer, image)


def _as_listed(viewer: Viewer, image: ImageFacts) -> Rule:
    """Say why a foreign image is listed by a registry that knows its callers."""
    if image.visibility == "shared":
        # The registry listed it for the caller's own token: it knows the members, we don't.
        return Rule.SHARED
    if image.visibility == "community":
        asked = viewer.asks_for_community
        return Rule.COMMUNITY_ASKED_FOR if asked else Rule.COMMUNITY_NOT_ASKED_FOR
    return Rule.FOREIGN


def _whose(viewer: Viewer, image: ImageFacts, ownership: Ownership | None) -> Rule:
    """Say to whom the image belongs, seen from the viewer's project."""
    if viewer.caller is None:
        return Rule.NOBODY_VOUCHED
    if viewer.tenancy is Tenancy.REGISTRY:
        return Rule.OWN_BY_OWNER if image.owner == viewer.caller.project else Rule.FOREIGN
    if ownership is None:
        return Rule.NO_RECORD
    if ownership.created_at != image.created_at:
        # A record of an image that was deleted says nothing of one created anew under its id.
        return Rule.EARLIER_RECORD
    is_callers = ownership.project == viewer.caller.project
    return Rule.OWN_BY_RECORD if is_callers else Rule.FOREIGN
