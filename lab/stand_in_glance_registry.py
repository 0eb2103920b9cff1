"""A stand-in for the glance-registry of 2011 in this process, on a real socket.

Faithful to Glance 2011.3 (diablo) in what a proxy in front of it can trip over: ids that are
numbers and are read leniently, JSON both ways, 200 to a create, routes with formats, a root that
lists by every method. Source: glance/registry/server.py. Who asks is said by `X-Auth-Token`, which
stands for a project here; `admin` is an admin, and without a token so is everyone, as there.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lab.stand_in_query import Caller, Image, RefusedError, split_target
from lab.stand_in_v1 import StandInV1
from lab.stand_in_v1_image import Listing, new_image, parse_listing
from lab.stand_in_wire import Answer, Call, Handler, Recorded, json_bytes, pieces, read_json

if TYPE_CHECKING:
    from aiohttp import web

    from lab.stand_in_query import Query

_FORMAT = r"(?:\.[a-z]+)?"
_IMAGE = r"/images/([^/.]+)"
_PROTECTED = ("created_at", "updated_at", "deleted_at", "deleted")


@dataclass(kw_only=True, eq=False)
class StandInGlanceRegistry(StandInV1):
    """A glance-registry to enter with `async with`; `images` are its own documents, by text id."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ids = itertools.count(1)

    def add_image(self, **fields: Any) -> Image:  # noqa: ANN401 - any field of an image
        """Make an image with any fields, newer than all before it, and return its document."""
        moment = self._moment()
        image_id = int(fields.get("id") or next(self._ids))
        self._order[str(image_id)] = moment
        image = new_image(str(image_id), fields, now=moment[:19])
        self.images[str(image_id)] = image | {
            "id": image_id,
            "location": fields.get("location"),
            "status": fields.get("status", "active"),
        }
        return self.images[str(image_id)]

    async def _read(self, request: web.BaseRequest) -> Call:
        path, query = split_target(request.raw_path)
        body = b"".join([piece async for piece in pieces(request)])
        recorded = Recorded(request.method, request.raw_path, request.raw_headers, body, len(body))
        self.requests.append(recorded)
        self._arrival.set()
        return Call(request, recorded, path, path, query, "")

    async def _route(self, call: Call) -> Answer:
        if self.faults.status is not None:
            return Answer(*self.faults.status, content_type="text/html; charset=UTF-8")
        return await self._dispatch(replace(call, caller=self._caller(call.request)))

    def _caller(self, request: web.BaseRequest) -> Caller:
        token = request.headers.get("X-Auth-Token")
        if self.trusting and token is None:
            raise RefusedError(401)
        return Caller(token, is_admin=token in {None, "admin"})

    def _v1_routes(self) -> tuple[tuple[str, dict[str, Handler]], ...]:
        return (
            ("/", {"*": self._index}),
            (f"/images{_FORMAT}", {"GET": self._index, "POST": self._create}),
            (f"/images/detail{_FORMAT}", {"GET": self._detail}),
            (
                f"{_IMAGE}{_FORMAT}",
                {"GET": self._show, "PUT": self._update, "DELETE": self._delete},
            ),
            (f"{_IMAGE}/members", {"GET": self._show_members}),
            (f"{_IMAGE}/members/([^/]+)", {"PUT": self._share, "DELETE": self._unshare}),
            ("/shared-images/([^/]+)", {"*": self._shared}),
        )

    def _parsed_listing(self, query: Query) -> Listing:
        marker = dict(query).get("marker")
        if marker is not None and not marker.strip().isdigit():
            raise RefusedError(400, "marker param must be an integer")
        others = [pair for pair in query if pair[0] != "marker"]
        listing = parse_listing(others, default_limit=self.default_limit, max_limit=self.max_limit)
        return replace(listing, marker=None if marker is None else str(int(marker)))

    def _key_of(self, named: str) -> str:
        """Return the number that Python makes of a text."""
        try:
            return str(int(named))
        except ValueError:
            return named

    def _known(self, call: Call) -> Image:
        image = super()._known(call)
        if image["deleted"]:
            raise RefusedError(404)
        return image

    async def _show(self, call: Call) -> Answer:
        return Answer(body=json_bytes({"image": self._known(call)}))

    async def _create(self, call: Call) -> Answer:
        fields = self._fields(call)
        if self.faults.before_create is not None:
            await self.faults.before_create()
        owner = fields.get("owner") if call.caller.is_admin else None
        image = self.add_image(**fields | {"owner": owner or call.caller.project})
        await self._fail_after_create()
        return Answer(body=json_bytes({"image": image}))

    async def _update(self, call: Call) -> Answer:
        fields = self._fields(call)
        image = self._own(call)
        if not call.caller.is_admin:
            fields.pop("owner", None)
        purges = call.request.headers.get("X-Glance-Registry-Purge-Props") == "true"
        properties = fields.pop("properties", {})
        image.update({k: v for k, v in fields.items() if k not in _PROTECTED})
        image["properties"] = ({} if purges else image["properties"]) | properties
        image["updated_at"] = self._moment()[:19]
        return Answer(body=json_bytes({"image": image}))

    def _fields(self, call: Call) -> dict[str, Any]:
        body = read_json(call)
        image = body.get("image") if isinstance(body, dict) else None
        if not isinstance(image, dict):
            raise RefusedError(500)
        return dict(image)

    async def _delete(self, call: Call) -> Answer:
        image = self._own(call)
        image.update(deleted=True, deleted_at=self._moment()[:19])
        return Answer(body=b"null")
