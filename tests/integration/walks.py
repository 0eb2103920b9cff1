"""`relproxy import` and `relproxy reconcile` as processes, and what they leave behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from lab.processes import free_port
from lab.stand_in import StandIn
from relproxy.model import Change, ImageRecord
from relproxy.store.sqlite import SqliteStore
from tests.integration.conftest import EAST, LOOPBACK, registry

# So fast that nobody waits.
FAST = ("--rate", "100000")
CREATED = "2024-05-01T12:00:00Z"


@dataclass(frozen=True)
class Ran:
    """How a command ended: its status (negative for a signal), what it said, MiB at its peak."""

    status: int
    out: str
    err: str
    peak_mib: float
    took_s: float

    @property
    def documents(self) -> list[dict[str, Any]]:
        """What was said with --json, but for the last line."""
        return [json.loads(line) for line in self.out.splitlines()][:-1]

    @property
    def counts(self) -> dict[str, int]:
        """How many images had which outcome."""
        return dict(json.loads(self.out.splitlines()[-1])["counts"])

    @property
    def images(self) -> int:
        return int(json.loads(self.out.splitlines()[-1])["images"])

    def found(self, outcome: str) -> set[str]:
        return {d["image_id"] for d in self.documents if d["finding"] == outcome}


@dataclass
class Site:
    """One host: its configuration, its journals, its store, before one registry."""

    home: Path
    glance: StandIn
    tenancy: str
    dialect: str = "glance-v2"
    settings: dict[str, Any] = field(default_factory=dict)
    journal: Path = field(init=False)
    store: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        self.journal, self.store = self.home / "journal", self.home / "relproxy.db"

    @property
    def file(self) -> Path:
        whole = {
            "listeners": [{"name": "public", "bind": f"127.0.0.1:{free_port()}"}],
            "identity": {"trusted_networks": LOOPBACK},
            "journal": {"directory": str(self.journal), "allow_volatile": True},
            "store": {"path": str(self.store)},
            "installations": [{"name": "east", "uuid": EAST}],
            "registries": [registry(self.glance.url, self.tenancy, dialect=self.dialect)],
            "routes": [{"name": "all", "registry": "glance", "installation": "east"}],
            **self.settings,
        }
        file = self.home / "relproxy.yaml"
        file.write_text(yaml.safe_dump(whole))
        return file

    def begin(self, command: str, *arguments: str, failpoint: str = "") -> Running:
        """Start a command."""
        argv = [sys.executable, "-m", "relproxy", command, "--config", str(self.file)]
        argv += ["--registry", "glance", *arguments]
        return Running(argv, self.home, failpoint)

    async def run(self, command: str, *arguments: str, failpoint: str = "") -> Ran:
        """Run a command to its end, as fast as it can."""
        running = self.begin(command, *FAST, *arguments, failpoint=failpoint)
        return await asyncio.to_thread(running.end)

    async def records(self) -> dict[str, ImageRecord]:
        """Return image id -> record; there is one of each."""
        opened = SqliteStore(self.store)
        await opened.open()
        held = [kept.record async for batch in opened.walk(None) for kept in batch]
        await opened.close()
        assert max(Counter(record.image_id for record in held).values(), default=1) == 1
        return {record.image_id: record for record in held}

    async def put(self, *changes: Change) -> None:
        opened = SqliteStore(self.store)
        await opened.open()
        await opened.put(changes)
        await opened.close()

    def owners(self, owners: Mapping[str, str] | str) -> str:
        """Write a list of owners, and return its name."""
        file = self.home / "owners.csv"
        if not isinstance(owners, str):
            owners = "image_id,project\n" + "".join(f"{i},{p}\n" for i, p in owners.items())
        file.write_text(owners)
        return str(file)


# What a process took at its peak is counted from the fork on, when it is the test's own size: so
# the command is the child of something small.
_MEASURING = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[2:], check=False).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], "w").write(f"{status} {peak}")
"""


class Running:
    """A command under way."""

    def __init__(self, argv: list[str], home: Path, failpoint: str) -> None:
        made = str(uuid.uuid4())
        self._out, self._err, self._end = (home / f"{made}.{end}" for end in ("out", "err", "end"))
        self._begun = time.monotonic()
        measured = [sys.executable, "-S", "-c", _MEASURING, str(self._end), *argv]
        with self._out.open("w") as out, self._err.open("w") as err:
            environment = {**os.environ, "RELPROXY_FAILPOINT": failpoint}
            self._process = subprocess.Popen(measured, stdout=out, stderr=err, env=environment)

    def end(self) -> Ran:
        """Wait for its end."""
        self._process.wait()
        took_s = time.monotonic() - self._begun
        status, peak_kib = map(int, self._end.read_text().split())
        out, err = self._out.read_text(), self._err.read_text()
        return Ran(status, out, err, peak_kib / 1024, took_s)


def recorded(image: Mapping[str, Any], project: str, **fields: Any) -> ImageRecord:
    """Return the record of an image that was created through relproxy long ago."""
    at = datetime(2024, 5, 1, 12, tzinfo=UTC)
    whole = {"capture": None, "recorded_at": at, **fields}
    return ImageRecord("glance", image["id"], image["created_at"], project, **whole)
