"""May this caller do this at all, where relproxy is the only wall? One table, one function.

The table is the dialect's; what a caller may do with one image by id is decided by
`visibility.may_see` and `visibility.is_own` once the image is known.
"""

from __future__ import annotations

from relproxy.errors import (
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    RelproxyError,
)
from relproxy.filters.access_rules import allows
from relproxy.filters.base import UNKNOWN, BodyEffect, CreateBody, Operation
from relproxy.model import Access, Caller


def objection(operation: Operation, caller: Caller) -> RelproxyError | None:
    """Return why the caller may not do this whatever the image; None where nothing speaks so."""
    if operation.access is Access.REFUSED:
        return _no_such_thing(operation)
    if operation.access is Access.ADMIN and not caller.is_admin:
        return ForbiddenError(f"You may not use '{operation.name}': it is for administrators.")
    return None


def narrowed(caller: Caller, method: str, operation: Operation) -> RelproxyError | None:
    """Return why the caller's application credential isn't good for this request, if it isn't."""
    rules = caller.access_rules
    if rules is None or allows(rules, method, operation.path):
        return None
    return ForbiddenError("The access rules of your application credential don't allow this.")


def create_objection(
    said: CreateBody, caller: Caller, *, may_choose_id: bool
) -> RelproxyError | None:
    """Return why the caller may not create this image; None where nothing speaks so."""
    if said.effect is not None and (refused := effect_objection(said.effect, caller)) is not None:
        return refused
    if caller.is_admin:
        return None
    if said.owner not in {None, caller.project}:
        return effect_objection(BodyEffect("create an image for another project"), caller)
    if said.chosen_id is not None and not may_choose_id:
        return ForbiddenError("You may not choose the id of an image here: leave 'id' out.")
    return None


def effect_objection(effect: BodyEffect, caller: Caller | None) -> RelproxyError | None:
    """Return why the caller may not do this with a body; None where nothing speaks so."""
    if effect.is_for_nobody:
        return ForbiddenError(f"You may not {effect.deed}: nobody may, here.")
    if caller is not None and caller.is_admin:
        return None
    return ForbiddenError(f"You may not {effect.deed}: that is for administrators.")


def _no_such_thing(operation: Operation) -> RelproxyError:
    if operation.name != UNKNOWN:
        return ForbiddenError(
            "There is no sharing in this registry: an image is its project's own or public."
        )
    if operation.allowed:
        return MethodNotAllowedError(
            "The method specified is not allowed for this resource.", allowed=operation.allowed
        )
    return NotFoundError("The resource could not be found.")
