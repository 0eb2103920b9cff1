"""What a request to the stand-in Glance means: target, refusal, list filters, order, page.

Pure functions that follow Glance 33: api/middleware/version_negotiation.py, api/v2/images.py
(`RequestDeserializer.index`, `Controller.index`, `ResponseSerializer.index`),
db/sqlalchemy/api.py (`_image_get_all`, `_paginate_query`), WebOb's query parser and its error
pages. Left out, and refused with 501 so that no test leans on it: filters on times and ranges.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlencode

Image = dict[str, Any]
Query = list[tuple[str, str]]
Order = tuple[tuple[str, bool], ...]  # (key, is descending), most significant first
ExactTime = Callable[[Image, str], str]

# With `enabled_backends`, which the `OpenStack-image-store-ids` header gives away; 2.14, 2.16 and
# 2.18 exist only with the image cache.
_MINORS = (*range(14), 15, 17)
_VERSIONS = frozenset({"v2", *(f"v2.{minor}" for minor in _MINORS)})
_MEDIA_TYPE_VERSION = "application/vnd.openstack.images-"

_EXPLANATIONS = {
    401: "This server could not verify that you are authorized to access the document you"
    " requested. Either you supplied the wrong credentials (e.g., bad password), or your browser"
    " does not understand how to supply the credentials required.",
    403: "Access was denied to this resource.",
    404: "The resource could not be found.",
    409: "There was a conflict when trying to complete your request.",
    500: "The server has either erred or is incapable of performing the requested operation.",
}
_PLAIN_PAGE = "{explanation}<br /><br />\n{detail}\n\n"
_PAGES = {
    405: "The method {explanation} is not allowed for this resource. <br /><br />\n{detail}",
    415: "The request media type {explanation} is not supported by this server.\n"
    "<br /><br />\n{detail}",
}
_HTML = (
    "<html>\n <head>\n  <title>{status}</title>\n </head>\n <body>\n  <h1>{status}</h1>\n"
    "  {page}\n </body>\n</html>"
)

_SORT_KEYS = (
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
)
_VISIBILITIES = ("community", "public", "private", "shared", "all")
_WITH_OPERATOR = ("name", "id", "status", "container_format", "disk_format")
_COMPUTED = ("self", "file", "schema", "stores")  # shown, but no column and no property
_QUOTED_OR_PLAIN = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)",?|([^,]+),?|,')


class RefusedError(Exception):
    """The request is answered with one of WebOb's error pages.

    For 405 the explanation is the method, for 415 it is the media type.
    """

    def __init__(
        self,
        status: int,
        explanation: str | None = None,
        *,
        detail: str = "",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        phrase = HTTPStatus(status).phrase
        self.status = status
        self.explanation = _EXPLANATIONS.get(status, phrase) if explanation is None else explanation
        self.detail = detail
        self.headers = headers
        super().__init__(status, self.explanation, detail)

    def page(self, accept: str | None) -> tuple[str, str]:
        """Return the content type and text that WebOb would choose for this Accept header."""
        title = HTTPStatus(self.status).phrase
        offer = _negotiate(accept)
        if offer == "text/html":
            text = _HTML.format(status=f"{self.status} {title}", page=self._fill(html.escape))
            return "text/html; charset=UTF-8", text
        if offer == "application/json":
            message = {"message": self._fill(str), "code": f"{self.status} {title}", "title": title}
            return "application/json", json.dumps(message)
        spaced = self._fill(str).replace("\n", " ").replace("<br />", "\n")
        stripped = re.sub("<.*?>", "", spaced)
        return "text/plain; charset=UTF-8", f"{self.status} {title}\n\n{stripped}"

    def _fill(self, escape: Callable[[str], str]) -> str:
        page = _PAGES.get(self.status, _PLAIN_PAGE)
        return page.format(explanation=escape(self.explanation), detail=escape(self.detail))


def _negotiate(accept: str | None) -> str | None:
    """Return the best of HTML and JSON; None (plain text) where the header allows neither.

    WebOb takes an absent header for an empty one, so a client that sends none gets plain text.
    """
    elements = [element.strip() for element in (accept or "").split(",") if element.strip()]
    if any("/" not in element for element in elements):
        return "text/html"  # an invalid header counts as none at all
    ranges = dict(_media_range(element) for element in elements)
    qualities = {offer: _quality(offer, ranges) for offer in ("text/html", "application/json")}
    best = max(qualities, key=lambda offer: qualities[offer])
    return best if qualities[best] > 0 else None


def _media_range(element: str) -> tuple[str, float]:
    media_type, _, parameters = element.partition(";")
    weight = re.search(r"\bq=([0-9.]+)", parameters)
    return media_type.strip().lower(), float(weight[1]) if weight else 1.0


def _quality(offer: str, ranges: Mapping[str, float]) -> float:
    family = offer.partition("/")[0] + "/*"
    return next((ranges[media] for media in (offer, family, "*/*") if media in ranges), 0.0)


def split_target(target: str) -> tuple[str, str]:
    """Return the decoded path, its slashes collapsed, and the raw query of a request target."""
    origin_form = re.sub(r"^[A-Za-z][\w+.-]*://[^/?#]*", "", target)
    path, _, query = origin_form.partition("#")[0].partition("?")
    return re.sub("//+", "/", unquote(path)), query


def path_within_v2(path: str, accept: str) -> str | None:
    """Return what follows the version; None for a version that Glance does not know."""
    tidied = re.sub(r"\s*;\s*q=1(\.0*)?$", "", accept.rstrip(", \t"))
    if tidied.startswith(_MEDIA_TYPE_VERSION):
        return path if tidied.removeprefix(_MEDIA_TYPE_VERSION) in _VERSIONS else None
    version, slash, rest = path.lstrip("/").partition("/")
    return slash + rest if version in _VERSIONS else None


def parse_query(raw: str) -> Query:
    """Return the decoded pairs, in order; like WebOb, `;` separates as well as `&` does."""
    pairs = [pair.partition("=") for pair in re.split("[&;]", raw.replace("+", " ")) if pair]
    try:
        return [(_decode(name), _decode(value)) for name, _, value in pairs]
    except UnicodeDecodeError as error:
        raise RefusedError(
            400,
            "Error decoding your request. Either the URL or the request body contained characters"
            " that could not be decoded by Glance",
        ) from error


def _decode(text: str) -> str:
    return unquote_to_bytes(text).decode()


def routed_method(method: str, query: str, form: str) -> str:
    """Return the method that Glance's router obeys: `_method` overrides the real one."""
    source = query if "_method" in query else form if method == "POST" else ""
    try:
        override = dict(parse_query(source)).get("_method")
    except RefusedError:
        override = None
    return (override or method).upper()


