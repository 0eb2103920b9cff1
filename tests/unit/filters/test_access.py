from __future__ import annotations

from dataclasses import replace

import pytest

from relproxy.errors import (
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    RelproxyError,
)
from relproxy.filters.access import create_objection, effect_objection, narrowed, objection
from relproxy.filters.base import UNKNOWN, BodyEffect, CreateBody, Operation
from relproxy.filters.capture import BodyMetadata
from relproxy.messages import Headers
from relproxy.model import Access, AccessRule, Caller, Treatment
from tests.unit.given import UUID

MEMBER = Caller("mine", roles=frozenset({"member"}))
ADMIN = Caller("ours", roles=frozenset({"admin"}), is_admin=True)


def operation(
    access: Access, name: str = "image-tasks", allowed: tuple[str, ...] = ()
) -> Operation:
    return Operation(name, Treatment.PASS, access, "/v2/x", allowed=allowed)


@pytest.mark.parametrize(
    ("access", "caller", "refusal"),
    [
        pytest.param(Access.ANYONE, MEMBER, None, id="anyone: a member may"),
        pytest.param(Access.CALLER, MEMBER, None, id="caller: a member may"),
        pytest.param(Access.VISIBLE, MEMBER, None, id="visible: it depends on the image"),
        pytest.param(Access.OWN, MEMBER, None, id="own: it depends on the image"),
        pytest.param(Access.ADMIN, MEMBER, ForbiddenError, id="admin: a member may not"),
        pytest.param(Access.ADMIN, ADMIN, None, id="admin: an admin may"),
        pytest.param(Access.REFUSED, MEMBER, ForbiddenError, id="refused: a member may not"),
        pytest.param(Access.REFUSED, ADMIN, ForbiddenError, id="refused: an admin may not"),
    ],
)
def test_who_may_use_a_row(
    access: Access, caller: Caller, refusal: type[RelproxyError] | None
) -> None:
    objected = objection(operation(access), caller)

    assert (objected if objected is None else type(objected)) is refusal


def test_sharing_is_refused_with_a_sentence() -> None:
    refusal = objection(operation(Access.REFUSED, "image-members"), MEMBER)

    assert refusal is not None
    assert "no sharing" in refusal.sentence


@pytest.mark.parametrize("caller", [MEMBER, ADMIN], ids=["a member", "an admin"])
def test_a_path_without_a_row_does_not_exist(caller: Caller) -> None:
    assert isinstance(objection(operation(Access.REFUSED, UNKNOWN), caller), NotFoundError)


def test_another_method_of_a_known_path_is_told_the_right_ones() -> None:
    refusal = objection(operation(Access.REFUSED, UNKNOWN, ("GET", "POST")), MEMBER)

    assert isinstance(refusal, MethodNotAllowedError)
    assert refusal.allowed == ("GET", "POST")


@pytest.mark.parametrize(
    ("rules", "is_allowed"),
    [
        pytest.param(None, True, id="no rules at all narrow nothing"),
        pytest.param((), False, id="an empty list of rules allows nothing"),
        pytest.param((("GET", "/v2/images"),), True, id="the very path"),
        pytest.param((("GET", "/v2/images/*"),), False, id="another path"),
        pytest.param((("POST", "/v2/images"),), False, id="another method"),
        pytest.param((("POST", "/v2/images"), ("GET", "/v2/**")), True, id="one of several"),
    ],
)
def test_access_rules_narrow_what_a_caller_may_do(
    rules: tuple[tuple[str, str], ...] | None, *, is_allowed: bool
) -> None:
    given = None if rules is None else tuple(AccessRule("image", *rule) for rule in rules)
    caller = replace(ADMIN, access_rules=given)
    row = Operation("image-list", Treatment.LIST, Access.CALLER, "/v2/images")

    refusal = narrowed(caller, "GET", row)

    assert (refusal is None) is is_allowed
    assert refusal is None or refusal.status == 403


def create(
    *, chosen_id: str | None = None, owner: str | None = None, effect: str | None = None
) -> CreateBody:
    return CreateBody(
        metadata=BodyMetadata(),
        headers=Headers(),
        stripped=b"{}",
        chosen_id=chosen_id,
        has_id=chosen_id is not None,
        name=None,
        owner=owner,
        effect=BodyEffect(effect) if effect else None,
    )


@pytest.mark.parametrize(
    ("said", "may_choose_id"),
    [
        pytest.param(create(), False, id="a plain create"),
        pytest.param(create(owner="mine"), False, id="its own project as the owner"),
        pytest.param(create(chosen_id=UUID), True, id="an id where that is allowed"),
    ],
)
def test_a_member_may_create(said: CreateBody, *, may_choose_id: bool) -> None:
    assert create_objection(said, MEMBER, may_choose_id=may_choose_id) is None


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        pytest.param(create(owner="theirs"), "another project", id="for another project"),
        pytest.param(create(owner="MINE"), "another project", id="for a project in capitals"),
        pytest.param(create(owner=""), "another project", id="for a project without a name"),
        pytest.param(create(chosen_id=UUID), "choose the id", id="with an id"),
        pytest.param(create(chosen_id=""), "choose the id", id="with an empty id"),
        pytest.param(create(effect="publish an image"), "publish", id="published"),
    ],
)
def test_a_member_may_not_create(said: CreateBody, sentence: str) -> None:
    refusal = create_objection(said, MEMBER, may_choose_id=False)

    assert isinstance(refusal, ForbiddenError)
    assert sentence in refusal.sentence


def test_a_chosen_id_opens_no_other_door() -> None:
    said = create(chosen_id=UUID, owner="theirs")

    assert isinstance(create_objection(said, MEMBER, may_choose_id=True), ForbiddenError)


def test_an_admin_may_create_anything() -> None:
    said = create(chosen_id=UUID, owner="theirs", effect="publish an image")

    assert create_objection(said, ADMIN, may_choose_id=False) is None


def test_an_effect_is_refused_in_a_sentence() -> None:
    refusal = effect_objection(BodyEffect("publish an image"), MEMBER)

    assert refusal is not None
    assert refusal.status == 403
    assert refusal.sentence == "You may not publish an image: that is for administrators."
    assert effect_objection(BodyEffect("publish an image"), ADMIN) is None


def test_what_is_for_nobody_is_not_for_an_admin_either() -> None:
    refusal = effect_objection(BodyEffect("change 'image_id'", is_for_nobody=True), ADMIN)

    assert refusal is not None
    assert refusal.sentence == "You may not change 'image_id': nobody may, here."
