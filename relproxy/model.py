"""The values that cross rooms: who asks, what was captured, what is remembered."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

# How far the clocks of two hosts may be apart where one says what came after what on the other.
CLOCKS_DIFFER_S = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


class Grade(enum.StrEnum):
    """How far the instance of a record can be trusted (docs/vocabulary.md, vouched and claimed)."""

    VOUCHED = "vouched"
    CLAIMED = "claimed"
    IMPORTED = "imported"


class Tenancy(enum.StrEnum):
    """Who knows the owners of a registry's images: the registry itself, or only relproxy."""

    REGISTRY = "registry"
    RELPROXY = "relproxy"


class Treatment(enum.StrEnum):
    """What a matched request needs."""

    CREATE = "create"
    LIST = "list"
    IMAGE = "image"
    PASS = "pass"  # noqa: S105 - a treatment, not a password
    REFUSE = "refuse"


class Access(enum.StrEnum):
    """Who may use a row of a dialect's table where relproxy is the only wall."""

    ANYONE = "anyone"
    CALLER = "caller"
    OWN = "own"
    VISIBLE = "visible"
    ADMIN = "admin"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Service:
    """Another service that makes a request for a caller, and is vouched for beside it."""

    project: str | None
    user: str | None
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class AccessRule:
    """What an application credential allows: a method of the paths that match a pattern."""

    service: str
    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who the identity provider vouches for.

    `is_admin_project` is what a token says of its project, None where it says nothing.
    `access_rules` is all that the caller may ask for, None where nothing narrows it.
    """

    project: str
    user: str | None = None
    roles: frozenset[str] = frozenset()
    is_admin: bool = False
    user_domain: str | None = None
    project_domain: str | None = None
    is_admin_project: bool | None = None
    service: Service | None = None
    access_rules: tuple[AccessRule, ...] | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of one Nova: the blueprint's tuple. `installation` is a canonical UUID."""

    installation: str
    id: str


@dataclass(frozen=True, slots=True)
class Capture:
    """The instance that a create names, and how far that can be trusted."""

    instance: Instance
    grade: Grade


@dataclass(frozen=True, slots=True)
class Intent:
    """What a create is about to do, known before it leaves for the registry.

    `image_id` is the id that goes upstream, None where the registry chooses; `is_assigned` says
    that relproxy chose it. `image_name` is what the create calls the image, to look for it by.
    """

    registry: str
    caller_project: str | None
    capture: Capture | None
    image_id: str | None = None
    is_assigned: bool = False
    image_name: str | None = None


@dataclass(frozen=True, slots=True)
class CreatedImage:
    """What a registry's 201 says of the image. `created_at` is RFC 3339, as the registry wrote it.

    `owner` is None where the registry has no owners or didn't name one.
    """

    id: str
    created_at: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The durable fact: this image of this registry, this project, this instance.

    Keyed by `registry`, `image_id` and `created_at`: an id that is deleted and created anew is
    another image. `capture` is None where only the owner is recorded. `deleted_at` is when the
    image was deleted through relproxy, or None. `made_by` is the project that the record was put
    with, where its owner was changed since; None in what a store is told. `is_imported` says that
    the image was found in the registry, and its create never seen: then the grade of a capture is
    IMPORTED.
    """

    registry: str
    image_id: str
    created_at: str
    project: str
    capture: Capture | None
    recorded_at: datetime
    deleted_at: datetime | None = None
    made_by: str | None = None
    is_imported: bool = False

    @property
    def made_for(self) -> str:
        """The project that the record was put with."""
        return self.made_by or self.project

    @property
    def grade(self) -> Grade | None:
        """How far it can be trusted; None where a create was seen that named no instance."""
        if self.is_imported:
            return Grade.IMPORTED
        return self.capture.grade if self.capture else None

    @property
    def counted(self) -> Capture | None:
        """The capture, if it counts: one that isn't vouched does only for the record's own project.

        Else a project could give its image away, and what it claims with it.
        """
        return None if self.counted_grade is None else self.capture

    @property
    def counted_grade(self) -> Grade | None:
        """The grade, if what it says counts; see `counted`."""
        is_its = self.grade is Grade.VOUCHED or self.made_by in (None, self.project)
        return self.grade if is_its else None

    def given_to(self, project: str) -> ImageRecord:
        """Return the record with another owner; it is still made for whom it was."""
        return replace(
            self, project=project, made_by=None if self.made_for == project else self.made_for
        )


@dataclass(frozen=True, slots=True)
class Burial:
    """An image was deleted through relproxy at `at`.

    `created_at` says which of the images that had this id, one after the other. None where that
    isn't known: then it is every one that was recorded until then, and a little later, because the
    clocks of two hosts differ.
    """

    registry: str
    image_id: str
    at: datetime
    created_at: str | None = None

    def buries(self, record: ImageRecord) -> bool:
        """Tell whether this record is of the image that was deleted."""
        if (self.registry, self.image_id) != (record.registry, record.image_id):
            return False
        if self.created_at is not None:
            return self.created_at == record.created_at
        return _seconds(record.recorded_at) <= _seconds(self.at) + CLOCKS_DIFFER_S


@dataclass(frozen=True, slots=True)
class OwnerChange:
    """The registry took `project` as the owner of the image that was created at `created_at`.

    Of several changes of one image the latest by `at` holds, in whatever order they arrive, and of
    two at one moment the one whose project is the greater text.
    """

    registry: str
    image_id: str
    created_at: str
    project: str
    at: datetime


# What a store is told: in any order, and each may be told again; see `relproxy.store.base.Store`.
Change = ImageRecord | Burial | OwnerChange


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose an image is, by record: valid only for the image that was created at `created_at`.

    `is_imported` says that the record gives way to a create's own.
    """

    project: str
    created_at: str
    is_imported: bool = False


@dataclass(frozen=True, slots=True)
class ImageKey:
    """One image of a registry: its id, and when it was created, as the registry wrote it.

    An id that was deleted and created anew is another image. `created_at` is None only where a
    registry's own answer doesn't say it; no record has that.
    """

    id: str
    created_at: str | None


@dataclass(frozen=True, slots=True)
class InstanceQuery:
    """The question a backup scheduler asks. None stands for any installation, any project."""

    instance_id: str
    installation: str | None
    project: str | None


def _seconds(moment: datetime) -> int:
    # Whole ones, as the store that packs its times compares them.
    return (moment - _EPOCH) // _SECOND
