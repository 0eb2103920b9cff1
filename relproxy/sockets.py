"""The listening sockets: bound in one place, accepted on by one process or by several."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from relproxy.config import Configuration
from relproxy.errors import ConfigurationError

# Connections that wait for a worker to accept them: as many as come at once when a balancer has
# changed its mind. Of more the system drops the first packet, and they come a second later. It
# takes no more than net.core.somaxconn.
_BACKLOG = 1024
# What one of several addresses of a name may fail with, such as IPv6's of localhost.
_ABSENT = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class Sockets:
    """Those of a whole configuration: a name has one for each of its addresses."""

    listeners: Mapping[str, Sequence[socket.socket]]
    admin: Sequence[socket.socket]

    def close(self) -> None:
        """Close this process's own hold on them; who else has them goes on accepting."""
        for sockets in (*self.listeners.values(), self.admin):
            for each in sockets:
                each.close()

    def duplicate(self) -> Sockets:
        """Return another hold on the same sockets, to be closed by itself."""
        return Sockets(
            {name: [each.dup() for each in held] for name, held in self.listeners.items()},
            [each.dup() for each in self.admin],
        )


@dataclass(frozen=True, slots=True)
class Bound:
    """Sockets, with the addresses that a configuration gave them."""

    sockets: Sockets
    binds: Mapping[str, str]
    admin_bind: str

    def following(self, configuration: Configuration) -> Bound:
        """Return what another configuration wants: an address that it keeps keeps its socket.

        So nobody who waits there for being accepted is lost. Raises `ConfigurationError` if an
        address can't be bound.
        """
        held = {_place(n, bind): self.sockets.listeners[n] for n, bind in self.binds.items()}
        return _bound(configuration, {**held, _place("", self.admin_bind): self.sockets.admin})


def bind_all(configuration: Configuration) -> Bound:
    """Bind every address of a configuration; raises `ConfigurationError` if one can't be bound."""
    return _bound(configuration, {})


def _place(name: str, bind: str) -> str:
    """Return what makes two sockets one; a free port is another one for each name."""
    return f"{name} at {bind}" if bind.endswith(":0") else bind


def _bound(configuration: Configuration, held: Mapping[str, Sequence[socket.socket]]) -> Bound:
    def of(name: str, bind: str) -> Sequence[socket.socket]:
        if (kept := held.get(_place(name, bind))) is not None:
            return [each.dup() for each in kept]
        new = bind_to(f"listener '{name}'" if name else "admin.bind", bind)
        for each in new:
            # `dup` would make it block for all who have it: one who accepts nothing stood still.
            each.setblocking(False)
        return new

    listeners: dict[str, Sequence[socket.socket]] = {}
    sockets = Sockets(listeners, of("", configuration.admin.bind))
    with ExitStack() as unless_done:
        unless_done.callback(sockets.close)
        for listener in configuration.listeners:
            listeners[listener.name] = of(listener.name, listener.bind)
        unless_done.pop_all()
    binds = {listener.name: listener.bind for listener in configuration.listeners}
    return Bound(sockets, binds, configuration.admin.bind)


def bind_to(setting: str, bind: str) -> Sequence[socket.socket]:
    """Listen on every address of HOST:PORT; raises `ConfigurationError` if that can't be done."""
    host, _, port = bind.rpartition(":")
    try:
        return _listening(host.strip("[]"), int(port))
    except OSError as failure:
        in_use = failure.errno == errno.EADDRINUSE
        why = "the port is in use" if in_use else failure.strerror or str(failure)
        raise ConfigurationError((f"{setting}: can't listen on {bind}: {why}.",)) from failure


def _listening(host: str, port: int) -> Sequence[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    with ExitStack() as unless_done:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            try:
                sockets.append(unless_done.enter_context(_one(family, address)))
            except OSError as failure:
                if failure.errno not in _ABSENT:
                    raise
                absent = failure
        if absent is not None and not sockets:
            raise absent
        unless_done.pop_all()
    return sockets


def _one(family: int, address: tuple[Any, ...]) -> socket.socket:
    with ExitStack() as unless_done:
        made = unless_done.enter_context(socket.socket(family, socket.SOCK_STREAM))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Its IPv4 twin is an address of its own.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(_BACKLOG)
        unless_done.pop_all()
    return made