@dataclass(frozen=True)
class Caller:
    """Whom Glance takes the request to be from."""

    project: str | None
    is_admin: bool


@dataclass(frozen=True)
class Listing:
    """What one list request asks for; `filters` maps a key to the texts that pass."""

    limit: int
    marker: str | None
    order: Order
    member_status: str
    visibility: str | None
    tags: tuple[str, ...]
    filters: Mapping[str, frozenset[str]]


def parse_listing(query: Query, *, default_limit: int, max_limit: int) -> Listing:
    """Read a list's query as Glance does; raise `RefusedError` where Glance answers 400.

    Of a repeated `limit`, `marker` or `visibility` the first counts, and the next one becomes a
    filter; of any other repeated parameter the last counts.
    """
    rest = list(query)
    _check_filters(dict(rest))
    limit, marker = _pop(rest, "limit"), _pop(rest, "marker")
    tags = tuple(tag.strip() for tag in _pop_all(rest, "tag"))
    status = _pop(rest, "member_status")
    member_status = "accepted" if status is None else _read_member_status(status)
    wanted = default_limit if limit is None else _read_limit(limit)
    order = _read_order(rest)
    visibility = _pop(rest, "visibility")
    filters = _read_filters(dict(rest))
    size = min(wanted, max_limit)
    return Listing(size, marker, order, member_status, visibility, tags, filters)


