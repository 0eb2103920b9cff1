"""What is still in a host's journals reads as if the store had it, and no page says it twice."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from relproxy.errors import BadRequestError, StoreUnavailableError
from relproxy.model import (
    Burial,
    Capture,
    Change,
    Grade,
    ImageKey,
    ImageRecord,
    Instance,
    InstanceQuery,
    OwnerChange,
)
from relproxy.store.base import EntryKind, RelationQuery, Store
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal_file import JournalFile
from relproxy.store.journal_row import Row
from relproxy.store.overlay import Overlay
from tests.entries import CREATED_AT, completed

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
WEST = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"
START = datetime(2030, 1, 1, tzinfo=UTC)
ALICE = RelationQuery(project="alice")


def image(number: int) -> str:
    return str(uuid.UUID(int=number))


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@dataclass
class Host:
    """A store, and a journal whose entries are put and marked when a test says so."""

    store: Store
    file: JournalFile
    overlay: Overlay
    rows: dict[str, Row] = field(default_factory=dict)

    def add(
        self, image_id: str, seconds: float, kind: EntryKind = EntryKind.CREATE, **more: str
    ) -> Row:
        """Write a completed entry."""
        grade = Grade(more.get("grade", Grade.VOUCHED))
        capture = Capture(Instance(EAST, more.get("instance", "123")), grade)
        named = kind is not EntryKind.BURIAL
        row = completed(
            image_id,
            kind=kind,
            registry=more.get("registry", "glance"),
            created_at=more.get("created_at", CREATED_AT if named else None),
            project=more.get("project", "alice") if named else None,
            capture=capture if kind is EntryKind.CREATE else None,
            begun_at=at(seconds),
            at=at(seconds),
        )
        self.file.together([lambda: self.file.add([row])])
        return row

    async def put(self, *rows: Row) -> None:
        """Do the first half of a delivery: the store has it, the journal doesn't know."""
        await self.store.put([row.change for row in rows])

    async def deliver(self, *rows: Row) -> None:
        await self.put(*rows)
        self.file.together([lambda: self.file.deliver([row.id for row in rows])])

    async def pages(
        self, query: RelationQuery = ALICE, *, limit: int, between: Sequence[Row] = ()
    ) -> list[ImageRecord]:
        """Return what a client reads page by page; `between` is delivered one by one meanwhile."""
        seen: list[ImageRecord] = []
        cursor: str | None = None
        left = iter(between)
        while True:
            page = await self.overlay.relations(query, limit=limit, cursor=cursor)
            assert len(page.records) <= limit
            seen += page.records
            cursor = page.next_cursor
            if cursor is None:
                return seen
            for row in itertools.islice(left, 1):
                await self.deliver(row)


@pytest.fixture
async def host(store: Store, tmp_path: Path) -> AsyncIterator[Host]:
    directory = tmp_path / "journal"
    directory.mkdir()
    file = JournalFile(directory / "worker-0.db")
    journals = HostJournals(directory)
    yield Host(store, file, Overlay(journals, store))
    await journals.close()
    file.close()


def ids(records: Sequence[ImageRecord]) -> list[str]:
    return [record.image_id for record in records]


LIMITS = pytest.mark.parametrize("limit", [1, 2, 3, 100])


@LIMITS
async def test_pages_hold_what_is_pending_in_its_order(host: Host, limit: int) -> None:
    for number in range(8):
        row = host.add(image(number), number)
        if number % 3:
            await host.deliver(row)
    assert ids(await host.pages(limit=limit)) == [image(n) for n in range(7, -1, -1)]


@LIMITS
async def test_an_entry_that_is_put_and_not_marked_is_shown_once(host: Host, limit: int) -> None:
    for number in range(6):
        await host.put(host.add(image(number), number))
    assert ids(await host.pages(limit=limit)) == [image(n) for n in range(5, -1, -1)]


@LIMITS
@pytest.mark.parametrize("order", [1, -1])
async def test_an_entry_that_is_delivered_between_two_pages_is_shown_once(
    host: Host, limit: int, order: int
) -> None:
    rows = [host.add(image(number), number) for number in range(8)]
    late = rows[::2][::order]
    await host.deliver(*(row for row in rows if row not in late))
    assert ids(await host.pages(limit=limit, between=late)) == [image(n) for n in range(7, -1, -1)]


