"""A stand-in for Glance's image API v1 in this process, on a real socket, with faults to order.

Faithful to Glance 15 (pike-eol) in what a proxy in front of it can trip over: metadata in headers,
data in the same request, a create in two steps, who sees what, lists without links. Routes:
glance/api/v1/router.py. Left out: Range, the image cache, stores, real copies from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lab.stand_in import StandIn
from lab.stand_in_query import Caller, Image, RefusedError, parse_query, split_target
from lab.stand_in_v1_image import (
    Listing,
    in_short,
    is_listed,
    is_readable,
    is_uuid,
    matches,
    new_image,
    parse_listing,
    read_headers,
    write_headers,
)
from lab.stand_in_wire import Answer, Call, Handler, Recorded, json_bytes, pieces, reached

if TYPE_CHECKING:
    from aiohttp import web

    from lab.stand_in_query import Query

_IMAGE = "/images/([^/]+)"
_MEDIA_TYPE = "application/vnd.openstack.images-"
_VERSIONS = ("v1", "v1.0", "v1.1")
_ABSENT = "Image with identifier {} not found"
_IMMUTABLE = ("status", "id")


@dataclass(kw_only=True, eq=False)
class StandInV1(StandIn):
    """A Glance that speaks v1, to enter with `async with`; `images` are v1's own documents.

    `members` maps image id to project to anything. See `lab.stand_in_registry.Registry`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._order: dict[str, str] = {}

    def add_image(self, **fields: Any) -> Image:  # noqa: ANN401 - any field of an image
        """Make an image with any fields, newer than all before it, and return its document."""
        moment = self._moment()
        image_id = str(fields.get("id") or self._new_id())
        self._order[image_id] = moment
        self.images[image_id] = new_image(image_id, fields, now=_shown(moment))
        return self.images[image_id]

    async def _read(self, request: web.BaseRequest) -> Call:
        path, query = split_target(request.raw_path)
        within = _within_v1(path, ",".join(request.headers.getall("Accept", ())))
        is_upload = request.method in ("POST", "PUT") and bool(
            re.fullmatch("/images(/[^/]+)?", within or "")
        )
        body = b"" if is_upload else b"".join([piece async for piece in pieces(request)])
        recorded = Recorded(
            request.method,
            request.raw_path,
            request.raw_headers,
            body,
            len(body),
            complete=not is_upload,
        )
        self.requests.append(recorded)
        self._arrival.set()
        return Call(request, recorded, path, within, query, "")

    async def _dispatch(self, call: Call) -> Answer:
        within = (call.within_v2 or "").rstrip("/") or "/"
        for pattern, handlers in self._v1_routes():
            match = re.fullmatch(pattern, within)
            if match:
                handler = handlers.get(call.method) or handlers.get("*")
                if handler is None:
                    raise RefusedError(405, call.method)
                return await handler(replace(call, arguments=match.groups()))
        raise RefusedError(404)

    def _v1_routes(self) -> tuple[tuple[str, dict[str, Handler]], ...]:
        return (
            # The root has no conditions: every method lists.
            ("/", {"*": self._index}),
            ("/images", {"GET": self._index, "POST": self._create}),
            ("/images/detail", {"GET": self._detail}),
            (
                _IMAGE,
                {
                    "HEAD": self._meta,
                    "GET": self._show,
                    "PUT": self._update,
                    "DELETE": self._delete,
                },
            ),
            (f"{_IMAGE}/members", {"GET": self._show_members}),
            (f"{_IMAGE}/members/([^/]+)", {"PUT": self._share, "DELETE": self._unshare}),
            ("/shared-images/([^/]+)", {"*": self._shared}),
        )

    # Lists.

    async def _index(self, call: Call) -> Answer:
        return self._listed(call, in_short)

    async def _detail(self, call: Call) -> Answer:
        return self._listed(call, dict)

    def _listed(self, call: Call, shown: Callable[[Image], Image]) -> Answer:
        if self.faults.garbage is not None:
            return Answer(body=self.faults.garbage, is_list=True)
        listing = self._parsed_listing(parse_query(call.query))
        ordered = sorted(
            self.images.values(),
            key=lambda image: (
                _rank(image, listing.sort_key, self._order),
                self._order[str(image["id"])],
            ),
            reverse=listing.is_descending,
        )
        if listing.marker is not None:
            known = self.images.get(listing.marker)
            if known is None or not self._may_read(known, call.caller):
                raise RefusedError(400, "Invalid marker. Image could not be found.")
            ordered = ordered[ordered.index(known) + 1 :]
        found = [
            image
            for image in ordered
            if (self.lists_everything or is_listed(image, call.caller, listing, self._of(image)))
            and matches(image, listing)
        ]
        page = found if self.faults.ignore_limit else found[: listing.limit]
        patch = self.faults.image_patch
        rows = [json_bytes(shown(image)) if patch is None else patch(image) for image in page]
        return Answer(body=b'{"images": [' + b", ".join(rows) + b"]}", is_list=True)

    def _parsed_listing(self, query: Query) -> Listing:
        return parse_listing(query, default_limit=self.default_limit, max_limit=self.max_limit)

    # One image.

    def _of(self, image: Image) -> dict[str, str]:
        return self.members.get(str(image["id"]), {})

    def _key_of(self, named: str) -> str:
        return named

    def _may_read(self, image: Image, caller: Caller) -> bool:
        return is_readable(image, caller, self._of(image))

    def _known(self, call: Call) -> Image:
        image = self.images.get(self._key_of(call.arguments[0]))
        is_gone = image is not None and image["deleted"] and not call.caller.is_admin
        if image is None or is_gone or not self._may_read(image, call.caller):
            raise RefusedError(404, _ABSENT.format(call.arguments[0]))
        return image

    def _own(self, call: Call) -> Image:
        image = self._known(call)
        caller = call.caller
        if caller.is_admin or (caller.project and caller.project == image["owner"]):
            return image
        raise RefusedError(403 if image["is_public"] else 404)

    async def _meta(self, call: Call) -> Answer:
        if self.faults.status_of_meta is not None:
            raise RefusedError(self.faults.status_of_meta)
        return Answer(headers=write_headers(self._known(call)))

    async def _show(self, call: Call) -> Answer:
        image = self._known(call)
        if image["status"] != "active":
            raise RefusedError(404, f"Image {image['id']} is not active")
        headers = write_headers(image)
        body = self._data.get(image["id"], int(image["size"]))
        return Answer(body=body, content_type="application/octet-stream", headers=headers)

    async def _create(self, call: Call) -> Answer:
        fields = read_headers(call.request.raw_headers)
        if fields.get("is_public") and not call.caller.is_admin:
            raise RefusedError(403)
        image_id = fields.get("id") or self._new_id()
        if not is_uuid(image_id):
            raise RefusedError(400, "Failed to reserve image. Got error: Invalid image id format")
        if image_id in self.images:
            raise RefusedError(409, f"An image with identifier {image_id} already exists")
        if self.faults.before_create is not None:
            await self.faults.before_create()
        owner = fields.get("owner") if call.caller.is_admin else None
        image = self.add_image(
            **fields | {"id": image_id, "owner": owner or call.caller.project, "status": "queued"}
        )
        await self._take_data(call, image)
        await self._fail_after_create()
        headers = [("Location", f"/v1/images/{image_id}")]
        return Answer(201, json_bytes({"image": image}), headers=headers)

    async def _take_data(self, call: Call, image: Image) -> None:
        """Read what is sent beside the headers; the image stays, killed, where that fails."""
        if not call.has_body:
            return
        try:
            self._check_data(call)
            image["status"] = "saving"
            image["size"] = await self._receive(call, image["id"])
        except BaseException:
            image["status"] = "killed"
            raise
        image["status"] = "active"

    def _check_data(self, call: Call) -> None:
        if self.faults.refuse_upload is not None:
            raise RefusedError(self.faults.refuse_upload)
        if call.media_type != "application/octet-stream":
            raise RefusedError(400, "Content-Type must be application/octet-stream")

    async def _update(self, call: Call) -> Answer:
        fields = read_headers(call.request.raw_headers)
        image = self._own(call)
        if image["status"] == "deleted":
            raise RefusedError(403, "Forbidden to update deleted image.")
        if fields.get("is_public") and not call.caller.is_admin:
            raise RefusedError(403)
        for name in _IMMUTABLE:
            if fields.get(name, image[name]) != image[name]:
                raise RefusedError(403, f"Forbidden to modify '{name}' of image.")
        if not call.caller.is_admin:
            fields.pop("owner", None)
        if call.has_body and image["status"] != "queued":
            raise RefusedError(409, "Cannot upload to an unqueued image")
        purges = call.request.headers.get("x-glance-registry-purge-props", "true").lower() == "true"
        kept = {} if purges and not call.has_body else image["properties"]
        image.update(fields, properties=kept | fields["properties"])
        image["updated_at"] = _shown(self._moment())
        await self._take_data(call, image)
        await reached(self.faults.hang_after_change)
        return Answer(body=json_bytes({"image": image}))

    async def _delete(self, call: Call) -> Answer:
        image = self._own(call)
        if image["status"] == "deleted":
            raise RefusedError(404, f"Image {image['id']} not found.")
        if image["protected"]:
            raise RefusedError(403, "Image is protected")
        now = _shown(self._moment())
        image.update(status="deleted", deleted=True, deleted_at=now, updated_at=now)
        await reached(self.faults.hang_after_change)
        return Answer(content_type="text/html; charset=UTF-8")

    # Members.

    async def _show_members(self, call: Call) -> Answer:
        members = [{"member_id": m, "can_share": False} for m in self._of(self._known(call))]
        return Answer(body=json_bytes({"members": members}))

    async def _share(self, call: Call) -> Answer:
        image = self._own(call)
        self.members.setdefault(str(image["id"]), {})[call.arguments[1]] = "accepted"
        return Answer(204)

    async def _unshare(self, call: Call) -> Answer:
        self.members.get(str(self._own(call)["id"]), {}).pop(call.arguments[1], None)
        return Answer(204)

    async def _shared(self, call: Call) -> Answer:
        if self.faults.shares is not None:
            return Answer(body=self.faults.shares)
        shared = [
            {"image_id": self.images[image_id]["id"], "can_share": False}
            for image_id, members in self.members.items()
            if call.arguments[0] in members and self._may_read(self.images[image_id], call.caller)
        ]
        return Answer(body=json_bytes({"shared_images": shared}))


def _shown(moment: str) -> str:
    """Return a time as a registry on MySQL shows it: to the second, with six digits behind."""
    return moment[:19] + ".000000"


def _rank(image: Image, key: str, order: dict[str, str]) -> tuple[bool, Any]:
    value = order[str(image["id"])] if key == "created_at" else image[key]
    return value is not None, value


def _within_v1(path: str, accept: str) -> str | None:
    """Return what follows the version; None for a version that it does not know."""
    if accept.startswith(_MEDIA_TYPE):
        return path if accept.removeprefix(_MEDIA_TYPE) in _VERSIONS else None
    version, slash, rest = path.lstrip("/").partition("/")
    return slash + rest if version in _VERSIONS else None