def _pop(query: Query, name: str) -> str | None:
    """Remove and return the first value of `name`."""
    found = next((pair for pair in query if pair[0] == name), None)
    if found is None:
        return None
    query.remove(found)
    return found[1]


def _pop_all(query: Query, name: str) -> list[str]:
    values = [value for key, value in query if key == name]
    query[:] = [pair for pair in query if pair[0] != name]
    return values


def _one_of(value: str, allowed: Iterable[str], complaint: str) -> str:
    if value not in allowed:
        raise RefusedError(400, complaint.format(value))
    return value


def _check_filters(parameters: Mapping[str, str]) -> None:
    if parameters.get("visibility"):
        _one_of(parameters["visibility"], _VISIBILITIES, "Invalid visibility value: {}")
    if parameters.get("changes-since"):
        raise RefusedError(400, 'The "changes-since" filter is no longer available on v2.')


def _read_member_status(text: str) -> str:
    return _one_of(text, ("pending", "accepted", "rejected", "all"), "Invalid status: {}")


def _read_limit(text: str) -> int:
    try:
        limit = int(text)
    except ValueError as error:
        raise RefusedError(400, "limit param must be an integer") from error
    if limit < 0:
        raise RefusedError(400, "limit param must be positive")
    return limit


def _read_order(query: Query) -> Order:
    """Pop the sort parameters; `created_at` and `id` break ties, as in `_image_get_all`."""
    keys, directions = _sort_parameters(query)
    if len(directions) > 1 and len(directions) != len(keys):
        raise RefusedError(400, "Number of sort dirs does not match the number of sort keys")
    keys, directions = keys or ["created_at"], directions or ["desc"]
    fallback = directions[0] if len(directions) == 1 else "desc"
    if len(directions) == 1:
        directions *= len(keys)
    for key in ("created_at", "id"):
        if key not in keys:
            keys.append(key)
            directions.append(fallback)
    return tuple((key, way == "desc") for key, way in zip(keys, directions, strict=True))


def _sort_parameters(query: Query) -> tuple[list[str], list[str]]:
    combined = _pop(query, "sort")
    keys, directions = _pop_all(query, "sort_key"), _pop_all(query, "sort_dir")
    if combined is not None:
        if keys or directions:
            raise RefusedError(400, "Old and new sorting syntax cannot be combined")
        parts = [part.partition(":") for part in combined.strip().split(",")]
        keys, directions = [part[0] for part in parts], [part[2] or "desc" for part in parts]
    complaint = f"Invalid sort key: {{}}. It must be one of the following: {', '.join(_SORT_KEYS)}."
    return (
        [_one_of(key.strip(), _SORT_KEYS, complaint) for key in keys],
        [_one_of(way.strip(), ("asc", "desc"), "Invalid sort direction: {}") for way in directions],
    )


def _read_filters(parameters: Mapping[str, str]) -> dict[str, frozenset[str]]:
    filters = {key: _accepted(key, value) for key, value in parameters.items() if key != "deleted"}
    hidden = parameters.get("os_hidden", "false").lower()
    filters["os_hidden"] = frozenset({_boolean("os_hidden", hidden)})
    return filters


def _accepted(key: str, value: str) -> frozenset[str]:
    """Return the texts that pass the filter `key=value`."""
    if key in ("created_at", "updated_at") or key.endswith(("_min", "_max")):
        raise RefusedError(501, f"The stand-in has no filter '{key}'.")
    if key == "protected":
        return frozenset({_boolean(key, value)})
    operator, colon, operand = value.partition(":")
    if key not in _WITH_OPERATOR or not colon:
        return frozenset({value})
    if operator == "in":
        return frozenset(quoted or plain for quoted, plain in _QUOTED_OR_PLAIN.findall(operand))
    if operator == "eq":
        return frozenset({operand})
    raise RefusedError(400, f"Unable to filter by unknown operator '{operator}'.")


