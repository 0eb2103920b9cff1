from __future__ import annotations

import pytest

from relproxy.messages import Headers, folded
from tests.unit.given import fields


@pytest.mark.parametrize(
    "spelling",
    ["X-Project-Id", "x-project-id", "X_Project_Id", "X-PROJECT_ID", b"x_project-id"],
)
def test_every_spelling_of_a_header_name_is_one_name(spelling: str | bytes) -> None:
    assert folded(spelling) == b"x-project-id"


def test_values_are_found_in_any_spelling_and_in_their_order() -> None:
    headers = fields(("X-Role", "a"), ("Other", "b"), ("x_role", "c"))

    assert headers.values("X-ROLE") == ("a", "c")
    assert headers.first("x-role") == "a"


def test_a_missing_header_has_no_value() -> None:
    assert Headers().values("Host") == ()
    assert Headers().first("Host") is None


def test_blanks_around_a_value_are_not_part_of_it() -> None:
    assert fields(("Host", " \tglance\t ")).first("Host") == "glance"


def test_an_empty_value_is_a_value() -> None:
    assert fields(("Accept", "")).first("Accept") == ""


def test_bytes_outside_ascii_survive() -> None:
    pair = (b"X-Name", "é".encode())

    assert Headers((pair,)).without(("Host",)).pairs == (pair,)


def test_removal_takes_every_spelling_and_keeps_the_rest_in_order() -> None:
    headers = fields(("A", "1"), ("x-b", "2"), ("A", "3"), ("X_B", "4"), ("C", "5"))

    assert headers.without(("X-B",)) == fields(("A", "1"), ("A", "3"), ("C", "5"))


def test_added_fields_come_last_and_may_repeat() -> None:
    assert fields(("A", "1")).with_added(("A", "2")) == fields(("A", "1"), ("A", "2"))


def test_a_replaced_field_stays_where_the_first_one_was() -> None:
    headers = fields(("A", "1"), ("Host", "old"), ("B", "2"), ("host", "older"), ("C", "3"))

    replaced = headers.with_replaced("Host", "new")

    assert replaced == fields(("A", "1"), ("Host", "new"), ("B", "2"), ("C", "3"))


def test_a_field_that_was_not_there_is_put_last() -> None:
    replaced = fields(("A", "1")).with_replaced("Host", "new")

    assert replaced == fields(("A", "1"), ("Host", "new"))
