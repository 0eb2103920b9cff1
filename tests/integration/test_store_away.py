from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from lab.stand_in import StandIn
from relproxy.store.base import RelationQuery
from relproxy.store.sqlite import SqliteStore
from tests.integration.conftest import Client, eventually

TUPLE = {"X-Nova-Instance-ID": "123"}


@contextmanager
def broken(client: Client) -> Iterator[None]:
    """Take the table away, as a damaged or foreign file would."""
    with sqlite3.connect(client.store) as database:
        database.execute("ALTER TABLE image_record RENAME TO away")
        database.commit()
        yield
        database.execute("ALTER TABLE away RENAME TO image_record")
    database.close()


@contextmanager
def unwritable(client: Client) -> Iterator[None]:
    """Let the store be read and not written, as on a full disk."""
    refuse = "BEFORE INSERT ON image_record BEGIN SELECT RAISE(FAIL, 'full'); END"
    with sqlite3.connect(client.store, isolation_level=None) as database:
        database.execute(f"CREATE TRIGGER full {refuse}")
        yield
        database.execute("DROP TRIGGER full")
    database.close()


@contextmanager
def locked(client: Client) -> Iterator[None]:
    """Let the store be read, and written by nobody else."""
    with sqlite3.connect(client.store, isolation_level=None) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")
    database.close()


async def test_creates_go_on_without_the_store_and_say_that_their_record_is_pending(
    second_wall: Client,
) -> None:
    with broken(second_wall):
        answer = await second_wall.create("a", "alice", headers=TUPLE)
        assert answer.status == 201
        assert answer.headers["X-Relproxy-Record"] == "pending"
        plain = await second_wall.create("b", "alice")
        assert (plain.status, "X-Relproxy-Record" in plain.headers) == (201, False)

    async def recorded() -> list[str]:
        found = await opened.records(RelationQuery(project="alice"), limit=9, before=None)
        return [record.image_id for record in found]

    opened = SqliteStore(second_wall.store)
    await opened.open()
    await eventually(recorded, [answer.json()["id"]])
    await opened.close()
    again = await second_wall.create("c", "alice", headers=TUPLE)
    assert "X-Relproxy-Record" not in again.headers


async def test_a_store_whose_writes_fail_is_read_together_with_the_journal(
    only_wall: Client,
) -> None:
    first = (await only_wall.create("a", "alice", headers=TUPLE)).json()["id"]
    with unwritable(only_wall):
        created = await only_wall.create("b", "alice", headers=TUPLE)
        assert created.headers["X-Relproxy-Record"] == "pending"
        assert (await only_wall.get("/v2/images", project="alice")).names == ["b", "a"]
        assert (await only_wall.get("/v2/images", project="bob")).names == []
        asked = await only_wall.get("/v2/images?instance_id=123", project="alice")
        assert asked.names == ["b", "a"]
        shown = await only_wall.get(f"/v2/images/{created.json()['id']}", project="alice")
        assert shown.status == 200
        related = await only_wall.relations("instance_id=123")
        assert [r["image_id"] for r in related] == [created.json()["id"], first]
        assert await only_wall.call("DELETE", f"/v2/images/{first}", project="alice")
        assert [r["image_id"] for r in await only_wall.relations("project=alice")]


async def test_lists_that_need_records_are_refused_never_unfiltered(
    only_wall: Client, noauth: StandIn
) -> None:
    noauth.add_image(name="secret", visibility="private")
    noauth.add_image(name="debian", visibility="public")
    with broken(only_wall):
        answer = await only_wall.get("/v2/images", project="alice")
        assert answer.status == 503
        assert "Retry-After" in answer.headers
        assert b"secret" not in answer.body
        image_id = next(iter(noauth.images))
        assert (await only_wall.get(f"/v2/images/{image_id}", project="alice")).status == 503
    assert (await only_wall.get("/v2/images", project="alice")).names == ["debian"]


async def test_all_else_goes_on_without_the_store(
    only_wall: Client, second_wall: Client, noauth: StandIn, trusting: StandIn
) -> None:
    noauth.add_image(name="debian", visibility="public")
    trusting.add_image(name="mine", owner="alice")
    with broken(only_wall), broken(second_wall):
        public = await only_wall.get("/v2/images?visibility=public", project="alice")
        assert public.names == ["debian"]
        everything = await only_wall.get("/v2/images", project="ops", roles="admin")
        assert everything.names == ["debian"]
        assert (await second_wall.get("/v2/images", project="alice")).names == ["mine"]
        asked = await second_wall.get("/v2/images?instance_id=1", project="alice")
        assert asked.status == 503