@LIMITS
async def test_what_was_recorded_at_one_moment_is_shown_once_each(host: Host, limit: int) -> None:
    rows = [host.add(image(n), 0, registry=r) for n in range(4) for r in ("east", "west", "Änn")]
    await host.deliver(*rows[::2])
    found = await host.pages(limit=limit, between=rows[1::2])
    shown = [(record.registry, record.image_id) for record in found]
    assert sorted(shown) == sorted((row.registry, row.image_id) for row in rows)


async def test_a_pending_burial_shows_in_relations(host: Host) -> None:
    await host.deliver(host.add(image(1), 1))
    host.add(image(1), 2, EntryKind.BURIAL)
    (record,) = await host.pages(limit=9)
    assert record.deleted_at == at(2)


@pytest.mark.parametrize("delivered", [0, 1, 2, 3])
async def test_a_burial_is_not_of_the_image_that_was_made_after_it(
    host: Host, delivered: int
) -> None:
    rows = [
        host.add(image(1), 1),
        host.add(image(1), 2, EntryKind.BURIAL),
        host.add(image(1), 90, created_at="2030-01-02T00:00:00Z"),
    ]
    await host.deliver(*rows[:delivered])
    found = await host.pages(limit=9)
    assert [(record.recorded_at, record.deleted_at) for record in found] == [
        (at(90), None),
        (at(1), at(2)),
    ]
    owners = await host.overlay.owners("glance", [image(1)])
    assert owners[image(1)].created_at == "2030-01-02T00:00:00Z"


async def test_a_pending_burial_that_names_its_image_is_of_that_one(host: Host) -> None:
    anew = "2030-01-02T00:00:00Z"
    rows = [
        host.add(image(1), 1),
        host.add(image(1), 2, created_at=anew),
        host.add(image(1), -9000, EntryKind.BURIAL, created_at=CREATED_AT),
    ]
    for delivered in range(4):
        if delivered:
            await host.deliver(rows[delivered - 1])
        found = await host.pages(limit=9)
        assert [record.deleted_at for record in found] == [None, at(-9000)]
        assert (await host.overlay.owners("glance", [image(1)]))[image(1)].created_at == anew


def told_by_another_host(kind: EntryKind, seconds: float, project: str = "bob") -> Change:
    if kind is EntryKind.BURIAL:
        return Burial("glance", image(1), at(seconds))
    return OwnerChange("glance", image(1), CREATED_AT, project, at(seconds))


@pytest.mark.parametrize("kind", [EntryKind.OWNER, EntryKind.BURIAL])
@pytest.mark.parametrize("is_parked", [False, True], ids=["late", "parked"])
async def test_what_another_host_has_told_the_store_counts_for_a_pending_record(
    host: Host, kind: EntryKind, *, is_parked: bool
) -> None:
    """The image has another owner, or is gone; only its record is late, or waits for a person."""
    row = host.add(image(1), 1)
    if is_parked:
        host.file.together([lambda: host.file.park(row.id, "the store refuses it")])
    await host.store.put([told_by_another_host(kind, 2)])
    owners = await host.overlay.owners("glance", [image(1)])
    assert {o.project for o in owners.values()} == ({"bob"} if kind is EntryKind.OWNER else set())
    assert await host.overlay.images_of_project("glance", "alice", at_most=9) == []
    for project in ("alice", "bob"):
        query = InstanceQuery("123", EAST, project)
        keys = await host.overlay.images_of_instance("glance", query)
        is_bobs = kind is EntryKind.OWNER and project == "bob"
        assert [key.id for key in keys] == ([image(1)] if is_bobs else [])
    (record,) = await host.pages(RelationQuery(image_id=image(1)), limit=9)
    assert (record.project, record.deleted_at) == (
        ("bob", None) if kind is EntryKind.OWNER else ("alice", at(2))
    )


async def test_a_pending_change_of_owner_is_nothing_beside_a_later_one_in_the_store(
    host: Host,
) -> None:
    await host.deliver(host.add(image(1), 1))
    host.add(image(1), 2, EntryKind.OWNER, project="carol")
    await host.store.put([told_by_another_host(EntryKind.OWNER, 3)])
    owners = await host.overlay.owners("glance", [image(1)])
    assert owners[image(1)].project == "bob"
    assert await host.overlay.images_of_project("glance", "carol", at_most=9) == []
    (record,) = await host.pages(RelationQuery(image_id=image(1)), limit=9)
    assert record.project == "bob"


async def test_a_pending_change_of_owner_moves_the_record(host: Host) -> None:
    await host.deliver(host.add(image(1), 1), host.add(image(2), 2))
    host.add(image(3), 3)
    for number in (1, 3):
        host.add(image(number), 4, EntryKind.OWNER, project="bob")
    assert ids(await host.pages(limit=1)) == [image(2)]
    assert ids(await host.pages(RelationQuery(project="bob"), limit=1)) == [image(3), image(1)]
    (record,) = await host.pages(RelationQuery(image_id=image(1)), limit=1)
    assert record.project == "bob"


