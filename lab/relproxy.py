"""A relproxy of this tree, as a process of its own, or as several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.processes import Process, free_port


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of relproxy's that ends by itself."""
    argv = [sys.executable, "-m", "relproxy", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@dataclass
class Relproxy:
    """One relproxy: `start` it, use `url` and `admin_url`, `stop` it. Its files live in `home`.

    `settings` is everything of the configuration but the listeners, the admin listener and the
    store.
    """

    home: Path
    settings: Mapping[str, Any]
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    _process: Process | None = None

    @property
    def url(self) -> str:
        """The proxy listener."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        """The admin listener."""
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def pid(self) -> int:
        """The process id of the running relproxy."""
        if self._process is None:
            raise RuntimeError("relproxy was not started")
        return self._process.pid

    @property
    def log(self) -> Path:
        """What it writes to its standard error."""
        return self.home / "relproxy.log"

    @property
    def configuration(self) -> Path:
        """The file that it reads."""
        return self.home / "relproxy.yaml"

    def reload(self, **changed: object) -> None:
        """Change some settings, and have it read its file anew; return at once."""
        whole = {**self._configuration(), **changed}
        self.configuration.write_text(yaml.safe_dump(whole))
        os.kill(self.pid, signal.SIGHUP)

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.is_running

    def write(self) -> None:
        """Write the configuration."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.configuration.write_text(yaml.safe_dump(self._configuration()))

    def start(self) -> None:
        """Write the configuration, start, and wait until it is alive."""
        self.write()
        argv = [sys.executable, "-m", "relproxy", "serve", "--config", str(self.configuration)]
        if self.workers > 1:
            argv += ["--workers", str(self.workers)]
        self._process = Process("relproxy", argv, self.log, self.environment)
        self._process.start()
        self._process.await_http(f"{self.admin_url}/healthz")

    def stop(self) -> int | None:
        """End relproxy and return its exit status."""
        return self._process.stop() if self._process is not None else None

    def kill(self) -> None:
        """End relproxy as a crash would, and every process of it."""
        if self._process is not None:
            self._process.kill()

    def await_end(self) -> int:
        """Wait until relproxy has ended by itself; return its exit status, negative for a signal.

        Raises `PartFailedError` if it doesn't.
        """
        if self._process is None:
            raise RuntimeError("relproxy was not started")
        return self._process.await_end()

    def _configuration(self) -> dict[str, Any]:
        return {
            "listeners": [{"name": "public", "bind": f"127.0.0.1:{self.port}"}],
            "admin": {"bind": f"127.0.0.1:{self.admin_port}"},
            # The disk of a test is whatever it runs on.
            "journal": {"directory": str(self.home / "journal"), "allow_volatile": True},
            "store": {"path": str(self.home / "relproxy.db")},
            **self.settings,
            # No balancer stands before it.
            "timeouts": {"notice_s": 0, **self.settings.get("timeouts", {})},
        }
