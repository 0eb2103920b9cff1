"""What a token lets its holder see of the records.

A scope is put into the question before the store is asked it: what isn't the holder's is neither
read nor counted, and has the answer of what doesn't exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from relproxy.config_tokens import Token
from relproxy.errors import BadRequestError
from relproxy.model import ImageRecord
from relproxy.store.base import RelationQuery


def narrowed(query: RelationQuery, token: Token) -> RelationQuery | None:
    """Return what of a question a token may ask; None where nothing of it is the holder's.

    Raises `BadRequestError` for a question that has to say which of several projects or
    installations it is about.
    """
    if token.scope == "all":
        return query
    if token.projects is not None:
        project = _one_of(token.projects, query.project, "project")
        return None if project is None else replace(query, project=project)
    if token.installations is not None:
        asked = query.installation
        installation = _one_of(token.installations, asked, "nova_installation_uuid")
        return None if installation is None else replace(query, installation=installation)
    return None


def shows(token: Token, record: ImageRecord) -> bool:
    """Tell whether a record is within a token's scope: the second wall, behind the question."""
    if token.scope == "all":
        return True
    if token.projects is not None:
        return record.project in token.projects
    instance = record.capture.instance if record.capture else None
    return instance is not None and instance.installation in (token.installations or ())


def _one_of(allowed: Sequence[str], asked: str | None, parameter: str) -> str | None:
    if asked is not None:
        return asked if asked in allowed else None
    if len(allowed) == 1:
        return allowed[0]
    raise BadRequestError(f"Your token is for several: say which by '{parameter}'.")
