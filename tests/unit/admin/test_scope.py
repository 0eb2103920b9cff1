from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from relproxy.admin.scope import narrowed, shows
from relproxy.config_tokens import Token
from relproxy.errors import BadRequestError
from relproxy.model import Capture, Grade, ImageRecord, Instance
from relproxy.store.base import RelationQuery
from tests.unit.given import CREATED_AT, IMAGE_ID, OTHER_UUID, UUID


def token(**scope: Any) -> Token:
    return Token.model_validate({"name": "one", "token": "x" * 32, **scope})


def record(project: str, installation: str | None) -> ImageRecord:
    capture = Capture(Instance(installation, "1"), Grade.CLAIMED) if installation else None
    return ImageRecord("main", IMAGE_ID, CREATED_AT, project, capture, datetime.now(UTC))


ALL, METRICS = token(scope="all"), token(scope="metrics")
ALICES, BOTHS = token(projects=["alice"]), token(projects=["alice", "bob"])
EASTS = token(installations=[UUID])


@pytest.mark.parametrize(
    ("holder", "asked", "expected"),
    [
        (ALL, {"instance_id": "1"}, {"instance_id": "1"}),
        (METRICS, {"instance_id": "1"}, None),
        (ALICES, {"instance_id": "1"}, {"instance_id": "1", "project": "alice"}),
        (ALICES, {"project": "alice"}, {"project": "alice"}),
        (ALICES, {"project": "bob"}, None),
        (ALICES, {"project": "ALICE"}, None),
        (BOTHS, {"project": "bob"}, {"project": "bob"}),
        (BOTHS, {"project": "carol", "image_id": IMAGE_ID}, None),
        (EASTS, {"project": "bob"}, {"project": "bob", "installation": UUID}),
        (EASTS, {"instance_id": "1", "installation": OTHER_UUID}, None),
    ],
)
def test_a_question_is_narrowed_to_the_scope_before_it_is_asked(
    holder: Token, asked: dict[str, str], expected: dict[str, str] | None
) -> None:
    query = narrowed(RelationQuery(**asked), holder)
    assert query == (None if expected is None else RelationQuery(**expected))


def test_a_question_about_several_has_to_say_which() -> None:
    with pytest.raises(BadRequestError, match="'project'"):
        narrowed(RelationQuery(instance_id="1"), BOTHS)


@pytest.mark.parametrize(
    ("holder", "project", "installation", "expected"),
    [
        (ALL, "bob", None, True),
        (METRICS, "alice", UUID, False),
        (ALICES, "alice", OTHER_UUID, True),
        (ALICES, "bob", UUID, False),
        (EASTS, "bob", UUID, True),
        (EASTS, "bob", OTHER_UUID, False),
        (EASTS, "bob", None, False),
    ],
)
def test_a_record_outside_the_scope_is_not_shown_whatever_was_asked(
    holder: Token, project: str, installation: str | None, *, expected: bool
) -> None:
    assert shows(holder, record(project, installation)) is expected
