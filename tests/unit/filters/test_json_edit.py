from __future__ import annotations

import pytest

from relproxy.filters.json_edit import (
    NotJSONError,
    RepeatedKeyError,
    decoded_value,
    render_object,
    shallow_object,
    strict_document,
)

DEEP = b"[" * 100_000 + b"]" * 100_000

NOT_JSON = [
    pytest.param(b"", id="nothing"),
    pytest.param(b" ", id="a blank"),
    pytest.param(b"<html>", id="HTML"),
    pytest.param(b"{'a': 1}", id="single quotes"),
    pytest.param(b'{"a": 1,}', id="a comma at the end"),
    pytest.param(b'{"a": 01}', id="a leading zero"),
    pytest.param(b'{"a": 1} x', id="something behind it"),
    pytest.param(b'{"a": 1}{"a": 1}', id="two documents"),
    pytest.param(b'{"a": 1', id="half a document"),
    pytest.param(b'{"a": NaN}', id="NaN"),
    pytest.param(b'{"a": Infinity}', id="Infinity"),
    pytest.param(b'{"a": -Infinity}', id="minus Infinity"),
    pytest.param(b'{"a": "\t"}', id="a raw tab in a string"),
    pytest.param(b'{"a": "\x00"}', id="a raw NUL in a string"),
    pytest.param(b'{"\xff": 1}', id="a key that is no UTF-8"),
    pytest.param(b'{"\\ud800": 1}', id="a key that is half a surrogate pair"),
    pytest.param(b'{"a": "\\ud800"}', id="half a surrogate pair"),
    pytest.param(b'\xef\xbb\xbf{"a": 1}', id="a byte order mark"),
    pytest.param('{"a": 1}'.encode("utf-16"), id="UTF-16 with a mark"),
    pytest.param('{"a": 1}'.encode("utf-16-le"), id="UTF-16, little end first"),
    pytest.param('{"a": 1}'.encode("utf-16-be"), id="UTF-16, big end first"),
    pytest.param('{"a": 1}'.encode("utf-32"), id="UTF-32"),
    pytest.param(b'{"a": ' + DEEP + b"}", id="a hundred thousand levels"),
]


@pytest.mark.parametrize("body", NOT_JSON)
def test_what_is_not_strict_json_in_utf_8_is_no_object(body: bytes) -> None:
    with pytest.raises(NotJSONError):
        shallow_object(body)


@pytest.mark.parametrize(
    "body",
    [
        *NOT_JSON,
        pytest.param(b'{"a": "\xff"}', id="a string that is no UTF-8"),
        pytest.param(b'{"a": "\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param(DEEP, id="a hundred thousand lists"),
    ],
)
def test_what_two_readers_may_read_differently_is_no_document(body: bytes) -> None:
    with pytest.raises(NotJSONError):
        strict_document(body)
    with pytest.raises(NotJSONError):
        decoded_value(body)


@pytest.mark.parametrize("body", [b"null", b"[]", b"5", b'"x"', b"true"])
def test_another_value_is_no_object(body: bytes) -> None:
    with pytest.raises(NotJSONError):
        shallow_object(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a": 1, "a": 1}', id="the same value"),
        pytest.param(b'{"a": 1, "b": 2, "a": 3}', id="another value"),
        pytest.param(b'{"a": 1, "\\u0061": 2}', id="in another spelling"),
        pytest.param(b'{"\xc3\xa9": 1, "\\u00e9": 2}', id="outside ASCII in another spelling"),
        pytest.param(b'{"x": {"y": [{"a": 1, "a": 2}]}}', id="deep inside"),
        pytest.param(b'[{"a": 1}, {"a": 1, "a": 2}]', id="in a list"),
        pytest.param(b'{"": 1, "": 2}', id="without a name"),
    ],
)
def test_a_repeated_key_is_found_at_any_depth(body: bytes) -> None:
    with pytest.raises(RepeatedKeyError):
        strict_document(body)


def test_one_key_in_two_objects_is_no_repetition() -> None:
    assert strict_document(b'[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


def test_keys_that_only_look_alike_are_two() -> None:
    assert strict_document('{"a": 1, "A": 2, "а": 3}'.encode()) == {"a": 1, "A": 2, "а": 3}  # noqa: RUF001


@pytest.mark.parametrize(
    "value",
    [
        b"1E400",
        b"1.0",
        b"1.10",
        b"-0",
        b"12345678901234567890123",
        b'"\\u00e9"',
        b'"\xc3\xa9"',
        b'"\\/"',
        b'"\\ud83d\\ude00"',
        b"null",
        b'{"a" :\t[1 ,2]}',
        b'{"b": 1, "a": 1, "b": 2}',
    ],
)
def test_a_value_that_is_not_looked_at_keeps_its_bytes(value: bytes) -> None:
    members = shallow_object(b'{"first": 1,"x":  ' + value + b' , "last": 2}')

    assert bytes(members["x"]) == value
    assert render_object({"x": members["x"]}) == b'{"x": ' + value + b"}"


def test_an_object_keeps_the_order_of_its_members() -> None:
    assert list(shallow_object(b'{"z": 1, "a": 2, "m": 3}')) == ["z", "a", "m"]


def test_an_object_is_spaced_as_glance_spaces_it() -> None:
    assert render_object({"a": b"1", "b": b"[]"}) == b'{"a": 1, "b": []}'
    assert render_object({}) == b"{}"


def test_a_key_with_special_characters_is_still_that_key() -> None:
    key = 'a"\\\n\u2028é😀'

    assert strict_document(render_object({key: b"1"})) == {key: 1}
