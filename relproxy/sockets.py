"""The listening sockets, and what is shown on them: had in one place, used by several processes."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relproxy.certificates import Proof, read_proofs
from relproxy.config import Configuration
from relproxy.config_types import socket_path, takes_any_port
from relproxy.errors import ConfigurationError
from relproxy.unix_sockets import SocketFile, bind_unix, file_id, remove

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
    # What the files of each `tls` section held, by its path.
    proofs: Mapping[str, Proof] = field(default_factory=dict)

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
            self.proofs,
        )


@dataclass(frozen=True, slots=True)
class Bound:
    """Sockets, with the addresses that a configuration gave them."""

    sockets: Sockets
    binds: Mapping[str, str]
    admin_bind: str
    # Path of a Unix socket -> its file.
    files: Mapping[str, SocketFile]

    def remove_files(self, others: Bound | None = None) -> None:
        """Remove the socket files, but for those of others; once nobody accepts there."""
        kept = {file.id for file in others.files.values()} if others is not None else set()
        for path, file in self.files.items():
            if file.id not in kept:
                remove(path, file)

    def set_modes(self) -> None:
        """Let those connect to each Unix socket who may by now."""
        for path, file in self.files.items():
            with suppress(OSError):
                Path(path).chmod(int(file.mode, 8))

    def following(self, configuration: Configuration, proofs: Mapping[str, Proof]) -> Bound:
        """Return what another configuration wants: an address that it keeps keeps its socket.

        So nobody who waits there for being accepted is lost. `proofs` are those of the other one.
        Raises `ConfigurationError` if an address can't be bound.
        """
        held = {_place(n, bind): self.sockets.listeners[n] for n, bind in self.binds.items()}
        held[_place("", self.admin_bind)] = self.sockets.admin
        there = {place: sockets for place, sockets in held.items() if self._can_be_found(place)}
        return _bound(configuration, there, proofs)

    def _can_be_found(self, place: str) -> bool:
        """Tell whether clients get to a socket: its file may have been removed."""
        path = socket_path(place)
        return path is None or (path in self.files and file_id(path) == self.files[path].id)


def bind_all(configuration: Configuration) -> Bound:
    """Bind every address of a configuration, and read its certificates.

    Raises `ConfigurationError` if one can't be bound, or won't do.
    """
    return _bound(configuration, {}, read_proofs(configuration))


def _place(name: str, bind: str) -> str:
    """Return what makes two sockets one; a free port is another one for each name."""
    return f"{name} at {bind}" if takes_any_port(bind) else bind


def _bound(
    configuration: Configuration,
    held: Mapping[str, Sequence[socket.socket]],
    proofs: Mapping[str, Proof],
) -> Bound:
    admin = configuration.admin
    files: dict[str, SocketFile] = {}
    with ExitStack() as unless_done:

        def of(name: str, bind: str, mode: str) -> Sequence[socket.socket]:
            path, kept = socket_path(bind), held.get(_place(name, bind))
            if kept is not None:
                sockets: Sequence[socket.socket] = [each.dup() for each in kept]
            else:
                sockets = bind_to(f"listener '{name}'" if name else "admin.bind", bind, mode)
            for each in sockets:
                unless_done.callback(each.close)
                # `dup` makes it block for all who have it: one who accepts nothing stood still.
                each.setblocking(False)
            if path is not None and (own := file_id(path)) is not None:
                files[path] = SocketFile(own, mode)
                if kept is None:
                    unless_done.callback(remove, path, files[path])
            return sockets

        sockets = Sockets(
            {
                each.name: of(each.name, each.bind, each.socket_mode)
                for each in configuration.listeners
            },
            of("", admin.bind, admin.socket_mode),
            proofs,
        )
        unless_done.pop_all()
    binds = {listener.name: listener.bind for listener in configuration.listeners}
    return Bound(sockets, binds, admin.bind, files)


def missing_places(configuration: Configuration) -> Iterator[str]:
    """Yield a sentence for each Unix socket that has no directory to be in."""
    settings = [(f"listeners[{i}].bind", x.bind) for i, x in enumerate(configuration.listeners)]
    for setting, bind in (*settings, ("admin.bind", configuration.admin.bind)):
        path = socket_path(bind)
        if path is not None and not Path(path).parent.is_dir():
            yield f"{setting}: {bind}: there is no directory {Path(path).parent}."


def bind_to(setting: str, bind: str, mode: str = "0660") -> Sequence[socket.socket]:
    """Listen on every address of HOST:PORT, or on unix:/PATH.

    Raises `ConfigurationError` if that can't be done.
    """
    path = socket_path(bind)
    host, _, port = bind.rpartition(":")
    try:
        if path is not None:
            return [bind_unix(path, mode, _BACKLOG)]
        return _listening(host.strip("[]"), int(port))
    except OSError as failure:
        in_use = failure.errno == errno.EADDRINUSE
        taken = (
            "the port is in use" if path is None else "somebody listens there, or it is no socket"
        )
        why = taken if in_use else failure.strerror or str(failure)
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