def _boolean(key: str, value: str) -> str:
    complaint = f"Invalid value '{{}}' for '{key}' filter. Valid values are 'true' or 'false'."
    return _one_of(value, ("true", "false"), complaint)


def is_listed(image: Image, caller: Caller, listing: Listing, shares: Mapping[str, str]) -> bool:
    """Tell whether Glance's list offers the image to the caller, whatever the other filters.

    `shares` maps the image's member projects to their member status.
    """
    if not caller.is_admin and not _is_offered(image, caller, listing, shares):
        return False
    visibility = image["visibility"]
    if listing.visibility is not None:
        return listing.visibility in ("all", visibility)
    is_own = caller.project is not None and image["owner"] == caller.project
    return is_own or bool(visibility != "community")


def _is_offered(image: Image, caller: Caller, listing: Listing, shares: Mapping[str, str]) -> bool:
    if image["visibility"] in ("public", "community"):
        return True
    if caller.project is None:  # no project to compare with: everyone's shared images
        return image["visibility"] == "shared" and bool(shares)
    if image["owner"] == caller.project:
        return True
    status = shares.get(caller.project) if image["visibility"] == "shared" else None
    return status is not None and listing.member_status in ("all", status)


def is_readable(image: Image, caller: Caller, shares: Mapping[str, str]) -> bool:
    """Tell whether the caller may read the image by its id, and use it as a marker."""
    if caller.is_admin or image["owner"] is None or image["visibility"] in ("public", "community"):
        return True
    if caller.project is None:
        return False
    is_shared = image["visibility"] == "shared" and caller.project in shares
    return is_shared or bool(image["owner"] == caller.project)


def matches(image: Image, listing: Listing) -> bool:
    """Tell whether the image passes the list's filters and tags."""
    filters = listing.filters.items()
    has_tags = set(listing.tags) <= set(image["tags"])
    return has_tags and all(_as_text(image, key) in texts for key, texts in filters)


def _as_text(image: Image, key: str) -> str | None:
    value = None if key in _COMPUTED else image.get(key)
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def in_order(images: Iterable[Image], order: Order, exact_time: ExactTime) -> list[Image]:
    """Sort images; nothing sorts like an empty text or zero (SQLite puts it before both)."""
    ranked = list(images)
    for key, is_descending in reversed(order):
        ranked.sort(key=lambda row: _rank(row, key, exact_time), reverse=is_descending)
    return ranked


def is_after(image: Image, marker: Image, order: Order, exact_time: ExactTime) -> bool:
    """Tell whether the image comes strictly after the marker."""
    for key, is_descending in order:
        mine, its = _rank(image, key, exact_time), _rank(marker, key, exact_time)
        if mine != its:
            return bool(mine < its if is_descending else mine > its)
    return False


def _rank(image: Image, key: str, exact_time: ExactTime) -> Any:  # noqa: ANN401 - text or number
    if key in ("created_at", "updated_at"):
        return exact_time(image, key)
    return image[key] or (0 if key == "size" else "")


def links(query: Query, next_marker: str | None) -> dict[str, str]:
    """Return `first`, `schema` and, if there is a marker, `next`, in Glance's order."""
    parameters = {name: value for name, value in dict(query).items() if name != "marker"}
    question = "?" if parameters else ""
    page = {
        "first": f"/v2/images{question}{urlencode(parameters)}",
        "schema": "/v2/schemas/images",
    }
    if next_marker is not None:
        page["next"] = f"/v2/images?{urlencode({**parameters, 'marker': next_marker})}"
    return page
