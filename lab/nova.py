"""An unchanged Nova from the package index: its API on loopback, and a compute host of one's own.

The API is Nova's WSGI module, or relproxy's (`relproxy.nova.osapi_compute`), which needs nothing
but this tree on the path. The host (`lab/nova_host.py`) does what an instance's host does with what
the API asks for: it runs Nova's own ComputeManager over Nova's own fake hypervisor.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lab import venvs
from lab.keystone import PASSWORD, Keystone
from lab.processes import PartFailedError, Process, free_port

TREE = Path(__file__).resolve().parent.parent
Entry = Literal["nova.wsgi.osapi_compute", "relproxy.nova.osapi_compute"]

_CONFIGURATION = """\
[DEFAULT]
log_file = {home}/nova.log
state_path = {home}
transport_url = fake:/
host = lab
my_ip = 127.0.0.1
compute_driver = fake.FakeDriver
[database]
connection = sqlite:///{databases}/nova.db
[api_database]
connection = sqlite:///{databases}/nova_api.db
[oslo_concurrency]
lock_path = {home}/locks
[oslo_messaging_notifications]
driver = noop
[glance]
endpoint_override = {image_url}
num_retries = 0
[cinder]
endpoint_template = {volume_url}/v3/%(project_id)s
[keystone_authtoken]
{service}www_authenticate_uri = {auth_url}
[placement]
{service}endpoint_override = http://127.0.0.1:1
[service_user]
send_service_user_token = true
{service}{more}"""

_SERVICE = """\
auth_type = password
auth_url = {auth_url}
username = nova
password = {password}
project_name = nova
user_domain_name = Default
project_domain_name = Default
"""

# gunicorn puts the directory that it is started in before PYTHONPATH.
_GUNICORN = """\
import sys
sys.path.insert(0, "{path}")
wsgi_app = "{entry}:application"
bind = "127.0.0.1:{port}"
worker_class = "gthread"
threads = 2
timeout = 120
graceful_timeout = 1
"""


# What `nova-manage` makes each database by.
_SCHEMAS = {"nova_api.db": ("api_db", "sync"), "nova.db": ("db", "sync", "--local_cell")}


class NovaRefusedError(Exception):
    """A compute host did not do what it was told; carries Nova's own exception in words."""


@dataclass
class Nova:
    """One nova-api: `start` it, use `url`, `stop` it. A twin shares the databases of another.

    `more` is added to its nova.conf. Keystone has to know the user `nova`, of the project `nova`,
    with the role `service`.
    """

    home: Path
    keystone: Keystone
    image_url: str
    entry: Entry = "nova.wsgi.osapi_compute"
    more: str = ""
    volume_url: str = "http://127.0.0.1:1"
    twin_of: Nova | None = None
    # Where its Python finds relproxy.
    path: Path = TREE
    port: int = field(default_factory=free_port)
    _process: Process | None = None

    @property
    def url(self) -> str:
        """The Compute API, with its version."""
        return f"http://127.0.0.1:{self.port}/v2.1"

    @property
    def configuration(self) -> Path:
        """Its nova.conf."""
        return self.home / "nova.conf"

    @property
    def log(self) -> str:
        """What it has written to its log."""
        return (self.home / "nova.log").read_text()

    def configure(self, environment: Path) -> None:
        """Write its configuration, and make its databases if it has its own and none yet."""
        self.home.mkdir(parents=True, exist_ok=True)
        databases = self.home if self.twin_of is None else self.twin_of.home
        service = _SERVICE.format(auth_url=self.keystone.auth_url, password=PASSWORD)
        text = _CONFIGURATION.format(
            home=self.home,
            databases=databases,
            image_url=self.image_url,
            volume_url=self.volume_url,
            auth_url=self.keystone.auth_url,
            service=service,
            more=self.more,
        )
        self.configuration.write_text(text)
        shutil.copyfile(environment / "etc" / "nova" / "api-paste.ini", self.home / "api-paste.ini")
        gunicorn = _GUNICORN.format(entry=self.entry, port=self.port, path=self.path)
        (self.home / "gunicorn.conf.py").write_text(gunicorn)
        if self.twin_of is None:
            self._make_databases(environment)

    def start(self) -> None:
        """Install, configure, start, and wait for the first answer."""
        environment = venvs.ensure("nova")
        self.configure(environment)
        self._process = Process(
            "nova-api",
            # Nova reads the command line of whoever runs it, so there is nothing in it.
            [str(environment / "bin" / "gunicorn")],
            self.home / "gunicorn.log",
            {
                "OS_NOVA_CONFIG_DIR": str(self.home),
                "GUNICORN_CMD_ARGS": f"--config {self.home / 'gunicorn.conf.py'}",
            },
        )
        self._process.start()
        self._process.await_http(f"http://127.0.0.1:{self.port}/")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop()

    def _make_databases(self, environment: Path) -> None:
        for name, verbs in _SCHEMAS.items():
            own = self.home / name
            if not own.exists():
                synced = functools.partial(self._synced, environment, verbs, own)
                shutil.copyfile(venvs.made_once(environment, f"empty-{name}", synced), own)
                # Whoever reads holds up nobody who writes: the host has threads.
                with closing(sqlite3.connect(own)) as database:
                    database.execute("PRAGMA journal_mode=WAL")

    def _synced(self, environment: Path, verbs: Sequence[str], made: Path) -> Path:
        manage = [str(environment / "bin" / "nova-manage"), "--config-dir", str(self.home)]
        subprocess.run([*manage, *verbs], check=True, capture_output=True)
        return made


@dataclass
class Host:
    """The compute host of a Nova and its twins: `start` it, `do` something, `stop` it."""

    nova: Nova
    _child: subprocess.Popen[str] | None = None

    @property
    def log(self) -> Path:
        """What it writes to its standard error."""
        return self.nova.home / "host.log"

    def start(self) -> None:
        """Start it; it makes the cell that its instances are in, if there is none."""
        environment = venvs.ensure("nova")
        argv = [
            str(environment / "bin" / "python"),
            # Not as a file: its directory has a module `nova` of its own.
            *("-m", "lab.nova_host"),
            str(self.nova.configuration),
        ]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": str(TREE)},
            )
        self.do("begin")

    def do(self, verb: str, **arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Have it do something, and return what comes of it.

        Raises `NovaRefusedError` where Nova raised anything.
        """
        if self._child is None or self._child.stdin is None or self._child.stdout is None:
            raise PartFailedError("the host was not started")
        self._child.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise PartFailedError(f"the host has ended:\n{self.log.read_text()[-4000:]}")
        answer: Mapping[str, Any] = json.loads(line)
        if "refused" in answer:
            raise NovaRefusedError(answer["refused"])
        return answer["done"]

    def stop(self) -> None:
        """End it."""
        if self._child is not None:
            # Its input ends, and so does it.
            self._child.communicate()
