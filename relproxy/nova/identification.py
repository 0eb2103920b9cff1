"""The tuple of the image that is being created: which Nova, which instance of it.

The instance is known from where Nova begins to create an image of it until that create has ended,
in the thread (or greenlet) that does so, and nowhere else: so nothing but a create can name it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

INSTALLATION_HEADER = "X-Nova-Installation-UUID"
INSTANCE_HEADER = "X-Nova-Instance-ID"
# Names that relproxy takes for the tuple where it reads them in the body of a create.
RESERVED_PROPERTIES = ("nova_installation_uuid", "instance_id")

# RFC 9110 section 5.1, token.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# As relproxy/filters/capture.py has it: another one would be refused, and the create with it.
_INSTANCE_ID = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass
class Creation:
    """One create under way; `is_named` once its request has carried the tuple."""

    instance: Any
    is_named: bool = False


_current: ContextVar[Creation | None] = ContextVar("relproxy_creation", default=None)


@contextmanager
def creating(instance: object) -> Iterator[Creation]:
    """Let the create that is made within name this instance; None is for no instance."""
    creation = Creation(instance)
    token = _current.set(creation)
    try:
        yield creation
    finally:
        _current.reset(token)


def current_creation() -> Creation | None:
    """Return the create that is under way here, if it is one of an instance's image."""
    creation = _current.get()
    return None if creation is None or creation.instance is None else creation


@dataclass(frozen=True, slots=True)
class Naming:
    """What this Nova is called, and in which headers it says so. See `naming`."""

    installation: str
    installation_header: str = INSTALLATION_HEADER
    instance_header: str = INSTANCE_HEADER

    def headers_for(self, instance: Any) -> dict[str, str]:  # noqa: ANN401 - Nova's own object
        """Return the two headers of a create.

        Raises `ValueError` if the id is none that relproxy takes.
        """
        instance_id = instance.uuid
        if not isinstance(instance_id, str) or not _INSTANCE_ID.fullmatch(instance_id):
            raise ValueError("the instance has no id of 1 to 255 visible ASCII characters")
        return {self.installation_header: self.installation, self.instance_header: instance_id}


def naming(installation: str, installation_header: str, instance_header: str) -> Naming:
    """Return a Nova's naming. Raises `ValueError` for what is no UUID or no name of a header."""
    for name in (installation_header, instance_header):
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} can't be the name of a header")
    if installation_header.lower() == instance_header.lower():
        raise ValueError("the two headers have one name")
    try:
        canonical = str(uuid.UUID(installation))
    except ValueError:
        raise ValueError(f"nova_installation_uuid is {installation!r}, which is no UUID") from None
    return Naming(canonical, installation_header, instance_header)


def without_reserved(image_meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Nova says of an image, without the two reserved properties.

    They are never Nova's own: a customer named them in the metadata of a createImage, or the image
    has them that the instance was made of.
    """
    kept = dict(image_meta)
    if "properties" in kept:
        kept["properties"] = {
            name: value
            for name, value in kept["properties"].items()
            if name not in RESERVED_PROPERTIES
        }
    return kept
