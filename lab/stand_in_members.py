"""With whom the stand-in Glance's images are shared, and what the routes of that do.

Follows Glance 33: api/v2/image_members.py, `ImageMemberRepo`, and its policy's new defaults. Left
out: the quota of members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lab.stand_in_image import may_change, not_authorized
from lab.stand_in_query import Caller, Image, RefusedError
from lab.stand_in_wire import Answer, Call, Handler, json_bytes, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUSES = ("pending", "accepted", "rejected")
_NO_SUCH_IMAGE = "Image {} not found."
_NOT_SHARED = "Only shared images have members."
_FORM = 'Expected a {0} in the form: {{"{0}": "{1}"}}'


@dataclass(eq=False)
class Memberships:
    """The routes below `members`; `by_image` maps image id to project to member status.

    `readable` returns the image that a request names, or refuses; `now` is shown to the second.
    """

    by_image: dict[str, dict[str, str]]
    readable: Callable[[Call, str], Image]
    now: Callable[[], str]
    _times: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def of(self, image_id: str) -> Mapping[str, str]:
        """Return the image's members and the status of each."""
        return self.by_image.get(image_id, {})

    def forget(self, image_id: str) -> None:
        """Take all members off an image that is gone."""
        self.by_image.pop(image_id, None)

    def takes_body(self, handler: Handler) -> bool:
        """Tell whether one of these routes may be given a body."""
        return handler in (self.add, self.change)

    async def show_all(self, call: Call) -> Answer:
        """List the members that the caller may know of."""
        image = self.readable(call, _NO_SUCH_IMAGE)
        if image["visibility"] != "shared":
            explanation = f"Not allowed to list members for image {image['id']}: {_NOT_SHARED}"
            raise RefusedError(403, explanation)
        members = [
            self._document(image, project)
            for project in self._in_order(image["id"])
            if _may_know(image, project, call.caller)
        ]
        return Answer(body=json_bytes({"members": members, "schema": "/v2/schemas/members"}))

    async def show(self, call: Call) -> Answer:
        """Show one member; whatever is forbidden doesn't exist."""
        image = self.readable(call, _NO_SUCH_IMAGE)
        if image["visibility"] != "shared":
            raise RefusedError(404, _NOT_SHARED)
        return Answer(body=json_bytes(self._document(image, self._member(image, call))))

    async def add(self, call: Call) -> Answer:
        """Share an image: the new member has yet to accept it."""
        project = _stated(call, "member", "Member to be added not specified", "image_id")
        if not project:
            raise RefusedError(400, "Member can't be empty")
        image = self.readable(call, _NO_SUCH_IMAGE)
        _check_shared(image, "create")
        _check_owner(image, call.caller, "add_member")
        if project in self.of(image["id"]):
            complaint = f"Member {project} is duplicated for image {image['id']}"
            raise RefusedError(409, complaint)
        self.by_image.setdefault(image["id"], {})[project] = "pending"
        now = self.now()
        self._times[image["id"], project] = (now, now)
        return Answer(body=json_bytes(self._document(image, project)))

    async def change(self, call: Call) -> Answer:
        """Accept or reject a shared image, which its owner can't do for a member."""
        status = _stated(call, "status", "Status not specified", "status")
        image = self.readable(call, _NO_SUCH_IMAGE)
        _check_shared(image, "update")
        project = self._member(image, call)
        if not call.caller.is_admin and project != call.caller.project:
            raise not_authorized("modify_member")
        if status not in _STATUSES:
            why = 'Status must be "pending", "accepted" or "rejected".'
            raise RefusedError(400, f"Incorrect request: {why}")
        self.by_image[image["id"]][project] = str(status)
        created_at, _ = self._times_of(image, project)
        self._times[image["id"], project] = (created_at, self.now())
        return Answer(body=json_bytes(self._document(image, project)))

    async def remove(self, call: Call) -> Answer:
        """End the sharing with one member, which no member can do for itself."""
        image = self.readable(call, _NO_SUCH_IMAGE)
        _check_shared(image, "delete")
        project = self._member(image, call)
        _check_owner(image, call.caller, "delete_member")
        del self.by_image[image["id"]][project]
        return Answer(204, content_type="")

    def _member(self, image: Image, call: Call) -> str:
        """Return the member that the path names, if the caller may know of it."""
        project = call.arguments[1]
        if project not in self.of(image["id"]) or not _may_know(image, project, call.caller):
            complaint = f"{project} not found in the member list of the image {image['id']}."
            raise RefusedError(404, complaint)
        return project

    def _in_order(self, image_id: str) -> list[str]:
        """Return the members; one that was taken off and added again has its old place."""
        known = [project for shared, project in self._times if shared == image_id]
        return sorted(self.of(image_id), key=[*known, *self.of(image_id)].index)

    def _times_of(self, image: Image, project: str) -> tuple[str, str]:
        shown = (str(image["created_at"]), str(image["updated_at"]))
        return self._times.get((image["id"], project), shown)

    def _document(self, image: Image, project: str) -> dict[str, str]:
        created_at, updated_at = self._times_of(image, project)
        return {
            "member_id": project,
            "image_id": image["id"],
            "status": self.of(image["id"])[project],
            "created_at": created_at,
            "updated_at": updated_at,
            "schema": "/v2/schemas/member",
        }


def _stated(call: Call, name: str, complaint: str, example: str) -> Any:  # noqa: ANN401 - JSON
    body = read_json(call)
    if not isinstance(body, dict):
        raise RefusedError(400, _FORM.format(name, example))
    if name not in body:
        raise RefusedError(400, complaint)
    return body[name]


def _check_shared(image: Image, verb: str) -> None:
    if image["visibility"] != "shared":
        raise RefusedError(403, f"Not allowed to {verb} members for image {image['id']}.")


def _check_owner(image: Image, caller: Caller, action: str) -> None:
    if not may_change(image, caller):
        raise not_authorized(action)


def _may_know(image: Image, project: str, caller: Caller) -> bool:
    return project == caller.project or may_change(image, caller)
