"""The query of a list request: parsed once, repeats refused, and rebuilt from what was parsed."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode

from relproxy.errors import BadRequestError
from relproxy.filters.capture import canonical_installation, checked_instance_id

Pairs = tuple[tuple[str, str], ...]

INSTANCE_PARAMETER = "instance_id"
INSTALLATION_PARAMETER = "nova_installation_uuid"

# Glance gives these several meanings when repeated; every other one must come once.
_REPEATABLE = frozenset({"tag", "sort_key", "sort_dir"})
_OWN_PARAMETERS = frozenset({"limit", "marker", INSTANCE_PARAMETER, INSTALLATION_PARAMETER})
_MAX_PARAMETERS = 100
_DIGITS = re.compile(r"[0-9]{1,100}")

# An id that no record can name, for a list that must be empty but still be the registry's own.
NO_IMAGE = str(uuid.UUID(int=0))


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a list request asks for.

    `shown` is every parameter but `marker` in the client's order: what links repeat. `filters` is
    `shown` less `limit` and relproxy's own parameters: what the registry is asked.
    """

    shown: Pairs
    filters: Pairs
    limit: int | None
    marker: str | None
    instance_id: str | None
    installation: str | None

    def filter(self, name: str) -> str | None:
        """Return the value of one filter, or None where it isn't asked for."""
        return dict(self.filters).get(name)

    def ids(self) -> tuple[str, ...] | None:
        """Return the ids that the filter on `id` names, however it is spelled; None without one.

        Source: glance/common/utils.py, `split_filter_op` and `split_filter_value_for_quotes`. No
        id has a comma or a quote in it, so what is quoted otherwise names none.
        """
        value = self.filter("id")
        if value is None:
            return None
        operator, has_operator, operand = value.partition(":")
        if not has_operator:
            return (value,)
        if operator == "eq":
            return (operand,)
        return tuple(map(_unquoted, operand.split(","))) if operator == "in" else ()

    def within(self, name: str, value: str) -> ListQuery:
        """Return the query with one more filter, instead of one of the same name."""
        others = tuple(pair for pair in self.filters if pair[0] != name)
        return replace(self, filters=(*others, (name, value)))


def parse_list_query(raw: str) -> ListQuery:
    """Read a list query; raise `BadRequestError` where it is malformed or means two things."""
    pairs = _parsed(raw)
    _refuse_repeats(pairs)
    given = dict(pairs)
    instance_id, installation = _instance(given)
    return ListQuery(
        shown=tuple(pair for pair in pairs if pair[0] != "marker"),
        filters=tuple(pair for pair in pairs if pair[0] not in _OWN_PARAMETERS),
        limit=_limit(given.get("limit")),
        marker=given.get("marker"),
        instance_id=instance_id,
        installation=installation,
    )


def upstream_query(query: ListQuery, *, limit: int, marker: str | None) -> str:
    """Return the raw query for one upstream page."""
    paging = [("limit", str(limit))]
    if marker is not None:
        paging.append(("marker", marker))
    # Commas and colons stay as they are: the ids of an "in:" filter must fit one request line.
    return urlencode((*query.filters, *paging), safe=",:")


def shown_query(query: ListQuery, *, marker: str | None) -> str:
    """Return the raw query of a link to a page, as the client would have written it."""
    paging = () if marker is None else (("marker", marker),)
    return urlencode((*query.shown, *paging))


def _parsed(raw: str) -> Pairs:
    try:
        pairs = parse_qsl(
            raw, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except UnicodeDecodeError as failure:
        raise BadRequestError("The query is not UTF-8.") from failure
    except ValueError as failure:
        raise BadRequestError(f"The query has over {_MAX_PARAMETERS} parameters.") from failure
    return tuple(pairs)


def _refuse_repeats(pairs: Pairs) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen and name not in _REPEATABLE:
            raise BadRequestError(f"The parameter '{name}' is given more than once: send it once.")
        seen.add(name)


def _unquoted(text: str) -> str:
    is_quoted = len(text) > 1 and text.startswith('"') and text.endswith('"')
    return text[1:-1] if is_quoted else text


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if text.startswith("-") and _DIGITS.fullmatch(text[1:]):
        raise BadRequestError("limit param must be positive")
    if not _DIGITS.fullmatch(text):
        raise BadRequestError("limit param must be an integer")
    return int(text)


def _instance(given: dict[str, str]) -> tuple[str | None, str | None]:
    instance_id = given.get(INSTANCE_PARAMETER)
    installation = given.get(INSTALLATION_PARAMETER)
    if instance_id is None:
        if installation is not None:
            raise BadRequestError(
                f"'{INSTALLATION_PARAMETER}' is half a question: send '{INSTANCE_PARAMETER}' too."
            )
        return None, None
    if "id" in given:
        raise BadRequestError(f"'{INSTANCE_PARAMETER}' and 'id' can't be combined: send one.")
    checked = checked_instance_id(instance_id, INSTANCE_PARAMETER)
    if installation is None:
        return checked, None
    return checked, canonical_installation(installation, INSTALLATION_PARAMETER)
