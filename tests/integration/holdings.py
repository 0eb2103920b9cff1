"""What a process holds, seen from outside: descriptors by kind, connections by their other end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_LISTENS = "0A"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Ports:
    """Which connections are to be told apart, by a port of one of their ends."""

    own: Mapping[int, str]
    others: Mapping[int, str]


def held_by(pids: Iterable[int], ports: Ports) -> Counter[str]:
    """Return how many descriptors of each kind some processes have open."""
    connections = _connections(ports)
    return Counter(
        kind for pid in pids for link in _links(pid) if (kind := _kind(link, connections))
    )


def workers_of(pid: int) -> tuple[int, ...]:
    """Return a process, and those that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return pid, *map(int, children)


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def _links(pid: int) -> Iterable[str]:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield str(entry.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue


def _kind(link: str, connections: Mapping[str, str]) -> str:
    if link.startswith("socket:"):
        return connections.get(link.removeprefix("socket:[").removesuffix("]"), "other socket")
    return Path(link).name if link.startswith("/") else link


def _connections(ports: Ports) -> Mapping[str, str]:
    """Return what each TCP connection of this machine is, by its inode."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, ours, theirs, state, *_, inode = line.split()[:10]
        here, there = int(ours[-4:], 16), int(theirs[-4:], 16)
        if state == _LISTENS:
            found[inode] = "listener"
        else:
            found[inode] = ports.own.get(here) or ports.others.get(there) or "other connection"
    return found
