from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from lab.stand_in import StandIn
from tests.integration.conftest import Client

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


async def test_creates_that_need_a_record_are_refused_before_they_leave(
    second_wall: Client, trusting: StandIn
) -> None:
    with broken(second_wall):
        answer = await second_wall.create("a", "alice", headers=TUPLE)
        assert answer.status == 503
        assert "Retry-After" in answer.headers
        assert trusting.requests == []
        assert (await second_wall.create("b", "alice")).status == 201
    assert (await second_wall.create("c", "alice", headers=TUPLE)).status == 201


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


async def test_a_create_whose_record_was_not_kept_is_not_acknowledged(
    second_wall: Client, trusting: StandIn
) -> None:
    trigger = (
        "CREATE TRIGGER full BEFORE INSERT ON image_record BEGIN SELECT RAISE(FAIL, 'full'); END"
    )
    with sqlite3.connect(second_wall.store) as database:
        database.execute(trigger)
    database.close()
    answer = await second_wall.create("a", "alice", headers=TUPLE)
    assert answer.status == 503
    (image_id,) = trusting.images
    assert image_id.encode() in answer.body
    assert await second_wall.metric('relproxy_records_total{registry="glance",result="in_doubt"}')
