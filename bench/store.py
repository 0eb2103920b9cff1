"""How many creates can be made durable a second, and what a look-up and a million rows cost.

`python -m bench.store [--rows N]`. Group commit (what relproxy does) beside one commit a row, in
turns within one run on one machine; medians of the rounds, and their spread. Every row is durable
when its producer is told.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lab.postgres import Postgres
from relproxy.metrics import Metrics
from relproxy.model import Capture, CreatedImage, Grade, ImageRecord, Instance, Intent
from relproxy.recording import time_ordered_id
from relproxy.store.base import Store
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_file import JournalFile
from relproxy.store.postgres import PostgresStore
from relproxy.store.postgres_pool import PostgresSettings, migrate
from relproxy.store.relay import Relay, Terms
from relproxy.store.sqlite import SqliteStore

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
ROUNDS = 5
SECONDS = 2.0
PRODUCERS = (1, 64)
IMAGES_OF_AN_INSTANCE = 8
PROJECTS = 1000

Make = Callable[[], Awaitable[None]]


def record(image_id: str, project: str, instance: str, at: datetime) -> ImageRecord:
    """Return a record as an unmodified Nova's snapshot leaves one."""
    capture = Capture(Instance(EAST, instance), Grade.CLAIMED)
    return ImageRecord("glance", image_id, f"{at:%Y-%m-%dT%H:%M:%SZ}", project, capture, at)


def fresh() -> ImageRecord:
    """Return a record that nobody has."""
    return record(time_ordered_id(), "p1", str(uuid.uuid4()), datetime.now(UTC))


class Grouped:
    """Puts what has arrived since the last put, as the relay does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[ImageRecord, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def make(self) -> None:
        """Make one record durable."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((fresh(), future))
        if self._task is None:
            self._task = asyncio.create_task(self._put())
        await future

    async def _put(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await self._store.put([one for one, _ in batch])
            for _, future in batch:
                future.set_result(None)
        self._task = None


async def rate(make: Make, producers: int) -> tuple[float, list[float]]:
    """Return durable rows a second, and each one's seconds."""
    times: list[float] = []
    until = time.perf_counter() + SECONDS

    async def produce() -> None:
        while (started := time.perf_counter()) < until:
            await make()
            times.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(produce() for _ in range(producers)))
    return len(times) / (time.perf_counter() - started), times


async def compare(ways: dict[str, Make]) -> None:
    """Measure the ways in turns, and print medians."""
    found: dict[tuple[str, int], list[tuple[float, list[float]]]] = {}
    for _, producers, (name, make) in itertools.product(range(ROUNDS), PRODUCERS, ways.items()):
        found.setdefault((name, producers), []).append(await rate(make, producers))
    print(f"{'':34} producers   rows/s  spread   p50 ms   p99 ms")
    for (name, producers), rounds in found.items():
        rates = [each for each, _ in rounds]
        times = sorted(t for _, all_times in rounds for t in all_times)
        median = statistics.median(rates)
        spread = (max(rates) - min(rates)) / median
        p50, p99 = (1000 * times[int(len(times) * part)] for part in (0.5, 0.99))
        print(f"{name:34} {producers:9} {median:8.0f} {spread:6.0%} {p50:8.2f} {p99:8.2f}")
    print()
    for group, single in (
        ("SQLite, group", "SQLite, a commit a row"),
        ("PostgreSQL, group", "PostgreSQL, a commit a row"),
        ("journal, intent", "SQLite, a commit a row"),
    ):
        both = [statistics.median(r for r, _ in found[name, 64]) for name in (group, single)]
        print(f"at 64: {group} / {single} = {both[0] / both[1]:.1f}")


