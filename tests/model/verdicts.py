"""The model: which status each deed gets, and so whether it changes anything.

Like `world`, and for the same reason, without anything of relproxy's or the stand-in's.
"""

from __future__ import annotations

from tests.model.world import ADMIN, NOBODY, Image, World


def of_create(
    world: World,
    who: str,
    *,
    visibility: str | None,
    owner: str | None,
    may_choose_id: bool,
    is_taken: bool,
) -> int:
    if who != ADMIN:
        if visibility == "public" or owner not in (None, who):
            return 403
        if world.is_only_wall and visibility == "community":
            return 403
        if not may_choose_id:
            return 403
    return 409 if is_taken else 201


def of_reading(world: World, who: str, image: Image, *, good: int) -> int:
    if who == NOBODY:
        return 401
    return good if world.reads(who, image) else 404


def of_writing(world: World, who: str, image: Image, *, good: int) -> int:
    """Where relproxy is the only wall, what is public but not one's own can't be told from none."""
    is_own = who == ADMIN or world.owns(who, image)
    if image.is_gone or not world.reads(who, image) or (world.is_only_wall and not is_own):
        return 404
    return good if is_own else 403


def of_change(world: World, who: str, image: Image, *, what: str, value: object) -> int:
    if world.is_only_wall and who != ADMIN and what in {"visibility", "owner"}:
        return 403
    status = of_writing(world, who, image, good=200)
    is_for_admins = what == "owner" or (what, value) == ("visibility", "public")
    return 403 if status == 200 and is_for_admins and who != ADMIN else status


def of_upload(world: World, who: str, image: Image) -> int:
    return of_writing(world, who, image, good=204 if image.data is None else 409)


def of_untagging(world: World, who: str, image: Image, tag: str) -> int:
    return of_writing(world, who, image, good=204 if tag in image.tags else 404)


def of_members(world: World, who: str, image: Image) -> int:
    if world.is_only_wall:
        return 403
    if not world.reads(who, image):
        return 404
    return 200 if image.visibility == "shared" else 403


def of_sharing(world: World, who: str, image: Image, member: str) -> int:
    status = of_members(world, who, image)
    if status == 200 and not _changes(world, who, image):
        return 403
    return 409 if status == 200 and member in image.members else status


def of_reply(world: World, who: str, image: Image, member: str) -> int:
    status = _of_member(world, who, image, member)
    return 403 if status == 200 and who not in (ADMIN, member) else status


def of_unsharing(world: World, who: str, image: Image, member: str) -> int:
    status = _of_member(world, who, image, member)
    if status == 200:
        return 204 if _changes(world, who, image) else 403
    return status


def may_know_member(world: World, who: str, image: Image, member: str) -> bool:
    return member == who or _changes(world, who, image)


def _of_member(world: World, who: str, image: Image, member: str) -> int:
    status = of_members(world, who, image)
    is_known = member in image.members and may_know_member(world, who, image, member)
    return 404 if status == 200 and not is_known else status


def _changes(world: World, who: str, image: Image) -> bool:
    return who == ADMIN or world.owns(who, image)
