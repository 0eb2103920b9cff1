"""What a memo, a cache or a shared answer would give away; docs/security.md lists every hazard."""

from __future__ import annotations

import itertools

from tests.integration.conftest import Answer, Wall

CALLERS = {"alice": "member", "bob": "member", "ops": "admin"}


async def test_no_answer_is_remembered_for_another_caller(wall: Wall) -> None:
    """The same target, asked by one caller after another, in every order."""
    for project in ("alice", "bob"):
        created = await wall.client.create(
            project, project, fields={"visibility": "private", "instance_id": "1"}
        )
        assert created.status == 201
    ids = [image["id"] for image in wall.glance.images.values()]
    targets = ["/v2/images", "/v2/images?instance_id=1", *(f"/v2/images/{each}" for each in ids)]

    async def ask(target: str, project: str) -> Answer:
        # A client that says it has this already; or that its answer may be any caller's.
        conditions = {"If-None-Match": "*", "Cache-Control": "max-stale", "If-Modified-Since": "x"}
        return await wall.client.get(
            target, project=project, roles=CALLERS[project], headers=conditions
        )

    for target in targets:
        first = {project: await ask(target, project) for project in CALLERS}
        shown = {project: (answer.status, answer.body) for project, answer in first.items()}
        assert shown["alice"] != shown["bob"]
        for order in itertools.permutations(CALLERS):
            for project in order:
                again = await ask(target, project)
                if again.status == 200:
                    assert (again.status, again.body) == shown[project], (target, order)
                else:
                    assert again.status == shown[project][0], (target, order)
    listed = [(await ask("/v2/images", project)).names for project in CALLERS]
    assert listed == [["alice"], ["bob"], ["bob", "alice"]]