async def test_an_instance_has_the_images_that_a_pending_change_gives_its_project(
    host: Host,
) -> None:
    await host.deliver(host.add(image(1), 1), host.add(image(2), 2, instance="other"))
    host.add(image(3), 3)
    for number in (1, 2, 3):
        host.add(image(number), 4, EntryKind.OWNER, project="bob")

    async def found(project: str | None) -> list[ImageKey]:
        query = InstanceQuery("123", EAST, project)
        return list(await host.overlay.images_of_instance("glance", query))

    both = [ImageKey(image(3), CREATED_AT), ImageKey(image(1), CREATED_AT)]
    assert await found("bob") == both
    assert await found(None) == both
    assert await found("alice") == []


Shown: TypeAlias = tuple[list[str], list[str], list[str | None]]
BOBS: Shown = (["bob", "None"], ["bob"], ["123"])
NOBODYS: Shown = ([], [], [None])


async def shown(host: Host) -> Shown:
    """Return for whom image 1 is found by its instance, and as whose it is shown."""
    of = {
        project: await host.overlay.images_of_instance(
            "glance", InstanceQuery("123", EAST, project)
        )
        for project in ("mallory", "bob", None)
    }
    related = await host.pages(RelationQuery(instance_id="123"), limit=1)
    found = [str(project) for project, keys in of.items() if keys]
    records = await host.pages(RelationQuery(image_id=image(1)), limit=9)
    said = [record.counted.instance.id if record.counted else None for record in records]
    return found, [record.project for record in related], said


@pytest.mark.parametrize("grade", [Grade.VOUCHED, Grade.CLAIMED])
@pytest.mark.parametrize("delivered", [0, 1, 2, 3])
async def test_a_claim_on_its_way_counts_only_for_the_project_that_made_it(
    host: Host, grade: Grade, delivered: int
) -> None:
    """Of what is delivered the store decides, of what is pending the overlay."""
    made = host.add(image(1), 1, project="mallory", grade=grade)
    if delivered > 0:
        await host.deliver(made)
    assert await shown(host) == (["mallory", "None"], ["mallory"], ["123"])
    given = host.add(image(1), 2, EntryKind.OWNER, project="bob")
    if delivered > 1:
        await host.deliver(given)
    assert await shown(host) == (BOBS if grade is Grade.VOUCHED else NOBODYS)
    back = host.add(image(1), 3, EntryKind.OWNER, project="mallory")
    if delivered > 2:
        await host.deliver(back)
    assert await shown(host) == (["mallory", "None"], ["mallory"], ["123"])


@pytest.mark.parametrize("grade", [Grade.VOUCHED, Grade.CLAIMED])
async def test_a_pending_claim_whose_image_another_host_saw_given_away_counts_for_nobody(
    host: Host, grade: Grade
) -> None:
    host.add(image(1), 1, project="mallory", grade=grade)
    await host.store.put([told_by_another_host(EntryKind.OWNER, 2)])
    assert await shown(host) == (BOBS if grade is Grade.VOUCHED else NOBODYS)


async def test_a_pending_record_of_another_project_takes_no_image_of_an_instance(
    host: Host,
) -> None:
    """Of two records that name different projects the first one told holds."""
    await host.deliver(host.add(image(1), 1, project="bob", grade=Grade.CLAIMED, instance="124"))
    host.add(image(1), 2, project="mallory")
    found, _, _ = await shown(host)
    assert found == []


async def test_of_a_pending_capture_and_one_in_the_store_the_vouched_one_counts(host: Host) -> None:
    for number, (first, second) in enumerate(
        itertools.permutations([Grade.VOUCHED, Grade.CLAIMED])
    ):
        for instance, grade in ((str(number), first), (f"{number} later", second)):
            row = host.add(image(number), 1, instance=instance, grade=grade)
            if grade is first:
                await host.deliver(row)

    async def found(instance: str) -> list[str]:
        query = InstanceQuery(instance, EAST, "alice")
        return [key.id for key in await host.overlay.images_of_instance("glance", query)]

    assert (await found("0"), await found("0 later")) == ([image(0)], [])
    assert await found("1 later") == [image(1)]


