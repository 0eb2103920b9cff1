"""How each dialect says the same things: what the contract of dialects is tried with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from relproxy.filters.base import Dialect
from relproxy.filters.glance_registry import GlanceRegistry
from relproxy.filters.glance_v1 import GlanceV1
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.messages import Headers

CREATED_AT = "2026-11-22T15:07:26Z"
UUID = "14c22e86-19ff-4fce-8919-89a34d23b277"
OTHER_UUID = "0b1d2e3f-4a5b-4c6d-8e7f-8091a2b3c4d5"

Message = tuple[Headers, bytes]


@dataclass(frozen=True)
class Said:
    """An image in no API's words: `properties` are a customer's own, None stands for nothing."""

    id: str | None = None
    name: str | None = None
    owner: str | None = None
    public: bool | None = None
    location: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


class Speech(Protocol):
    """One dialect's way of saying things. Where a repeat is said, it is of the image's name."""

    dialect: Dialect
    ids: tuple[str, str]
    list_target: str
    create_target: tuple[str, str]
    update_target: tuple[str, str]

    def create(self, said: Said, *, repeats: bool = False) -> Message:
        """Say a create."""
        ...

    def update(self, said: Said, *, repeats: bool = False) -> Message:
        """Say an update of the first of `ids`."""
        ...

    def properties_in(self, message: Message) -> Mapping[str, str]:
        """Return a customer's own properties in a create as it goes on."""
        ...

    def created(self, said: Said) -> bytes:
        """Return the body of the answer to a create."""
        ...

    def shown(self, said: Said, *, repeats_owner: bool = False) -> Message:
        """Return the answer to the question for one image."""
        ...

    def row(self, said: Said, *, repeats_owner: bool = False) -> bytes:
        """Return an image as a list has it, oddly spaced, with a member that nobody knows."""
        ...

    def listed(self, *rows: bytes) -> bytes:
        """Return a list."""
        ...


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


class SpeechV2:
    """The speech of `glance-v2`."""

    dialect: Dialect = GlanceV2()
    ids = (UUID, OTHER_UUID)
    list_target = "/v2/images"
    create_target = ("POST", "/v2/images")
    update_target = ("PATCH", f"/v2/images/{UUID}")

    def create(self, said: Said, *, repeats: bool = False) -> Message:
        body = _json(_members_v2(said))
        return Headers(), body[:-1] + b', "name": "a", "name": "b"}' if repeats else body

    def update(self, said: Said, *, repeats: bool = False) -> Message:
        changes = [
            {"op": "replace", "path": f"/{name}", "value": value}
            for name, value in _members_v2(said).items()
        ]
        repeat = b'[{"op": "replace", "path": "/name", "path": "/owner", "value": "b"}]'
        return Headers(), repeat if repeats else _json(changes)

    def properties_in(self, message: Message) -> Mapping[str, str]:
        known = {"id", "name", "owner", "visibility", "locations"}
        members: dict[str, str] = json.loads(message[1])
        return {name: value for name, value in members.items() if name not in known}

    def created(self, said: Said) -> bytes:
        return _json({"created_at": CREATED_AT, **_members_v2(said)})

    def shown(self, said: Said, *, repeats_owner: bool = False) -> Message:
        return Headers(), self.row(said, repeats_owner=repeats_owner)

    def row(self, said: Said, *, repeats_owner: bool = False) -> bytes:
        return _odd({"visibility": "private", **_members_v2(said)}, repeats_owner=repeats_owner)

    def listed(self, *rows: bytes) -> bytes:
        return b'{"images":[' + b" ,".join(rows) + b'], "first": "/v2/images"}'


