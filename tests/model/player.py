"""Plays a story against a running relproxy, and checks each answer against the model."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.model import operations as do
from tests.model import verdicts
from tests.model.client import Answer, Client
from tests.model.leaks import marks_in, new_mark
from tests.model.lists import ListCheck
from tests.model.registries import Behind
from tests.model.words import INSTALLATIONS, PROPERTY, Words
from tests.model.world import ADMIN, PROJECTS, Image, Record

PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
BINARY = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}
_FORMATS: tuple[dict[str, str], ...] = (
    {"disk_format": "raw", "container_format": "bare"},
    {},
    {"disk_format": "iso", "container_format": "bare"},
)
# Names sort by their first letters, and are spelled differently in JSON and in a URL.
_LETTERS = ("a", "B", "\u00e9", '"', "z&", "%41")
_IN_HEADERS = ("X-Nova-Instance-ID", "X-Nova-Installation-UUID")
_IN_BODY = ("instance_id", "nova_installation_uuid")
_AGAIN_AFTER = 2_000_000


class Player:
    """Plays one story."""

    def __init__(self, client: Client, words: Words, behind: Behind) -> None:
        self._client = client
        self._words = words
        self._world = client.world
        self._behind = behind
        self._lists = ListCheck(client, words, behind)
        self._by_id: Mapping[type, Callable[[Any, Image], Awaitable[None]]] = {
            do.Upload: self._upload,
            do.Change: self._change,
            do.Tag: self._tag,
            do.Share: self._share,
            do.Reply: self._reply,
            do.Unshare: self._unshare,
            do.Members: self._members,
            do.Delete: self._delete,
            do.Show: self._show,
            do.Download: self._download,
            do.Vanish: self._vanish,
            do.CreateAgain: self._create_again,
        }

    async def play(self, operations: tuple[do.Operation, ...]) -> None:
        """Do all of it; then look at everything, through relproxy and past it."""
        self._note(*self._words.everything())
        for operation in operations:
            await self._do(operation)
        for who in PROJECTS:
            await self._lists.check(do.List(who, limit=3))
            everything = (("visibility", "all"), ("member_status", "all"))
            await self._lists.check(do.List(who, limit=1000, filters=everything))
        await self._check_registry()

    async def _do(self, operation: do.Operation) -> None:
        match operation:
            case do.Create():
                await self._create(operation)
            case do.Appear():
                await self._appear(operation)
            case do.List():
                await self._lists.check(operation)
            case do.Wait():
                self._behind.wait(operation.microseconds)
            case _:
                image = self._words.image(operation.image)
                if image is not None:
                    await self._by_id[type(operation)](operation, image)

    def _note(self, *texts: str | bytes) -> None:
        """Remember words that only those may be told whom they concern."""
        self._client.known |= marks_in(*texts)

    # -- creates

    async def _create(self, asked: do.Create) -> None:
        chosen = None
        if asked.id_of is not None:
            chosen = str(uuid.uuid4()) if asked.id_of < 0 else self._words.image_id(asked.id_of)
        await self._created(asked, chosen)

    async def _create_again(self, asked: do.CreateAgain, image: Image) -> None:
        """Take a deleted image's id: by then the registry's clock shows another second."""
        if not (image.is_gone and self._behind.takes_ids_again):
            return
        self._behind.wait(_AGAIN_AFTER)
        create = do.Create(asked.who, capture=asked.capture, instance=asked.instance)
        with self._behind.taking_ids_again():
            await self._created(create, image.id)

    async def _appear(self, asked: do.Appear) -> None:
        """Make an image of which relproxy learns nothing, and so has no record."""
        image_id = str(uuid.uuid4())
        if asked.again is not None and self._behind.takes_ids_again:
            before = self._words.image(asked.again)
            image_id = before.id if before is not None and before.is_gone else image_id
        self._behind.wait(_AGAIN_AFTER)
        name, now = new_mark(), self._behind.now()
        self._note(name, image_id)
        owner = None if self._world.is_only_wall else asked.owner
        fields = {"id": image_id, "name": name, "visibility": asked.visibility}
        if owner is not None:
            fields["owner"] = self._words.projects[owner]
        with self._behind.taking_ids_again():
            await self._behind.create(fields)
        self._world.images.append(
            Image(image_id, name, owner, None, asked.visibility, created=now, updated=now)
        )

    async def _created(self, asked: do.Create, chosen: str | None) -> None:
        name = _LETTERS[len(self._world.images) % len(_LETTERS)] + new_mark()
        self._note(name)
        fields, headers, record = self._captured(asked)
        fields |= {"name": name, **_FORMATS[asked.formats]}
        if asked.visibility is not None:
            fields["visibility"] = asked.visibility
        if asked.owner is not None:
            fields["owner"] = self._words.projects[asked.owner]
        if asked.tag is not None:
            fields["tags"] = [self._words.tags[asked.tag]]
        if asked.hidden:
            fields["os_hidden"] = True
        if chosen is not None:
            fields["id"] = chosen
        now = self._behind.now()
        answer = await self._client.ask(
            asked.who,
            "POST",
            "/v2/images",
            json.dumps(fields).encode(),
            headers=JSON | headers,
        )
        expected = verdicts.of_create(
            self._world,
            asked.who,
            visibility=asked.visibility,
            owner=asked.owner,
            may_choose_id=chosen is None or self._may_choose_id,
            is_taken=chosen is not None and self._behind.is_taken(self._world, chosen),
        )
        _check_status(answer, expected, asked)
        if answer.status != 201:
            return
        owner = asked.owner or (None if self._world.is_only_wall else asked.who)
        project = owner or asked.who
        is_claimed = asked.capture in {"nova", "properties"}
        image = Image(
            id=answer.json()["id"],
            name=name,
            owner=owner,
            record=record
            and replace(record, project=project, claimed_for=project if is_claimed else None),
            visibility=asked.visibility or "shared",
            created=now,
            updated=now,
            disk_format=fields.get("disk_format"),
            container_format=fields.get("container_format"),
            is_hidden=asked.hidden,
            tags=frozenset(fields.get("tags", ())),
            properties={"instance_uuid": fields["instance_uuid"]}
            if "instance_uuid" in fields
            else {},
        )
        assert chosen in (None, image.id)
        self._note(image.id)
        self._world.images.append(image)

    @property
    def _may_choose_id(self) -> bool:
        return self._behind.takes_chosen_ids or not self._world.is_only_wall

    def _captured(self, asked: do.Create) -> tuple[dict[str, Any], dict[str, str], Record | None]:
        """Return what names the instance, in the body and in headers, and what is recorded."""
        if asked.capture is None:
            return {}, {}, Record(asked.who) if self._world.is_only_wall else None
        instance = self._words.instances[asked.instance]
        record = Record(asked.who, self._world.own_installation, instance)
        if asked.capture == "nova":
            return {"instance_uuid": instance}, {}, record
        in_headers = asked.capture == "headers"
        first, second = _IN_HEADERS if in_headers else _IN_BODY
        named = {first: instance}
        if asked.installation is not None:
            named[second] = INSTALLATIONS[asked.installation]
            record = replace(record, installation=named[second])
        return ({}, named, record) if in_headers else (named, {}, record)

    # -- one image by its id

    async def _ask(
        self,
        who: str,
        method: str,
        image: Image,
        below: str = "",
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        expected: int,
        told: tuple[str, ...] = (),
    ) -> Answer:
        """Send a request; what it may tell is the image, if they may read it."""

        async def sent(image_id: str) -> Answer:
            target = f"/v2/images/{image_id}{below}"
            return await self._client.ask(
                who, method, target, body, headers=headers, about=about, projects=told
            )

        about = (image,) if self._world.reads(who, image) else ()
        answer = await sent(image.id)
        _check_status(answer, expected, (who, method, image, below))
        if self._is_like_none(who, image, expected):
            absent = str(uuid.uuid4())
            twin = await sent(absent)
            assert answer.alike(image.id) == twin.alike(absent), (who, method, image, below)
        return answer

    def _is_like_none(self, who: str, image: Image, expected: int) -> bool:
        """Tell whether nobody must be able to tell the image from one that there isn't."""
        if not self._world.is_only_wall or who == ADMIN:
            return False
        return expected in {401, 403, 404} and not self._world.owns(who, image)

    async def _upload(self, asked: do.Upload, image: Image) -> None:
        if image.disk_format != "raw":
            return
        data = new_mark().encode() * 10 * asked.size + b"\x00\xff"
        expected = verdicts.of_upload(self._world, asked.who, image)
        now = self._behind.now()
        await self._ask(
            asked.who, "PUT", image, "/file", body=data, headers=BINARY, expected=expected
        )
        if expected == 204:
            self._note(data)
            image.data, image.updated = data, now

    async def _change(self, asked: do.Change, image: Image) -> None:
        value: Any = asked.value
        match asked.what:
            case "name":
                value = _LETTERS[asked.value] + new_mark()
                self._note(value)
            case "tags":
                value = [self._words.tags[tag] for tag in asked.value]
            case "property":
                value = self._words.values[asked.value]
            case "owner":
                value = self._words.projects[asked.value]
        name = PROPERTY if asked.what == "property" else asked.what
        operation = "add" if asked.what == "property" else "replace"
        body = json.dumps([{"op": operation, "path": f"/{name}", "value": value}]).encode()
        expected = verdicts.of_change(
            self._world, asked.who, image, what=asked.what, value=asked.value
        )
        now = self._behind.now()
        await self._ask(asked.who, "PATCH", image, body=body, headers=PATCH, expected=expected)
        if expected == 200:
            image.updated = now
            _apply(image, asked, value)

    async def _tag(self, asked: do.Tag, image: Image) -> None:
        tag = self._words.tags[asked.tag]
        if asked.is_taken_off:
            method, expected = "DELETE", verdicts.of_untagging(self._world, asked.who, image, tag)
        else:
            method, expected = "PUT", verdicts.of_writing(self._world, asked.who, image, good=204)
        now = self._behind.now()
        await self._ask(asked.who, method, image, f"/tags/{tag}", expected=expected)
        if expected == 204:
            image.tags = image.tags - {tag} if asked.is_taken_off else image.tags | {tag}
            image.updated = now

    async def _delete(self, asked: do.Delete, image: Image) -> None:
        expected = verdicts.of_writing(self._world, asked.who, image, good=204)
        now = self._behind.now()
        await self._ask(asked.who, "DELETE", image, expected=expected)
        if expected == 204:
            image.is_gone, image.updated = True, now

    async def _vanish(self, _: do.Vanish, image: Image) -> None:
        if not image.is_gone and image.id in await self._behind.everything():
            now = self._behind.now()
            await self._behind.delete(image.id)
            image.is_gone, image.updated = True, now

    async def _show(self, asked: do.Show, image: Image) -> None:
        expected = verdicts.of_reading(self._world, asked.who, image, good=200)
        answer = await self._ask(asked.who, "GET", image, expected=expected)
        if expected == 200:
            self._check_document(image, answer.json())

    async def _download(self, asked: do.Download, image: Image) -> None:
        good = 204 if image.data is None else 200
        expected = verdicts.of_reading(self._world, asked.who, image, good=good)
        answer = await self._ask(asked.who, "GET", image, "/file", expected=expected)
        if expected in {200, 204}:
            assert answer.body == (image.data or b"")

    # -- members

    async def _share(self, asked: do.Share, image: Image) -> None:
        body = json.dumps({"member": self._words.projects[asked.member]}).encode()
        expected = verdicts.of_sharing(self._world, asked.who, image, asked.member)
        await self._ask(
            asked.who, "POST", image, "/members", body=body, headers=JSON, expected=expected
        )
        if expected == 200:
            image.members[asked.member] = "pending"

    async def _reply(self, asked: do.Reply, image: Image) -> None:
        body = json.dumps({"status": asked.status}).encode()
        below = f"/members/{self._words.projects[asked.member]}"
        expected = verdicts.of_reply(self._world, asked.who, image, asked.member)
        await self._ask(asked.who, "PUT", image, below, body=body, headers=JSON, expected=expected)
        if expected == 200:
            image.members[asked.member] = asked.status

    async def _unshare(self, asked: do.Unshare, image: Image) -> None:
        below = f"/members/{self._words.projects[asked.member]}"
        expected = verdicts.of_unsharing(self._world, asked.who, image, asked.member)
        await self._ask(asked.who, "DELETE", image, below, expected=expected)
        if expected == 204:
            del image.members[asked.member]

    async def _members(self, asked: do.Members, image: Image) -> None:
        expected = verdicts.of_members(self._world, asked.who, image)
        known = tuple(
            member
            for member in image.members
            if verdicts.may_know_member(self._world, asked.who, image, member)
        )
        answer = await self._ask(asked.who, "GET", image, "/members", expected=expected, told=known)
        if expected == 200:
            shown = {m["member_id"]: m["status"] for m in answer.json()["members"]}
            projects = self._words.projects
            assert shown == {projects[member]: image.members[member] for member in known}

    # -- past relproxy

    async def _check_registry(self) -> None:
        """Nothing was made, changed or deleted but what the model says."""
        documents = await self._behind.everything()
        live = [i for i in self._world.images if not i.is_gone and not i.is_strange]
        assert documents.keys() == {image.id for image in live}
        for image in live:
            self._check_document(image, documents[image.id])

    def _check_document(self, image: Image, document: Mapping[str, Any]) -> None:
        owner = self._words.projects.get(image.owner or "", image.owner)
        expected = {
            "id": image.id,
            "name": image.name,
            "owner": owner,
            "visibility": image.visibility,
            "status": image.status,
            "os_hidden": image.is_hidden,
            **image.properties,
        }
        assert {name: document.get(name) for name in expected} == expected
        assert set(document["tags"]) == image.tags
        assert "instance_id" not in document
        assert "nova_installation_uuid" not in document


def _apply(image: Image, asked: do.Change, value: Any) -> None:
    match asked.what:
        case "name":
            image.name = value
        case "tags":
            image.tags = frozenset(value)
        case "os_hidden":
            image.is_hidden = value
        case "property":
            image.properties[PROPERTY] = value
        case "visibility":
            image.visibility = value
        case "owner":
            image.owner = asked.value
            image.record = image.record and replace(image.record, project=asked.value)


def _check_status(answer: Answer, expected: int, asked: object) -> None:
    assert answer.status == expected, (asked, answer)
