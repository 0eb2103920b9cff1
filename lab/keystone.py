"""An unchanged Keystone from the package index, on loopback, with SQLite."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import venvs
from lab.processes import Process, free_port

PASSWORD = "swordfish"  # noqa: S105 - of a Keystone that lives for a test

# bcrypt at its lowest cost: a log-in takes milliseconds.
_CONFIGURATION = """\
[DEFAULT]
log_file = {home}/keystone.log
[database]
connection = sqlite:///{home}/keystone.db
[identity]
password_hash_rounds = 4
[fernet_tokens]
key_repository = {home}/fernet-keys
[credential]
key_repository = {home}/credential-keys
"""


_GUNICORN = """\
wsgi_app = "keystone.wsgi.api:application"
bind = "127.0.0.1:{port}"
worker_class = "gthread"
threads = 2
graceful_timeout = 3
"""


@dataclass
class Keystone:
    """One Keystone with the user `admin` of the project `admin`: `start` it, `stop` it."""

    home: Path
    port: int = field(default_factory=free_port)
    _process: Process | None = None

    @property
    def auth_url(self) -> str:
        """The Identity API, with its version."""
        return f"http://127.0.0.1:{self.port}/v3"

    def start(self) -> None:
        """Install, configure, create the database, start, and wait for the first answer."""
        environment = venvs.ensure("keystone")
        if not (self.home / "keystone.conf").exists():
            self._configure(environment)
        self._process = Process(
            "keystone",
            # Keystone reads the command line of whoever runs it, so there is nothing in it.
            [str(environment / "bin" / "gunicorn")],
            self.home / "gunicorn.log",
            {
                "OS_KEYSTONE_CONFIG_DIR": str(self.home),
                "GUNICORN_CMD_ARGS": f"--config {self.home / 'gunicorn.conf.py'}",
            },
        )
        self._process.start()
        self._process.await_http(self.auth_url)

    def stop(self) -> None:
        """End Keystone."""
        if self._process is not None:
            self._process.stop()

    def token(self) -> str:
        """Log in as `admin`."""
        domain = {"name": "Default"}
        user = {"name": "admin", "domain": domain, "password": PASSWORD}
        body: dict[str, Any] = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": "admin", "domain": domain}},
            }
        }
        request = urllib.request.Request(
            f"{self.auth_url}/auth/tokens",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.headers["X-Subject-Token"])

    def _configure(self, environment: Path) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "gunicorn.conf.py").write_text(_GUNICORN.format(port=self.port))
        (self.home / "keystone.conf").write_text(_CONFIGURATION.format(home=self.home))
        manage = [str(environment / "bin" / "keystone-manage"), "--config-dir", str(self.home)]
        # Asked for when root sets up; the keys are those of whoever runs Keystone.
        owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
        urls = [
            argument
            for interface in ("admin", "internal", "public")
            for argument in (f"--bootstrap-{interface}-url", self.auth_url)
        ]
        for command in (
            ["db_sync"],
            ["fernet_setup", *owner],
            ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "lab", *urls],
        ):
            subprocess.run([*manage, *command], check=True, capture_output=True)
