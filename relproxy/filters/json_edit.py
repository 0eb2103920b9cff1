"""JSON taken apart one level at a time, so that what isn't looked at keeps its bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from relproxy.errors import BadRequestError

Raw = msgspec.Raw

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_VALUE = msgspec.json.Decoder()


class RepeatedKeyError(ValueError):
    """A JSON object has one key twice, so two readers may read two things."""


class NotJSONError(ValueError):
    """The bytes are not one JSON document."""


def shallow_object(body: bytes) -> dict[str, Raw]:
    """Return an object's members with their values as raw bytes, in order.

    Raises `NotJSONError` if `body` isn't an object. Of a repeated key the last one stays.
    """
    try:
        return _OBJECT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise NotJSONError(str(failure)) from failure


def strict_document(body: bytes) -> Any:  # noqa: ANN401 - a JSON document is of any type
    """Return the decoded document; raises `NotJSONError` or `RepeatedKeyError` at any depth.

    Both readers must agree: msgspec takes strict JSON only, the standard library's parser (the one
    that Glance uses) shows every pair.
    """
    decoded_value(body)
    return document_without_repeats(body)


def request_document(body: bytes, kind: type) -> Any:  # noqa: ANN401 - a JSON document
    """Return the decoded body of a request; raises `BadRequestError` unless it is of this kind."""
    try:
        document = strict_document(body)
    except RepeatedKeyError as failure:
        raise BadRequestError("The JSON of the request repeats a key: send it once.") from failure
    except NotJSONError as failure:
        raise BadRequestError("Malformed JSON in request body.") from failure
    if not isinstance(document, kind):
        expected = "object" if kind is dict else "array"
        raise BadRequestError(f"The JSON of the request is not an {expected}.")
    return document


def document_without_repeats(body: bytes) -> Any:  # noqa: ANN401 - a JSON document is of any type
    """Return the document as the standard library reads it; raises as `strict_document` does."""
    try:
        return json.loads(body, object_pairs_hook=_without_repeats)
    except RepeatedKeyError:
        raise
    except (ValueError, RecursionError) as failure:
        raise NotJSONError(str(failure)) from failure


def decoded_value(raw: bytes | Raw) -> Any:  # noqa: ANN401 - a JSON value is of any type
    """Return one decoded value; raises `NotJSONError`."""
    try:
        return _VALUE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise NotJSONError(str(failure)) from failure


def render_object(members: Mapping[str, bytes | Raw]) -> bytes:
    """Write an object from raw values, as Glance's own serializer spaces it."""
    pairs = (b"%s: %s" % (msgspec.json.encode(k), bytes(v)) for k, v in members.items())
    return b"{" + b", ".join(pairs) + b"}"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise RepeatedKeyError("a key is repeated")
    return members
