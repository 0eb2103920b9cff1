"""What stands before every version's router in Glance's pipeline, and how its errors look.

Version negotiation (glance/api/middleware/version_negotiation.py), methods that are overridden
(routes/middleware.py, use_method_override), CORS, version documents, and the error pages of WebOb.
"""

from __future__ import annotations

import html
import json
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_plus

from relproxy.errors import BadRequestError, RegistryGarbageError
from relproxy.filters.json_edit import strict_document
from relproxy.filters.links import prefixed_url
from relproxy.filters.negotiation import preferred
from relproxy.messages import Headers

_MEDIA_TYPE = "application/vnd.openstack.images-"

# Routes lets these override the method of a request (routes/middleware.py, use_method_override).
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_METHOD_PARAMETER = re.compile(r"(^|[&;])\s*_method\s*([=&;]|$)", re.IGNORECASE)


def versioned(
    segments: tuple[str, ...], headers: Headers, versions: re.Pattern[str], name: str
) -> tuple[str, ...]:
    """Return the path with its version as `name`, wherever one of `versions` was said."""
    accept = headers.first("Accept") or ""
    if accept.startswith(_MEDIA_TYPE) and versions.fullmatch(accept[len(_MEDIA_TYPE) :]):
        return (name, *segments)
    if segments and versions.fullmatch(segments[0]):
        return (name, *segments[1:])
    return segments


def as_sent(given: tuple[str, ...], versioned: tuple[str, ...]) -> tuple[str, ...]:
    """Return the path that goes on.

    The minor version in the path is the client's own: only a missing one is put there.
    """
    return given if len(given) == len(versioned) else versioned


def refuse_overridden_method(query: str) -> None:
    """Raise `BadRequestError` if Routes would find a parameter `_method`, however encoded."""
    if _METHOD_PARAMETER.search(unquote_plus(query)):
        raise BadRequestError("The parameter '_method' is not taken: send the method itself.")


def neutral_headers(headers: Headers, *, body_type: str) -> Headers:
    """Take out what makes Glance see another version or another method.

    The version is said by the path; and a POST of a form may override its own method
    (routes/middleware.py), so a body that calls itself a form, as curl's does, is sent as
    `body_type`.
    """
    if _negotiates(headers):
        headers = headers.with_replaced("Accept", "*/*")
    if _is_form(headers):
        headers = headers.with_replaced("Content-Type", body_type)
    return headers


def is_preflight(method: str, headers: Headers) -> bool:
    """Tell whether a browser asks what it may send; it has no token for that (Fetch, CORS).

    Glance's CORS filter answers it, or its router does with 405: neither looks at an image.
    """
    asked = headers.first("Origin"), headers.first("Access-Control-Request-Method")
    return method == "OPTIONS" and None not in asked


def render_versions(body: bytes, prefix: str, host: str | None = None) -> bytes:
    """Put `prefix` before the path of every absolute `href`, on `host` if that is given."""
    try:
        document = strict_document(body)
    except ValueError as failure:
        raise RegistryGarbageError("The registry's version document is not JSON.") from failure
    return json.dumps(_prefixed(document, prefix, host)).encode()


def error_page(status: int, sentence: str, accept: str) -> tuple[str, bytes]:
    """Render an error as WebOb does for Glance: by Accept, and as plain text without one."""
    title = HTTPStatus(status).phrase
    media_type = preferred(accept, ("text/html", "application/json"))
    if media_type is None:
        return "text/plain; charset=UTF-8", f"{status} {title}\n\n{sentence}\n\n   ".encode()
    if media_type == "application/json":
        document = {
            "message": f"{sentence}<br /><br />\n\n\n",
            "code": f"{status} {title}",
            "title": title,
        }
        return media_type, json.dumps(document).encode()
    explanation = html.escape(sentence)
    heading = f"<title>{status} {title}</title>\n </head>\n <body>\n  <h1>{status} {title}</h1>"
    text = f"<html>\n <head>\n  {heading}\n  {explanation}<br /><br />\n\n\n\n </body>\n</html>"
    return "text/html; charset=UTF-8", text.encode()


def _negotiates(headers: Headers) -> bool:
    return any(_MEDIA_TYPE in value.lower() for value in headers.values("Accept"))


def _is_form(headers: Headers) -> bool:
    values = headers.values("Content-Type")
    return any(form in value.lower() for value in values for form in _FORMS)


def _prefixed(value: Any, prefix: str, host: str | None) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return [_prefixed(item, prefix, host) for item in value]
    if isinstance(value, dict):
        return {
            k: _prefixed_href(v, prefix, host) if k == "href" else _prefixed(v, prefix, host)
            for k, v in value.items()
        }
    return value


def _prefixed_href(href: object, prefix: str, host: str | None) -> object:
    return prefixed_url(href, prefix, host) if isinstance(href, str) else href
