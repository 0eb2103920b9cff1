"""The parameters of a question on the admin listener."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

from relproxy.errors import BadRequestError


def given(
    request: web.Request, known: Collection[str], *, repeatable: Collection[str] = ()
) -> dict[str, str]:
    """Return the parameters that were given, each with its first value.

    Raises `BadRequestError` for one that isn't known, is empty, or is repeated and may not be.
    """
    for name in request.query:
        if name not in known:
            names = ", ".join(sorted(known))
            raise BadRequestError(f"There is no parameter '{name}'; known: {names}.")
        if name not in repeatable and len(request.query.getall(name)) > 1:
            raise BadRequestError(f"The parameter '{name}' is given more than once: send it once.")
        if not all(request.query.getall(name)):
            raise BadRequestError(f"The parameter '{name}' is empty: leave it out, or say which.")
    return {name: request.query[name] for name in request.query}
