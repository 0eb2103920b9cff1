"""Writes stories at random: mostly what works, often what doesn't, now and then nonsense.

Not drawn by Hypothesis: five of six of its examples are one before them with a part repeated, which
finds less here, and it takes as long to draw a story as to play it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tests.model import operations as do
from tests.model.world import ADMIN, NOBODY, PROJECTS

STATUSES = ("accepted", "pending", "rejected")
VISIBILITIES = ("private", "shared", "public", "community")
SORT_KEYS = (
    *("name", "status", "container_format", "disk_format", "size", "id", "created_at"),
    "updated_at",
)
_MEMBERS = PROJECTS[:3]
_CALLERS = (*_MEMBERS * 5, *(ADMIN,) * 3, NOBODY)
_LIMITS = (None, 1, 1, 2, 2, 3, 3, 5, 7, 8, 0, 1000)

_Choice = TypeVar("_Choice")


class Writer:
    """Writes stories with one source of chance."""

    def __init__(self, choose: random.Random) -> None:
        self._choose = choose
        # The more often a deed stands here, the more often it is done.
        self._deeds: tuple[Callable[[], do.Operation], ...] = (
            *(self._sound_create,) * 3,
            self._any_create,
            lambda: do.CreateAgain(
                self._one(_MEMBERS), self._image(), self._capture(), self._few()
            ),
            *(lambda: do.Upload(self._project(), self._image(), self._few() + 1),) * 3,
            *(self._change,) * 3,
            *(self._change_by_admin,) * 3,
            lambda: do.Tag(self._project(), self._image(), self._few(), self._rarely()),
            *(lambda: do.Share(self._project(), self._image(), self._one(_MEMBERS)),) * 4,
            *(self._own_reply,) * 3,
            lambda: do.Reply(self._project(), self._image(), self._one(_MEMBERS)),
            lambda: do.Unshare(self._project(), self._image(), self._one(_MEMBERS)),
            lambda: do.Members(self._project(), self._image()),
            *(lambda: do.Delete(self._project(), self._image()),) * 2,
            *(lambda: do.Vanish(self._image()),) * 3,
            *(lambda: do.Show(self._one(_CALLERS), self._image()),) * 2,
            *(lambda: do.Download(self._one(_CALLERS), self._image()),) * 2,
            lambda: do.Wait(self._one((1, 400_000, 1_000_000))),
        )
        self._filters: Mapping[str, Callable[[], Any]] = {
            "visibility": lambda: self._one((*VISIBILITIES, *("all",) * 3)),
            "member_status": lambda: self._one((*STATUSES, "all")),
            "os_hidden": lambda: self._one((True, True, False)),
            "owner": self._project,
            "status": lambda: self._one(("queued", "active")),
            "tag": lambda: tuple({self._few(), self._few()}),
            "name": self._image,
            "id": self._images,
            "id eq": self._images,
            "id in": self._images,
            "id quoted": self._images,
            "instance_id": self._instance,
            "instance_id ": self._instance,
            "instance_id  ": self._instance,
            "disk_format": lambda: self._one(("raw", "iso")),
            "property": self._few,
        }

    def story(self, *, lists: int = 4) -> do.Story:
        """Write one: images first, then what happens to them, and `lists` or so after each turn."""
        operations: list[do.Operation] = [self._sound_create() for _ in self._some(4, 14)]
        for _ in range(2):
            operations += [self._one(self._deeds)() for _ in self._some(2, 10)]
            operations += self._take_over() if self._few() else []
            operations += [self._list() for _ in self._some(lists // 2, lists + lists // 2)]
        return do.Story(self._knobs(), tuple(operations))

    def _knobs(self) -> do.Knobs:
        return do.Knobs(
            max_limit=self._one((7, 7, 1000, 3)),
            ids_bytes=self._one((37, 37, 120)),
            streams=self._one((8, 8, 8, 0)),
            is_frozen=self._one((False, True)),
            is_careless=self._one((False, False, True)),
        )

    # -- words

    def _one(self, choices: tuple[_Choice, ...]) -> _Choice:
        return self._choose.choice(choices)

    def _some(self, least: int, most: int) -> range:
        return range(self._choose.randint(least, most))

    def _rarely(self) -> bool:
        return self._choose.random() < 0.15

    def _few(self) -> int:
        return self._choose.randrange(3)

    def _image(self) -> int:
        return self._choose.randrange(30)

    def _images(self) -> tuple[int, ...]:
        return tuple(self._image() for _ in self._some(1, 6))

    def _project(self) -> str:
        return self._one(PROJECTS)

    def _capture(self) -> str | None:
        return self._one((None, "headers", "properties", "nova"))

    def _instance(self) -> tuple[int, int | None]:
        return self._one((0, 0, 0, 1)), self._one((None, None, 0, 1))

    # -- deeds

    def _sound_create(self) -> do.Create:
        """Write a create that a registry of either kind takes from a project, or from an admin."""
        if self._few():
            visibility: str | None = self._one((None, "private", "shared"))
            return self._create(self._one(_MEMBERS), visibility, None)
        visibility = self._one(("public", "public", "shared", "community"))
        return self._create(ADMIN, visibility, self._one((None, *_MEMBERS)))

    def _any_create(self) -> do.Create:
        visibility = self._one((None, *VISIBILITIES))
        id_of = self._one((None, None, self._image()))
        return self._create(
            self._project(), visibility, self._one((None, self._project())), id_of=id_of
        )

    def _create(
        self, who: str, visibility: str | None, owner: str | None, *, id_of: int | None = None
    ) -> do.Create:
        return do.Create(
            who,
            visibility=visibility,
            capture=self._capture(),
            instance=self._one((0, 0, 0, 1)),
            installation=self._one((None, 0, 1)),
            id_of=-1 if id_of is None and self._rarely() else id_of,
            owner=owner,
            formats=self._one((0, 0, 0, 1)),
            tag=self._one((None, self._few())),
            hidden=self._rarely(),
        )

    def _appear(self) -> do.Appear:
        return do.Appear(self._project(), self._one(VISIBILITIES))

    def _take_over(self) -> list[do.Operation]:
        """Let an image go, past relproxy or through it, and give its id to another one."""
        image, who = self._image(), self._one(_MEMBERS)
        ends: tuple[do.Operation, ...] = (do.Vanish(image), do.Delete(ADMIN, image))
        begins: tuple[do.Operation, ...] = (
            do.CreateAgain(who, image, self._capture(), self._few()),
            do.Appear(who, self._one(VISIBILITIES[:2]), image),
        )
        return [self._one(ends), self._one(begins)]

    def _change(self) -> do.Change:
        what, value = self._changed()
        return do.Change(self._project(), self._image(), what, value)

    def _change_by_admin(self) -> do.Change:
        what, value = self._changed()
        return do.Change(ADMIN, self._image(), what, value)

    def _changed(self) -> tuple[str, Any]:
        values: dict[str, Any] = {
            "name": self._few(),
            "tags": tuple({self._few(), self._few()}),
            "os_hidden": self._rarely(),
            "property": self._few(),
            "visibility": self._one(VISIBILITIES),
            "owner": self._one(_MEMBERS),
        }
        what = self._one((*values, "visibility"))
        return what, values[what]

    def _own_reply(self) -> do.Reply:
        member = self._one(_MEMBERS)
        return do.Reply(member, self._image(), member, self._one(("accepted", *STATUSES)))

    # -- lists

    def _list(self) -> do.List:
        return do.List(
            self._one(_CALLERS),
            limit=self._one(_LIMITS),
            sort=self._sort(),
            sort_style=self._one(("new", "keys", "keys one way", "keys no way")),
            marker=self._marker(),
            filters=self._some_filters(),
        )

    def _sort(self) -> tuple[tuple[str, str], ...]:
        keys = self._choose.sample(SORT_KEYS, self._one((0, 0, 1, 1, 2, 3)))
        return tuple((key, self._one(("asc", "desc"))) for key in keys)

    def _marker(self) -> int | str | None:
        if self._choose.random() < 0.75:
            return None
        return self._image() if self._rarely() else self._one(("absent", "malformed"))

    def _some_filters(self) -> tuple[tuple[str, Any], ...]:
        names = self._choose.sample(tuple(self._filters), self._one((0, 0, 1, 1, 1, 1, 2)))
        # Two spellings of one parameter would be one parameter given twice.
        chosen = {name.partition(" ")[0]: name for name in names}
        return tuple((name.strip(), self._filters[name]()) for name in chosen.values())
