"""Sharing an image: the stand-in Glance answers as the real one does, request by request."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from lab.stand_in import StandIn
from tests.functional.conftest import Cloud

PATCH = "application/openstack-images-v2.1-json-patch"
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
ABSENT = "0d0d0d0d-0000-4000-8000-00000000000d"

# Who asks what; {shared} and {private} are alice's images, {absent} is nobody's.
STEPS: tuple[tuple[str, str, str, Any], ...] = (
    ("alice", "GET", "{shared}/members", None),
    ("bob", "GET", "{shared}/members", None),
    ("bob", "GET", "{shared}/members/bob", None),
    ("bob", "POST", "{shared}/members", {"member": "bob"}),
    ("alice", "POST", "{shared}/members", None),
    ("alice", "POST", "{shared}/members", []),
    ("alice", "POST", "{shared}/members", {}),
    ("alice", "POST", "{shared}/members", {"member": ""}),
    ("alice", "POST", "{shared}/members", {"member": "bob"}),
    ("alice", "POST", "{shared}/members", {"member": "bob"}),
    ("alice", "POST", "{private}/members", {"member": "bob"}),
    ("alice", "POST", "{absent}/members", {"member": "bob"}),
    ("ops", "POST", "{shared}/members", {"member": "carol"}),
    ("alice", "GET", "{shared}/members", None),
    ("bob", "GET", "{shared}/members", None),
    ("dave", "GET", "{shared}/members", None),
    ("ops", "GET", "{shared}/members", None),
    ("ops", "GET", "{private}/members", None),
    ("alice", "GET", "{shared}/members/bob", None),
    ("alice", "GET", "{shared}/members/dave", None),
    ("bob", "GET", "{shared}/members/bob", None),
    ("bob", "GET", "{shared}/members/carol", None),
    ("dave", "GET", "{shared}/members/bob", None),
    ("ops", "GET", "{private}/members/bob", None),
    ("bob", "PUT", "{shared}/members/bob", None),
    ("bob", "PUT", "{shared}/members/bob", []),
    ("bob", "PUT", "{shared}/members/bob", {}),
    ("bob", "PUT", "{shared}/members/bob", {"status": "maybe"}),
    ("bob", "PUT", "{shared}/members/bob", {"status": "accepted"}),
    ("bob", "PUT", "{shared}/members/carol", {"status": "accepted"}),
    ("alice", "PUT", "{shared}/members/bob", {"status": "rejected"}),
    ("dave", "PUT", "{shared}/members/dave", {"status": "accepted"}),
    ("ops", "PUT", "{shared}/members/carol", {"status": "rejected"}),
    ("ops", "PUT", "{shared}/members/dave", {"status": "accepted"}),
    ("bob", "POST", "{shared}/members", {"member": "dave"}),
    ("bob", "DELETE", "{shared}/members/bob", None),
    ("bob", "DELETE", "{shared}/members/carol", None),
    ("alice", "DELETE", "{shared}/members/dave", None),
    ("alice", "DELETE", "{shared}/members/bob", None),
    ("bob", "GET", "{shared}/members", None),
    ("alice", "POST", "{shared}/members", {"member": "bob"}),
    ("alice", "GET", "{shared}/members", None),
    ("ops", "DELETE", "{shared}/members/carol", None),
    ("alice", "PATCH", "{shared}", [{"op": "replace", "path": "/visibility", "value": "private"}]),
    ("alice", "GET", "{shared}/members", None),
    ("bob", "GET", "{shared}/members/bob", None),
    ("alice", "DELETE", "{shared}/members/bob", None),
    ("bob", "PUT", "{shared}/members/bob", {"status": "accepted"}),
)


@dataclass
class Played:
    """The steps, played on one registry: nobody in it but those who play."""

    session: aiohttp.ClientSession
    url: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def answers(self) -> list[tuple[Any, ...]]:
        names = {
            "shared": await self._image("shared"),
            "private": await self._image("private"),
            "absent": ABSENT,
        }
        return [
            (*step, *await self._answer(step[0], step[1], step[2].format(**names), step[3], names))
            for step in STEPS
        ]

    async def _image(self, visibility: str) -> str:
        body = json.dumps({"name": "n", "visibility": visibility}).encode()
        async with self._request("alice", "POST", "", body, "application/json") as made:
            assert made.status == 201
            return str((await made.json())["id"])

    async def _answer(
        self, who: str, method: str, path: str, body: Any, names: Mapping[str, str]
    ) -> tuple[Any, ...]:
        sent = None if body is None else self._placed(json.dumps(body)).encode()
        content_type = PATCH if method == "PATCH" else "application/json"
        async with self._request(who, method, f"/{self._placed(path)}", sent, content_type) as got:
            text = _TIME.sub(b"TIME", await got.read()).decode().replace(self.run, "")
            for name, image_id in names.items():
                text = text.replace(image_id, name)
            shown = text if method != "PATCH" else ""
            return got.status, got.headers.get("Content-Type"), shown

    def _placed(self, text: str) -> str:
        for name in ("bob", "carol", "dave"):
            text = text.replace(name, f"{name}{self.run}")
        return text

    def _request(
        self, who: str, method: str, path: str, body: bytes | None, content_type: str
    ) -> Any:
        roles = "admin,member,reader" if who == "ops" else "member,reader"
        headers = {
            "X-Identity-Status": "Confirmed",
            "X-Project-Id": f"{who}{self.run}",
            "X-Roles": roles,
            "Accept": "application/json",
        } | ({} if body is None else {"Content-Type": content_type})
        return self.session.request(method, f"{self.url}/v2/images{path}", headers=headers,
                                    data=body)  # fmt: skip


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_stand_in_shares_images_as_glance_does(
    cloud: Cloud, session: aiohttp.ClientSession
) -> None:
    async with StandIn(trusting=True) as stand_in:
        expected = await Played(session, cloud.owned.url).answers()
        answered = await Played(session, stand_in.url).answers()
    differences = [(p, r) for p, r in zip(answered, expected, strict=True) if p != r]
    assert not differences
    statuses = {answer[4] for answer in expected}
    assert statuses == {200, 204, 400, 403, 404, 409}
