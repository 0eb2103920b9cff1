"""The stand-in Glance's images and what each route does with them.

Who sees and may change what, statuses and headers are Glance's. Image data is counted and hashed,
and kept only where that is wanted: else a download is zeros. Checksums stay null.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lab.stand_in_image import (
    PATCH_TYPES,
    changed,
    check_create,
    may_change,
    new_document,
    not_authorized,
    read_changes,
)
from lab.stand_in_members import Memberships
from lab.stand_in_query import (
    Caller,
    Image,
    Listing,
    RefusedError,
    in_order,
    is_after,
    is_listed,
    is_readable,
    links,
    matches,
    parse_listing,
    parse_query,
)
from lab.stand_in_wire import (
    Answer,
    Call,
    DroppedError,
    Faults,
    Handler,
    Recorded,
    json_bytes,
    pieces,
    reached,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE_PATH = "/images/([^/]+)"
_HTML = "text/html; charset=UTF-8"
_NO_IMAGE = "No image found with ID {}"
_TASK_ID = "00000000-0000-4000-8000-000000000001"
_TASK = {
    "id": _TASK_ID,
    "type": "import",
    "status": "success",
    "owner": None,
    "expires_at": "2030-01-03T00:00:00Z",
    "created_at": "2030-01-01T00:00:00Z",
    "updated_at": "2030-01-01T00:00:00Z",
    "self": f"/v2/tasks/{_TASK_ID}",
    "schema": "/v2/schemas/task",
}


@dataclass(kw_only=True, eq=False)
class Registry:
    """Images, members and recorded requests; all may be read and changed at any time.

    `page_filter` is a custom policy: like Glance's own it drops images after the database page
    was cut. `members` maps image id to project to member status. `blob_size` is the length of
    every download (None: the image's own size), which is chunked unless `send_length`. With
    `keeps_data` a download is what was uploaded. No Glance `reuses_ids` of deleted images, and only
    one with a careless policy `lists_everything` to everyone. `clock` says when images are made and
    changed (None: now, and each moment later than all before it).
    """

    trusting: bool = False
    default_limit: int = 25
    max_limit: int = 1000
    page_filter: Callable[[Image], bool] | None = None
    blob_size: int | None = None
    send_length: bool = False
    keeps_data: bool = False
    reuses_ids: bool = False
    lists_everything: bool = False
    clock: Callable[[], datetime] | None = None
    faults: Faults = field(default_factory=Faults)
    images: dict[str, Image] = field(default_factory=dict)
    members: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: list[Recorded] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(0)  # noqa: S311 - ids that are the same in every run
        self._last_moment = datetime.now(UTC)
        self._exact_times: dict[tuple[str, str], str] = {}
        self._deleted: dict[str, Image] = {}
        self._data: dict[str, bytes] = {}
        self._memberships = Memberships(
            self.members, self._readable, lambda: _to_second(self._moment())
        )

    def add_image(self, **fields: Any) -> Image:  # noqa: ANN401 - any field of an image
        """Make an image with any fields and custom properties, and return its document.

        It is newer than every image before it, by full precision, unless `created_at` is given:
        then it is as old as that says, and equal ones are ties.
        """
        moment = self._moment()
        image_id = str(fields.get("id") or self._new_id())
        self.images[image_id] = new_document(image_id, fields, now=_to_second(moment))
        for key in ("created_at", "updated_at"):
            # A time that was given is meant to the second, even if that is the present one.
            is_given = not fields.keys().isdisjoint({key, "created_at"})
            self._exact_times[image_id, key] = "" if is_given else moment
        return self.images[image_id]

    def empty(self) -> None:
        """Forget every image and every request, but not what was deleted."""
        for kept in (self.images, self.members, self._data, self.requests):
            kept.clear()

    def routes(self) -> tuple[tuple[str, dict[str, Handler], str], ...]:
        """Return (pattern, handler by method, `Allow`), which also names what is left out."""
        images: dict[str, Handler] = {"GET": self._list_images, "POST": self._create_image}
        image: dict[str, Handler] = {
            "GET": self._show_image,
            "PATCH": self._update_image,
            "DELETE": self._delete_image,
        }
        content: dict[str, Handler] = {"GET": self._download, "PUT": self._upload}
        tag: dict[str, Handler] = {"PUT": self._add_tag, "DELETE": self._remove_tag}
        shares = self._memberships
        members: dict[str, Handler] = {"GET": shares.show_all, "POST": shares.add}
        member: dict[str, Handler] = {
            "GET": shares.show,
            "PUT": shares.change,
            "DELETE": shares.remove,
        }
        return (
            ("/images", images, "GET, POST"),
            (IMAGE_PATH, image, "GET, PATCH, DELETE"),
            (f"{IMAGE_PATH}/file", content, "GET, PUT"),
            (f"{IMAGE_PATH}/tags/([^/]+)", tag, "PUT, DELETE"),
            (f"{IMAGE_PATH}/members", members, "GET, POST"),
            (f"{IMAGE_PATH}/members/([^/]+)", member, "GET, PUT, DELETE"),
            ("/schemas/image", {"GET": self._show_schema}, "GET"),
            ("/tasks", {"GET": self._list_tasks}, "GET, POST"),
        )

    def takes_body(self, handler: Handler) -> bool:
        """Tell whether a route may be given a body; the others answer 400 to one."""
        writers = (self._create_image, self._update_image, self._upload)
        readers = (self._list_images, self._list_tasks)
        return handler in (*writers, *readers) or self._memberships.takes_body(handler)

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _moment(self) -> str:
        """Return the time in full precision."""
        if self.clock is not None:
            return self.clock().strftime("%Y-%m-%dT%H:%M:%S.%f")
        soonest = self._last_moment + timedelta(microseconds=1)
        self._last_moment = max(datetime.now(UTC), soonest)
        return self._last_moment.strftime("%Y-%m-%dT%H:%M:%S.%f")

    def _exact_time(self, image: Image, key: str) -> str:
        """Return a time in full precision; the shown one if it was set by hand."""
        shown = str(image[key])
        exact = self._exact_times.get((image["id"], key), shown)
        return exact if _to_second(exact) == shown else shown.removesuffix("Z")

    # Images.

    async def _list_images(self, call: Call) -> Answer:
        if self.faults.before_list is not None:
            await self.faults.before_list()
        if self.faults.garbage is not None:
            return Answer(body=self.faults.garbage, is_list=True)
        query = parse_query(call.query) + parse_query(call.form)
        limits = {"default_limit": self.default_limit, "max_limit": self.max_limit}
        page, next_marker = self._page(parse_listing(query, **limits), call.caller)
        rows = b", ".join(map(self.faults.image_patch or json_bytes, page))
        rest = json_bytes(links(query, next_marker))
        if self.faults.after_list is not None:
            await self.faults.after_list()
        return Answer(body=b'{"images": [' + rows + b"], " + rest[1:], is_list=True)

    def _page(self, listing: Listing, caller: Caller) -> tuple[list[Image], str | None]:
        """Return the rows and the next marker.

        As in Glance, there is a next page if this one was full before `page_filter`, and its
        marker is the last row that is left.
        """
        marker = self._marker(listing.marker, caller)
        order = listing.order
        offered = [image for image in self.images.values() if self._offers(image, listing, caller)]
        rows = in_order(offered, order, self._exact_time)
        if marker is not None:
            rows = [row for row in rows if is_after(row, marker, order, self._exact_time)]
        page = rows if self.faults.ignore_limit else rows[: listing.limit]
        kept = page if self.page_filter is None else list(filter(self.page_filter, page))
        is_full = len(page) == listing.limit
        return kept, kept[-1]["id"] if kept and is_full else None

    def _offers(self, image: Image, listing: Listing, caller: Caller) -> bool:
        if self.lists_everything:
            is_offered = listing.visibility in (None, "all", image["visibility"])
        else:
            is_offered = is_listed(image, caller, listing, self._memberships.of(image["id"]))
        return is_offered and matches(image, listing)

    def _marker(self, marker: str | None, caller: Caller) -> Image | None:
        if marker is None:
            return None
        # An admin may begin behind an image that is deleted: `context.can_see_deleted`.
        known = self._deleted | self.images if caller.is_admin else self.images
        if marker not in known:
            raise RefusedError(400, f"No image found with ID {marker}")
        if not self.lists_everything:
            self._check_visible(known[marker], caller)
        return known[marker]

    def _check_visible(self, image: Image, caller: Caller) -> None:
        if not is_readable(image, caller, self._memberships.of(image["id"])):
            raise RefusedError(403, f"Forbidding request, image {image['id']} not visible")

    async def _create_image(self, call: Call) -> Answer:
        fields = read_json(call)
        if not isinstance(fields, dict):
            raise RefusedError(500)  # as Glance does
        check_create(fields, call.caller)
        image_id = fields.get("id") or self._new_id()
        if image_id in self.images or (image_id in self._deleted and not self.reuses_ids):
            raise RefusedError(409, f"Image ID {image_id} already exists!")
        if self.faults.before_create is not None:
            await self.faults.before_create()
        image = self.add_image(**{"owner": call.caller.project} | fields | {"id": image_id})
        await self._fail_after_create()
        headers = [
            ("Location", f"http://{call.request.host}/v2/images/{image_id}"),
            ("OpenStack-image-import-methods", "glance-direct,web-download,copy-image"),
            ("OpenStack-image-store-ids", "file"),
        ]
        return Answer(201, json_bytes(image), headers=headers)

    async def _fail_after_create(self) -> None:
        await reached(self.faults.hang_after_create)
        if self.faults.after_create is not None:
            await self.faults.after_create()
        if self.faults.drop_after_create:
            raise DroppedError
        if self.faults.fail_after_create:
            raise RefusedError(500)

    def _readable(self, call: Call, absent: str = _NO_IMAGE) -> Image:
        """Return the image that the path names; 404 if the caller may not read it."""
        image_id = call.arguments[0]
        image = self.images.get(image_id)
        if image is None or not is_readable(image, call.caller, self._memberships.of(image_id)):
            raise RefusedError(404, absent.format(image_id))
        return image

    def _writable(self, call: Call, action: str, absent: str = _NO_IMAGE) -> Image:
        image = self._readable(call, absent)
        if not may_change(image, call.caller):
            raise not_authorized(action)
        return image

    def _touch(self, image: Image) -> None:
        moment = self._moment()
        image["updated_at"] = _to_second(moment)
        self._exact_times[image["id"], "updated_at"] = moment

    async def _show_image(self, call: Call) -> Answer:
        return Answer(body=json_bytes(self._readable(call)))

    async def _update_image(self, call: Call) -> Answer:
        content_type = call.media_type
        if content_type not in PATCH_TYPES:
            allowed = ", ".join(PATCH_TYPES)
            detail = f"Image PATCH expects Content-Type one of: {allowed}"
            raise _unsupported(content_type, detail, ("Accept-Patch", allowed))
        changes = read_changes(read_json(call), content_type)
        image = self._readable(call)
        result = image
        for change in changes:
            result = changed(result, change, call.caller)
        if changes:
            result = dict(result)  # the first change may have been none
            image.clear()
            image.update(result)
            self._touch(image)
        await reached(self.faults.hang_after_change)
        # Glance lets a member `add` another owner, and only afterwards answers 403.
        self._check_visible(image, call.caller)
        return Answer(body=json_bytes(image))

    async def _delete_image(self, call: Call) -> Answer:
        image = self._writable(call, "delete_image", "Failed to find image {} to delete")
        if image["protected"]:
            raise RefusedError(403, f"Image {image['id']} is protected and cannot be deleted.")
        image["status"] = "deleted"
        self._touch(image)
        self._deleted[image["id"]] = self.images.pop(image["id"])
        self._data.pop(image["id"], None)
        self._memberships.forget(image["id"])
        await reached(self.faults.hang_after_change)
        return Answer(204, content_type=_HTML)

    # Image data.

    async def _upload(self, call: Call) -> Answer:
        if self.faults.refuse_upload is not None:
            raise RefusedError(self.faults.refuse_upload)
        content_type = call.media_type
        if content_type != "application/octet-stream":
            raise _unsupported(content_type, f"Invalid content type {content_type or None}")
        image = self._writable(call, "upload_image")
        if image["status"] != "queued":
            transition = f"from {image['status']} to saving"
            raise RefusedError(409, f"Image status transition {transition} is not allowed")
        image["status"] = "saving"
        try:
            length = await self._receive(call, image["id"])
        except BaseException:
            image["status"] = "queued"
            raise
        image.update(size=length, virtual_size=length, status="active", stores="file")
        self._touch(image)
        return Answer(204, content_type=_HTML)

    async def _receive(self, call: Call, image_id: str) -> int:
        """Read an upload; record its length and hash, also of one that breaks off."""
        await reached(self.faults.slow_upload_reader)
        length, digest, is_complete = 0, hashlib.sha256(), False
        kept = bytearray()
        try:
            async for piece in pieces(call.request):
                length += len(piece)
                digest.update(piece)
                if self.keeps_data:
                    kept += piece
            is_complete = True
        finally:
            fuller = replace(
                call.recorded, length=length, sha256=digest.hexdigest(), complete=is_complete
            )
            self.requests[:] = [
                fuller if request is call.recorded else request for request in self.requests
            ]
        if self.keeps_data:
            self._data[image_id] = bytes(kept)
        return length

    async def _download(self, call: Call) -> Answer:
        image = self._readable(call)
        if image["status"] != "active":
            return Answer(204, content_type="")
        length = image["size"] or 0 if self.blob_size is None else self.blob_size
        body = self._data.get(image["id"], int(length))
        return Answer(body=body, content_type="application/octet-stream")

    # The rest.

    async def _add_tag(self, call: Call) -> Answer:
        image = self._writable(call, "modify_image", "Image {} not found.")
        image["tags"] = sorted({*image["tags"], call.arguments[1]})
        self._touch(image)
        return Answer(204, content_type=_HTML)

    async def _remove_tag(self, call: Call) -> Answer:
        image = self._writable(call, "modify_image", "Image {} not found.")
        if call.arguments[1] not in image["tags"]:
            raise RefusedError(404)
        image["tags"].remove(call.arguments[1])
        self._touch(image)
        return Answer(204, content_type=_HTML)

    async def _show_schema(self, _: Call) -> Answer:
        return Answer(body=json_bytes({"name": "image", "properties": {}}))

    async def _list_tasks(self, call: Call) -> Answer:
        if not call.caller.is_admin:
            raise not_authorized("tasks_api_access")
        links_of_page = {"first": "/v2/tasks", "schema": "/v2/schemas/tasks"}
        return Answer(body=json_bytes({"tasks": [_TASK], **links_of_page}))


def _unsupported(media_type: str, detail: str, *headers: tuple[str, str]) -> RefusedError:
    named = media_type or "${CONTENT_TYPE}"  # WebOb does not fill in a header that is not there
    return RefusedError(415, named, detail=detail, headers=headers)


def _to_second(moment: str) -> str:
    return moment[:19] + "Z"
