"""Child processes on loopback: started in a session of their own, awaited, always ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.02


class PartFailedError(Exception):
    """A part did not start, or went away while it was awaited; carries the end of its log."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Process:
    """One child process whose output goes to a file."""

    name: str
    argv: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The child's process id. Raises `PartFailedError` if it was never started."""
        if self._child is None:
            raise PartFailedError(f"{self.name} was not started")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the child in a session of its own, so that its helpers end with it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def await_http(self, url: str) -> None:
        """Wait until `url` gives any HTTP answer; raise `PartFailedError` if it never does."""
        self._await(lambda: _answers(url), url)

    def await_port(self, port: int) -> None:
        """Wait until connections to a port are taken; raise `PartFailedError` if they never are."""
        self._await(lambda: _listens(port), f"port {port}")

    def _await(self, is_there: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_there():
            if self._child is None or self._child.poll() is not None:
                raise PartFailedError(f"{self.name} ended while starting:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise PartFailedError(f"{self.name} does not answer {what}:\n{self.tail()}")
            time.sleep(_POLL_S)

    def stop(self) -> int | None:
        """End the child, forcibly if it ignores SIGTERM; return its exit status."""
        if self._child is None:
            return None
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGTERM)
            try:
                self._child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait()
        return self._child.returncode

    def kill(self) -> None:
        """End the child and its helpers at once, as a crash would."""
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def await_end(self) -> int:
        """Wait until the child has ended by itself; return its exit status.

        Raises `PartFailedError` if it doesn't.
        """
        if self._child is None:
            raise PartFailedError(f"{self.name} was not started")
        try:
            return self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise PartFailedError(f"{self.name} does not end:\n{self.tail()}") from None

    def tail(self, lines: int = 25) -> str:
        """Return the last lines of the child's output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
