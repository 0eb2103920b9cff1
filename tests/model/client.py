"""Whole answers over real sockets, each searched for what it must not tell."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from tests.model.leaks import marks_in
from tests.model.world import ADMIN, NOBODY, Image, World

# They tell nothing: each answer has a request id and a time of its own.
_OF_EACH_ANSWER = (b"x-openstack-request-id", b"date")


@dataclass(frozen=True)
class Answer:
    """One answer, as it came; `told` is every mark and id in it that the request did not say."""

    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    told: frozenset[str]

    def json(self) -> Any:
        return json.loads(self.body)

    def alike(self, image_id: str) -> tuple[Any, ...]:
        """Return what two answers must have in common that tell no image from an absent one."""
        spelled = image_id.encode()
        headers = [
            (name, value.replace(spelled, b"ID"))
            for name, value in self.headers
            if name.lower() not in _OF_EACH_ANSWER
        ]
        return self.status, self.reason, headers, self.body.replace(spelled, b"ID")


@dataclass(eq=False)
class Client:
    """Sends what projects ask; `marks` maps the names of projects to what they really are."""

    session: aiohttp.ClientSession
    url: str
    world: World
    marks: Mapping[str, str]
    known: set[str]
    counts: Counter[str] = field(default_factory=Counter)

    async def ask(
        self,
        who: str,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        about: Iterable[Image] = (),
        projects: Iterable[str] = (),
    ) -> Answer:
        """Send a request and return its answer, which may tell `about` these images only.

        And whom they belong to, and of the `projects`; an admin may be told everything.
        """
        self.counts["requests"] += 1
        address = URL(self.url + target, encoded=True)
        sent = {**self._identity(who), "Accept": "application/json", **(headers or {})}
        async with self.session.request(
            method, address, headers=sent, data=body, allow_redirects=False
        ) as got:
            text = await got.read()
            status, reason, fields = got.status, got.reason or "", got.raw_headers
        spoken = marks_in(target, body or b"", *sent.values())
        lines = [part for pair in fields for part in pair]
        told = marks_in(reason, *lines, text) - spoken
        answer = Answer(status, reason, fields, text, told)
        self._check_telling(who, answer, about, projects)
        return answer

    def _identity(self, who: str) -> dict[str, str]:
        if who == NOBODY:
            return {}
        roles = "admin,member,reader" if who == ADMIN else "member,reader"
        return {"X-Project-Id": self.marks[who], "X-Roles": roles}

    def _check_telling(
        self, who: str, answer: Answer, about: Iterable[Image], projects: Iterable[str]
    ) -> None:
        told = answer.told & self.known
        if who == ADMIN or not told:
            return
        allowed = marks_in(*(self.marks[project] for project in projects))
        for image in about:
            allowed |= self._of(image)
        assert told <= allowed, f"{who} was told {sorted(told - allowed)} by {answer}"

    def _of(self, image: Image) -> frozenset[str]:
        words = (image.id, image.name, *image.tags, *image.properties.values())
        owner = self.marks.get(image.owner or "", "")
        return marks_in(*words, owner, image.data or b"")
