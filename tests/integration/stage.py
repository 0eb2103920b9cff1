"""A real relproxy process, a wayward registry behind it, and what the process holds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.relproxy import Relproxy
from tests.integration.conftest import EAST, EVENTUALLY_S, LOOPBACK
from tests.integration.holdings import Ports, held_by, resident_bytes, workers_of
from tests.integration.recorder import exchanged
from tests.integration.wayward import Wayward

# What is seen from inside: each is what it was when nothing is under way.
TOLD = (
    *("relproxy_tasks", "relproxy_requests_in_progress", "relproxy_transfers_in_progress"),
    *("relproxy_client_connections", "relproxy_upstream_connections", "relproxy_journal_in_doubt"),
)
# These end by themselves, if late: of nobody's connections any is left.
PASSING = ("client", "registry", "nobody", "admin")
_METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_LOOK_S = 0.02


class Wire:
    """A client's connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def rest(self) -> bytes:
        """Read until the other side ends it, however it does."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(2**16):
                got = got + piece if len(got) < 2**16 else got
        return got

    async def part(self) -> bytes:
        """Read the head of an answer, or whatever comes instead."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""


def message(method: str, target: str, *, ail: str = "", token: str = "", body: str = "") -> bytes:
    """Return a request, which closes its connection."""
    fields = {"Host": "a", "X-Project-Id": "alice", "X-Roles": "member", "X-Ail": ail}
    fields |= {"X-Token": token, "Connection": "close"}
    if body:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n{body}".encode()


LIST, CREATE = ("GET", "/v2/images?limit=3"), ("POST", "/v2/images")
DOWNLOAD, UPLOAD = ("GET", "/v2/images/x/file"), ("PUT", "/v2/images/x/file")


def named() -> str:
    """Return a name for one request."""
    return str(uuid.uuid4())


@dataclass
class Stage:
    """A running relproxy; `registry` is what stands behind it in one test."""

    relproxy: Relproxy
    ports: Ports
    registry_port: int
    # Of an endpoint that is away, until a test takes it.
    back_port: int
    is_taken: asyncio.Lock = field(init=False)
    registry: Wayward = field(default_factory=Wayward)

    @contextlib.asynccontextmanager
    async def connected(self, *, takes_little: bool = False) -> AsyncIterator[Wire]:
        """Connect a client; with `takes_little` its system takes next to nothing for it."""
        taken = socket.socket()
        if takes_little:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        taken.setblocking(False)
        await asyncio.get_running_loop().sock_connect(taken, ("127.0.0.1", self.relproxy.port))
        reader, writer = await asyncio.open_connection(sock=taken, limit=2**12)
        try:
            yield Wire(reader, writer)
        finally:
            writer.transport.abort()

    async def ask(self, request: bytes) -> bytes:
        """Send a request, and return what is answered, or a part of it if it breaks off."""
        async with self.connected() as wire:
            wire.writer.write(request)
            return await wire.rest()

    @property
    def pids(self) -> tuple[int, ...]:
        return workers_of(self.relproxy.pid)

    async def metrics(self) -> Mapping[str, float]:
        """Return what /metrics shows, the series of a name summed up."""
        text = (await exchanged(self.relproxy.admin_url, _METRICS)).decode()
        found: Counter[str] = Counter()
        for line in text.partition("\r\n\r\n")[2].splitlines():
            if line.startswith("relproxy_"):
                name = line.partition("{")[0].partition(" ")[0]
                found[name] += float(line.rpartition(" ")[2])  # type: ignore[assignment]
        return {name: float(value) for name, value in found.items()}

    async def held(self) -> Counter[str]:
        """Return all that is held, from outside and from inside."""
        told = await self.metrics()
        # Of a worker that isn't asked itself the tasks are those of some seconds ago.
        names = TOLD if self.relproxy.workers == 1 else TOLD[1:]
        seen: Counter[str] = Counter({name: int(told[name]) for name in names})
        return seen + await asyncio.to_thread(held_by, self.pids, self.ports)

    async def quiet(self) -> Counter[str]:
        """Wait until nothing is under way, and return what is held then."""
        deadline = time.monotonic() + EVENTUALLY_S
        before: Counter[str] = Counter()
        while (held := await self.held()) != before or any(held[each] for each in PASSING):
            assert time.monotonic() < deadline, f"never quiet: {held}"
            before = held
            await asyncio.sleep(_LOOK_S)
        return held

    async def returns_to(self, baseline: Counter[str]) -> None:
        """Wait until no more is held than before."""
        deadline = time.monotonic() + EVENTUALLY_S
        while excess := (await self.held()) - baseline:
            assert time.monotonic() < deadline, f"still held: {dict(excess)}"
            await asyncio.sleep(_LOOK_S)

    def memory(self) -> int:
        """Return the bytes in use of all processes."""
        return sum(map(resident_bytes, self.pids))


def registry(name: str, *urls: str, **settings: Any) -> dict[str, Any]:
    """Return the settings of a registry that believes relproxy about callers."""
    return {
        "name": name,
        "tenancy": "registry",
        "upstream_identity": "headers",
        "endpoints": list(urls),
        "health_check": {"path": None},
        **settings,
    }


@contextlib.contextmanager
def staged(home: Path, *, workers: int = 1, **settings: Any) -> Iterator[Stage]:
    """Run a relproxy process; the ports of its registries are free, until a test takes them."""
    with contextlib.ExitStack() as held:
        yield held.enter_context(_running(home, held, workers, settings))


def _reserved(held: contextlib.ExitStack) -> int:
    """Return a port that nobody gets, but who asks for it; nobody listens there."""
    reserved = held.enter_context(socket.socket())
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    port: int = reserved.getsockname()[1]
    return port


@contextlib.contextmanager
def _running(
    home: Path, held: contextlib.ExitStack, workers: int, settings: Mapping[str, Any]
) -> Iterator[Stage]:
    port, gone, back = (_reserved(held) for _ in range(3))
    url = f"http://127.0.0.1:{port}"
    registries = [
        registry("narrow", url, concurrency={"requests": 1, "transfers": 1}),
        registry("gone", f"http://127.0.0.1:{gone}"),
        registry("back", url, f"http://127.0.0.1:{back}", ejection={"base_s": 0.05, "max_s": 0.1}),
        registry("wayward", url),
    ]
    names = [each["name"] for each in registries]
    routes = [
        {"name": name, "registry": name, "path_prefix": f"/{name}", "installation": "east"}
        for name in names[:-1]
    ]
    whole = {
        "identity": {"trusted_networks": LOOPBACK},
        "trusted_sources": {"networks": LOOPBACK},
        "installations": [{"name": "east", "uuid": EAST}],
        "registries": registries,
        "routes": [*routes, {"name": "all", "registry": "wayward", "installation": "east"}],
        "log": {"access": False},
        # What a busy registry never got is given up before a test is.
        "journal": {
            "directory": str(home / "journal"),
            "allow_volatile": True,
            "abandon_after_s": 3,
        },
        **settings,
    }
    whole["timeouts"] = {
        **dict.fromkeys(("head_s", "read_s", "write_s"), 1),
        "keepalive_s": 0.1,
        "shutdown_s": 1,
        "connect_s": 2,
        **settings.get("timeouts", {}),
    }
    relproxy = Relproxy(home, whole, workers=workers)
    ports = Ports(
        {relproxy.port: "client", relproxy.admin_port: "admin"},
        {port: "registry", back: "registry", gone: "registry"},
    )
    relproxy.start()
    try:
        yield Stage(relproxy, ports, port, back)
    finally:
        relproxy.stop()