def passed_on(host: Host) -> list[Row]:
    """Have alice create an image, give it to bob, and him to carol, all of it pending."""
    return [
        host.add(image(1), 1),
        host.add(image(1), 2, EntryKind.OWNER, project="bob"),
        host.add(image(1), 3, EntryKind.OWNER, project="carol"),
    ]


async def test_a_project_with_very_much_that_is_pending_is_one_with_too_many_images(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is walked then, and what is pending read by its pages."""
    monkeypatch.setattr("relproxy.store.overlay._PENDING_AT_MOST", 3)
    for number in range(4):
        if number == 3:
            found = await host.overlay.images_of_project("glance", "alice", at_most=9)
            assert set(found or ()) == {image(n) for n in range(3)}
        host.add(image(number), number)
    assert await host.overlay.images_of_project("glance", "alice", at_most=9) is None
    owners = await host.overlay.owners("glance", [image(3)])
    assert owners[image(3)].project == "alice"
    assert len(await host.pages(limit=9)) == 4
    monkeypatch.setattr("relproxy.store.overlay._PENDING_TOLD_AT_MOST", 3)
    with pytest.raises(StoreUnavailableError, match="ask again"):
        await host.pages(limit=9)


def deliver_after(
    read: str, host: Host, rows: Sequence[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliver `rows` whenever the overlay has read the journals so."""
    journals = host.overlay._journals  # noqa: SLF001 - between two of its reads
    reading = getattr(journals, read)

    async def read_and_deliver(*asked: Any, **named: Any) -> list[Row]:
        found: list[Row] = await reading(*asked, **named)
        await host.deliver(*rows)
        return found

    monkeypatch.setattr(journals, read, read_and_deliver)


@pytest.mark.parametrize("read", ["pending_of_instance", "pending_of_project", "pending_of_images"])
@pytest.mark.parametrize("project", ["alice", "bob", "carol"])
async def test_a_delivery_at_any_moment_of_a_look_up_shows_nobody_anothers_image(
    host: Host, read: str, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*passed_on(host), host.add(image(2), 4, project="dave")]
    deliver_after(read, host, rows, monkeypatch)
    expected = [image(1)] if project == "carol" else []
    query = InstanceQuery("123", EAST, project)
    keys = await host.overlay.images_of_instance("glance", query)
    assert [key.id for key in keys] == expected


@pytest.mark.parametrize("read", ["pending_of_project", "pending_of_images"])
@pytest.mark.parametrize("project", ["alice", "bob", "carol"])
async def test_a_delivery_at_any_moment_leaves_a_project_its_own(
    host: Host, read: str, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver_after(read, host, passed_on(host), monkeypatch)
    expected = [image(1)] if project == "carol" else []
    assert await host.overlay.images_of_project("glance", project, at_most=9) == expected
    page = await host.overlay.relations(RelationQuery(project=project), limit=9, cursor=None)
    assert ids(page.records) == expected


async def test_owners_and_projects_follow_the_journal(host: Host) -> None:
    await host.deliver(*(host.add(image(n), n) for n in (1, 2, 3)))
    host.add(image(1), 4, EntryKind.BURIAL)
    host.add(image(2), 4, EntryKind.OWNER, project="bob")
    host.add(image(4), 4)
    asked = [image(n) for n in range(1, 6)]
    owners = await host.overlay.owners("glance", asked)
    expected = {image(2): "bob", image(3): "alice", image(4): "alice"}
    assert {i: o.project for i, o in owners.items()} == expected
    of_alice = await host.overlay.images_of_project("glance", "alice", at_most=9)
    assert sorted(of_alice or ()) == [image(3), image(4)]
    assert await host.overlay.images_of_project("glance", "bob", at_most=9) == [image(2)]
    assert await host.overlay.images_of_project("glance", "alice", at_most=1) is None


async def test_another_registrys_journal_entries_say_nothing_of_this_ones(host: Host) -> None:
    await host.deliver(host.add(image(1), 1))
    host.add(image(1), 2, EntryKind.BURIAL, registry="other")
    host.add(image(1), 2, EntryKind.OWNER, registry="other", project="bob")
    (record,) = await host.pages(limit=9)
    assert (record.project, record.deleted_at) == ("alice", None)
    assert set(await host.overlay.owners("glance", [image(1)])) == {image(1)}
    assert await host.overlay.images_of_instance("glance", InstanceQuery("123", WEST, None)) == []


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "٣", "9" * 30, "", "WzFd", "e30", "bnVsbA"])
async def test_a_cursor_that_is_none_is_refused(host: Host, cursor: str) -> None:
    with pytest.raises(BadRequestError):
        await host.overlay.relations(ALICE, limit=2, cursor=cursor)