async def captures(home: Path, server: Postgres) -> None:
    """Measure the journal, both stores, and the whole way of a create."""
    settings = PostgresSettings(server.create_database("rates"))
    await migrate(settings)
    postgres, sqlite = PostgresStore(settings), SqliteStore(home / "rates.db")
    journal = LocalJournal(JournalFile(home / "worker-0.db"))
    await postgres.open()
    await sqlite.open()
    relayed = LocalJournal(JournalFile(home / "worker-1.db"))
    relay = Relay(relayed, postgres, Metrics(), Terms(60, 86_400, 365))
    running = asyncio.create_task(relay.run())

    def intent() -> Intent:
        one = fresh()
        return Intent("glance", one.project, one.capture, one.image_id, is_assigned=True)

    async def begin() -> None:
        await journal.begin(intent())

    async def whole_create() -> None:
        entry = await relayed.begin(intent())
        image = CreatedImage(entry.intent.image_id or "", "2030-01-01T00:00:00Z", None)
        with relay.expected(entry.id) as delivered:
            await relayed.complete(entry, image)
            await relay.confirmed(delivered)

    async def sqlite_row() -> None:
        await sqlite.put([fresh()])

    async def postgres_row() -> None:
        await postgres.put([fresh()])

    await compare(
        {
            "journal, intent": begin,
            "whole create, store PostgreSQL": whole_create,
            "SQLite, group": Grouped(sqlite).make,
            "SQLite, a commit a row": sqlite_row,
            "PostgreSQL, group": Grouped(postgres).make,
            "PostgreSQL, a commit a row": postgres_row,
        }
    )
    running.cancel()
    for part in (journal, relayed, postgres, sqlite):
        await part.close()


def nightly(rows: int) -> Sequence[ImageRecord]:
    """Return records in the order of time: each night a backup of each instance, in any order."""
    order = random.Random(1)
    instances = [
        (str(uuid.UUID(int=order.getrandbits(128), version=4)), f"{order.getrandbits(128):032x}")
        for _ in range(rows // IMAGES_OF_AN_INSTANCE)
    ]
    projects = [f"{order.getrandbits(128):032x}" for _ in range(PROJECTS)]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = []
    for number in range(rows):
        if number % len(instances) == 0:
            order.shuffle(instances)
        instance, key = instances[number % len(instances)]
        at = start + timedelta(seconds=number // 10)
        high = (int(at.timestamp() * 1000) + number % 10) << 16 | 7 << 12 | order.getrandbits(12)
        image = str(uuid.UUID(int=high << 64 | 2 << 62 | order.getrandbits(62)))
        made.append(record(image, projects[int(key[:8], 16) % PROJECTS], instance, at))
    return made


async def size(server: Postgres, rows: int) -> None:
    """Load records batch by batch, as they would come, and print what they take."""
    database = f"size-{rows}"
    settings = PostgresSettings(server.create_database(database), statement_s=600)
    await migrate(settings)
    store = PostgresStore(settings)
    await store.open()
    step = 1_000_000
    ids: list[str] = []
    for start in range(0, rows, step):
        records = nightly(min(step, rows - start))
        if start:
            records = [
                record(time_ordered_id(), r.project, r.capture.instance.id, r.recorded_at)
                for r in records
                if r.capture is not None
            ]
        ids += [r.image_id for r in records[:: max(1, step // 20_000)]]
        for batch in range(0, len(records), 500):
            await store.put(records[batch : batch + 500])
    server.execute("VACUUM ANALYZE", database)
    names = "image_record image_record_pkey image_record_by_instance image_record_by_project"
    total = 0.0
    for name in names.split():
        mib = int(server.execute(f"SELECT pg_relation_size('{name}')", database)) / 2**20
        total += mib
        print(f"{name:34} {mib / rows * 1e6:7.1f} MiB per million rows")
    print(f"{'in all':34} {total / rows * 1e6:7.1f} MiB per million rows, of {rows}")
    times: list[float] = []
    for _ in range(50):
        asked = random.Random(len(times)).sample(ids, min(1000, len(ids)))
        started = time.perf_counter()
        assert len(await store.owners("glance", asked)) == len(asked)
        times.append(1000 * (time.perf_counter() - started))
    times.sort()
    print(f"owners of {len(asked)} ids: p50 {times[25]:.1f} ms, p98 {times[48]:.1f} ms")
    await store.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the size and look-ups")
    arguments = parser.parse_args()
    server = Postgres(settings={"shared_buffers": "1GB", "max_wal_size": "8GB"})
    server.start()
    try:
        with tempfile.TemporaryDirectory() as home:
            asyncio.run(captures(Path(home), server))
        asyncio.run(size(server, arguments.rows))
    finally:
        server.remove()
    print(json.dumps({"sqlite": sqlite3.sqlite_version, "rounds": ROUNDS, "seconds": SECONDS}))


if __name__ == "__main__":
    main()