class SpeechV1:
    """The speech of `glance-v1`."""

    dialect: Dialect = GlanceV1()
    ids = (UUID, OTHER_UUID)
    list_target = "/v1/images/detail"
    create_target = ("POST", "/v1/images")
    update_target = ("PUT", f"/v1/images/{UUID}")

    def create(self, said: Said, *, repeats: bool = False) -> Message:
        twice = (("x-image-meta-name", "a"), ("X-Image-Meta_Name", "b")) if repeats else ()
        return Headers().with_added(*_fields_v1(said), *twice), b""

    def update(self, said: Said, *, repeats: bool = False) -> Message:
        return self.create(said, repeats=repeats)

    def properties_in(self, message: Message) -> Mapping[str, str]:
        prefix = "x-image-meta-property-"
        return {
            name.decode().removeprefix(prefix): value.decode()
            for name, value in message[0].pairs
            if name.decode().startswith(prefix)
        }

    def created(self, said: Said) -> bytes:
        return _json({"image": {"created_at": CREATED_AT, **_members_v1(said)}})

    def shown(self, said: Said, *, repeats_owner: bool = False) -> Message:
        public = ("x-image-meta-is_public", str(bool(said.public)))
        fields = [f for f in _fields_v1(said) if f[0] != public[0]]
        twice = (("X-Image-Meta-Owner", "p2"),) if repeats_owner else ()
        created_at = ("x-image-meta-created_at", CREATED_AT)
        deleted = ("x-image-meta-deleted", "False")
        return Headers().with_added(*fields, public, created_at, deleted, *twice), b""

    def row(self, said: Said, *, repeats_owner: bool = False) -> bytes:
        return _odd(_members_v1(said), repeats_owner=repeats_owner)

    def listed(self, *rows: bytes) -> bytes:
        return b'{"images":[' + b" ,".join(rows) + b"]}"


class SpeechRegistry(SpeechV1):
    """The speech of `glance-registry`: v1's members in JSON both ways, ids that are numbers."""

    dialect: Dialect = GlanceRegistry()
    ids = ("17", "4711")
    list_target = "/images/detail"
    create_target = ("POST", "/images")
    update_target = ("PUT", "/images/17")

    def create(self, said: Said, *, repeats: bool = False) -> Message:
        body = _json({"image": _members_registry(said)})
        return Headers(), b'{"x": {"name": 1, "name": 2}, ' + body[1:] if repeats else body

    def properties_in(self, message: Message) -> Mapping[str, str]:
        found: dict[str, str] = json.loads(message[1])["image"]["properties"]
        return found

    def created(self, said: Said) -> bytes:
        return _json({"image": {"created_at": CREATED_AT, **_members_registry(said)}})

    def shown(self, said: Said, *, repeats_owner: bool = False) -> Message:
        return Headers(), b'{"image": ' + self.row(said, repeats_owner=repeats_owner) + b"}"

    def row(self, said: Said, *, repeats_owner: bool = False) -> bytes:
        return _odd(_members_registry(said), repeats_owner=repeats_owner)


def _members_registry(said: Said) -> dict[str, Any]:
    members = _members_v1(said)
    return members | ({"id": int(said.id)} if said.id is not None else {})


def _members_v2(said: Said) -> dict[str, Any]:
    visibility = None if said.public is None else "public" if said.public else "private"
    members: dict[str, Any] = {"id": said.id, "name": said.name, "owner": said.owner}
    members["visibility"] = visibility
    members["locations"] = [{"url": said.location, "metadata": {}}] if said.location else None
    given = {name: value for name, value in members.items() if value is not None}
    return given | dict(said.properties)


def _members_v1(said: Said) -> dict[str, Any]:
    members = {"id": said.id, "name": said.name, "location": said.location, "owner": said.owner}
    given = {name: value for name, value in members.items() if value is not None}
    return {**given, "is_public": bool(said.public), "properties": dict(said.properties)}


def _fields_v1(said: Said) -> list[tuple[str, str]]:
    public = None if said.public is None else str(said.public)
    fields = {"id": said.id, "name": said.name, "owner": said.owner, "is_public": public}
    fields["location"] = said.location
    properties = {f"property-{name}": value for name, value in said.properties.items()}
    every = fields | properties
    return [(f"x-image-meta-{name}", value) for name, value in every.items() if value is not None]


def _odd(members: Mapping[str, Any], *, repeats_owner: bool) -> bytes:
    repeat = b', "owner": "p2"' if repeats_owner else b""
    odd = b'{"new" : {"a":1.0e0}, "created_at":"%s",  ' % CREATED_AT.encode()
    return odd + _json(dict(members))[1:-1] + repeat + b" }"


SPEECHES: tuple[Speech, ...] = (SpeechV2(), SpeechV1(), SpeechRegistry())
