"""An unchanged Glance from the package index, on loopback, with SQLite and a file store.

Three pipelines, all made of nothing but Glance's own filters: `noauth`, the one that Glance ships
as its default and that knows no customers; `trusting`, in which Glance believes the identity
headers of the proxy in front of it; and `keystone`, in which it validates tokens itself.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lab import venvs
from lab.keystone import PASSWORD, Keystone
from lab.processes import Process, free_port

Pipeline = Literal["noauth", "trusting", "keystone"]

# One worker and few threads: on SQLite, Glance answers 500 "database is locked" under concurrency.
_THREADS = 4

_CONFIGURATION = """\
[DEFAULT]
enabled_backends = file:file
node_staging_uri = file://{home}/staging
worker_self_reference_url = http://127.0.0.1:{port}
log_file = {home}/glance.log
[database]
connection = sqlite:///{home}/glance.db
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {home}/images
[paste_deploy]
config_file = {home}/glance-api-paste.ini
[oslo_policy]
policy_file = {home}/policy.yaml
"""

_AUTHTOKEN = """\
[keystone_authtoken]
auth_type = password
auth_url = {auth_url}
www_authenticate_uri = {auth_url}
username = admin
password = {password}
project_name = admin
user_domain_name = Default
project_domain_name = Default
"""

# Without Keystone nobody has a role, so Glance's own default policy would refuse everyone.
_POLICY: dict[Pipeline, str] = {"noauth": 'context_is_admin: "@"\n', "trusting": "", "keystone": ""}
_CONTEXT: dict[Pipeline, str] = {
    "noauth": "unauthenticated-context",
    "trusting": "context",
    "keystone": "authtoken context",
}


@dataclass
class Glance:
    """One Glance: `start` it, use `url`, `stop` it. Its files live below `home`."""

    home: Path
    pipeline: Pipeline = "noauth"
    extra_policy: str = ""
    keystone: Keystone | None = None
    # The options by which gunicorn speaks TLS, if it is to; `url` is then asked over that alone.
    tls: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    _process: Process | None = None

    @property
    def url(self) -> str:
        """The endpoint, without a version."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Install, configure, create the database, start, and wait for the first answer."""
        environment = venvs.ensure("glance")
        self.configure(environment)
        self._make_database(environment)
        self._process = Process(
            "glance",
            self._argv(environment),
            self.home / "gunicorn.log",
            {"OS_GLANCE_CONFIG_DIR": str(self.home)},
        )
        self._process.start()
        self._await_answer()

    def _await_answer(self) -> None:
        if self._process is None:
            raise RuntimeError("Glance was not started")
        if self.tls:
            # Who asks here has no certificate to show: that it listens has to do.
            self._process.await_port(self.port)
        else:
            self._process.await_http(f"{self.url}/versions")

    def stop(self) -> None:
        """End Glance."""
        if self._process is not None:
            self._process.stop()

    def configure(self, environment: Path) -> Path:
        """Write its configuration, and return the file."""
        for directory in ("images", "staging"):
            (self.home / directory).mkdir(parents=True, exist_ok=True)
        configuration = _CONFIGURATION.format(home=self.home, port=self.port)
        if self.keystone is not None:
            configuration += _AUTHTOKEN.format(auth_url=self.keystone.auth_url, password=PASSWORD)
        (self.home / "glance-api.conf").write_text(configuration)
        (self.home / "policy.yaml").write_text(_POLICY[self.pipeline] + self.extra_policy)
        paste = (environment / "etc" / "glance" / "glance-api-paste.ini").read_text()
        shipped = "osprofiler unauthenticated-context rootapp"
        wanted = f"osprofiler {_CONTEXT[self.pipeline]} rootapp"
        (self.home / "glance-api-paste.ini").write_text(paste.replace(shipped, wanted))
        return self.home / "glance-api.conf"

    def _make_database(self, environment: Path) -> None:
        """Give this Glance an empty database, if it has none yet."""
        own = self.home / "glance.db"
        if not own.exists():
            empty = venvs.made_once(environment, "empty.db", lambda: self._synced(environment))
            shutil.copyfile(empty, own)

    def _synced(self, environment: Path) -> Path:
        manage = [str(environment / "bin" / "glance-manage"), "--config-dir", str(self.home)]
        subprocess.run([*manage, "db_sync"], check=True, capture_output=True)
        return self.home / "glance.db"

    def _argv(self, environment: Path) -> list[str]:
        return [
            str(environment / "bin" / "gunicorn"),
            "--bind",
            f"127.0.0.1:{self.port}",
            "--workers",
            "1",
            "--worker-class",
            "gthread",
            "--threads",
            str(_THREADS),
            "--timeout",
            "120",
            "--graceful-timeout",
            "3",
            *self.tls,
            "glance.wsgi.api:application",
        ]
