"""An unchanged Keystone from the package index, on loopback, with SQLite."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from lab import venvs
from lab.processes import Process, free_port

PASSWORD = "swordfish"  # noqa: S105 - of a Keystone that lives for a test

_DOMAIN = {"name": "Default"}

# bcrypt at its lowest cost: a log-in takes milliseconds.
_CONFIGURATION = """\
[DEFAULT]
log_file = {home}/keystone.log
[database]
connection = sqlite:///{room}/keystone.db
[identity]
password_hash_rounds = 4
[token]
expiration = {lasts_s}
[fernet_tokens]
key_repository = {room}/fernet-keys
[credential]
key_repository = {room}/credential-keys
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
    """One Keystone with the user `admin` of the project `admin`: `start` it, `stop` it.

    A twin shares the database and the keys of another: their tokens are good at both.
    """

    home: Path
    twin_of: Keystone | None = None
    token_lasts_s: int = 3600
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

    def token(
        self,
        user: str = "admin",
        scope: Mapping[str, Any] | None = None,
    ) -> str:
        """Log in; the scope is the project of the user's name unless another is given."""
        identity = {
            "methods": ["password"],
            "password": {"user": {"name": user, "domain": _DOMAIN, "password": PASSWORD}},
        }
        own = {"project": {"name": user, "domain": _DOMAIN}}
        return self._logged_in(identity, own if scope is None else scope)

    def credential_token(self, credential: Mapping[str, Any]) -> str:
        """Log in with an application credential, as `application_credential` returns one."""
        known = {"id": credential["id"], "secret": credential["secret"]}
        return self._logged_in(
            {"methods": ["application_credential"], "application_credential": known}, None
        )

    def application_credential(
        self, user: str, rules: Sequence[Mapping[str, str]] | None = None
    ) -> dict[str, Any]:
        """Make an application credential of a user's, with access rules if there are any."""
        token = self.token(user)
        shown = self.call("GET", "/auth/tokens", token=token, headers={"X-Subject-Token": token})
        body: dict[str, Any] = {"name": f"of {user} {uuid.uuid4()}"}
        if rules is not None:
            body["access_rules"] = list(rules)
        path = f"/users/{shown['token']['user']['id']}/application_credentials"
        made = self.call("POST", path, {"application_credential": body}, token=token)
        credential: dict[str, Any] = made["application_credential"]
        return credential

    def add_user(self, name: str, *roles: str) -> str:
        """Make a user and a project of one name; return the project's id."""
        admin = self.token()
        project = self.call("POST", "/projects", {"project": {"name": name}}, token=admin)
        project_id: str = project["project"]["id"]
        user = {"name": name, "password": PASSWORD}
        user_id = self.call("POST", "/users", {"user": user}, token=admin)["user"]["id"]
        for role in roles:
            path = f"/projects/{project_id}/users/{user_id}/roles/{self.role(role)}"
            self.call("PUT", path, token=admin)
        return project_id

    def role(self, name: str) -> str:
        """Return the id of a role, which is made if there is none of this name."""
        admin = self.token()
        found = self.call("GET", f"/roles?name={name}", token=admin)["roles"]
        if found:
            return str(found[0]["id"])
        made = self.call("POST", "/roles", {"role": {"name": name}}, token=admin)
        return str(made["role"]["id"])

    def revoke(self, token: str) -> None:
        """End a token before its time."""
        self.call("DELETE", "/auth/tokens", token=token, headers={"X-Subject-Token": token})

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str,
        headers: Mapping[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        """Ask the Identity API, and return the JSON that it answers."""
        _, answer = self._asked(method, path, body, {"X-Auth-Token": token, **(headers or {})})
        return json.loads(answer) if answer else None

    def _logged_in(self, identity: Mapping[str, Any], scope: Mapping[str, Any] | None) -> str:
        auth: dict[str, Any] = {"identity": identity}
        if scope is not None:
            auth["scope"] = scope
        headers, _ = self._asked("POST", "/auth/tokens", {"auth": auth}, {})
        return str(headers["X-Subject-Token"])

    def _asked(
        self, method: str, path: str, body: object, headers: Mapping[str, str]
    ) -> tuple[Message, bytes]:
        request = urllib.request.Request(
            f"{self.auth_url}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", **headers},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers, answer.read()

    def _configure(self, environment: Path) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "gunicorn.conf.py").write_text(_GUNICORN.format(port=self.port))
        room = self.home if self.twin_of is None else self.twin_of.home
        (self.home / "keystone.conf").write_text(
            _CONFIGURATION.format(home=self.home, room=room, lasts_s=self.token_lasts_s)
        )
        if self.twin_of is not None:
            return
        manage = [str(environment / "bin" / "keystone-manage"), "--config-dir", str(self.home)]
        # Asked for when root sets up; the keys are those of whoever runs Keystone.
        owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
        urls = [
            argument
            for interface in ("admin", "internal", "public")
            for argument in (f"--bootstrap-{interface}-url", self.auth_url)
        ]

        def synced() -> Path:
            subprocess.run([*manage, "db_sync"], check=True, capture_output=True)
            return self.home / "keystone.db"

        empty = venvs.made_once(environment, "empty.db", synced)
        if not (self.home / "keystone.db").exists():
            shutil.copyfile(empty, self.home / "keystone.db")
        for command in (
            ["fernet_setup", *owner],
            ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "lab", *urls],
        ):
            subprocess.run([*manage, *command], check=True, capture_output=True)
