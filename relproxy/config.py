"""Every setting: its type, its default, and why the default is what it is.

A `Configuration` is frozen and whole: what reads it need not check anything again. Reading a file,
and finding everything that is wrong with it, is `config_file.py`. config/relproxy.yaml shows each
setting; a test keeps the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from relproxy.config_admin import Admin
from relproxy.config_concurrency import AtOnce, Concurrency
from relproxy.config_endpoints import Ejection, HealthCheck
from relproxy.config_forwarding import Forwarding
from relproxy.config_identity import Credentials, Fronts, Identity, TrustedSources
from relproxy.config_listeners import Listener
from relproxy.config_types import (
    Authority,
    Count,
    Endpoint,
    HeaderName,
    HostName,
    InstallationUUID,
    LongSeconds,
    Name,
    Network,
    PathPrefix,
    PostgresDsn,
    Seconds,
    SecondsOrNone,
    Section,
)
from relproxy.config_upstream_tls import UpstreamTls
from relproxy.model import Tenancy


class MetadataHeaderNames(Section):
    """The two headers that carry the tuple; stripped from every request, whoever sent them."""

    installation: HeaderName = Field(
        default="X-Nova-Installation-UUID",
        description="Header with the installation's UUID.",
    )
    instance: HeaderName = Field(
        default="X-Nova-Instance-ID", description="Header with the instance's id."
    )

    @model_validator(mode="after")
    def _are_two(self) -> Self:
        if self.installation.lower() == self.instance.lower():
            raise ValueError("installation and instance have to be two headers")
        return self


class Store(Section):
    """Where records are kept."""

    driver: Literal["sqlite", "postgres"] = Field(
        default="sqlite",
        description="sqlite: one file, for the relproxies of one host; postgres: for any number.",
    )
    path: Path = Field(
        default=Path("/var/lib/relproxy/relproxy.db"),
        description="The SQLite file, on a disk of its host's own; not on tmpfs.",
    )
    dsn: PostgresDsn | None = Field(
        default=None,
        description="postgresql://USER@HOST:PORT,HOST:PORT/DATABASE: of several hosts the one that "
        "takes writes is used.",
    )
    password_file: Path | None = Field(
        default=None, description="A file that holds the password, read at each start."
    )
    connections: Annotated[int, Field(ge=1, le=1000, strict=True)] = Field(
        default=8,
        description="Connections to PostgreSQL of one worker at most: each is busy for about a "
        "millisecond.",
    )
    connect_s: Seconds = Field(
        default=5, description="To connect to PostgreSQL, or to wait for a free connection."
    )
    statement_s: Seconds = Field(
        default=10,
        description="For one statement: then it is given up and its connection is closed.",
    )
    confirm_wait_s: Seconds = Field(
        default=2,
        description="How long a create's answer waits for the store to have its record; then the "
        "journal carries it, and the answer says X-Relproxy-Record: pending.",
    )
    keep_deleted_days: Annotated[int, Field(ge=1, le=36_500, strict=True)] = Field(
        default=365,
        description="Days that the record of an image that was deleted through relproxy stays.",
    )


class Journal(Section):
    """Where creates are written down before they leave, so that none is lost."""

    directory: Path = Field(
        default=Path("/var/lib/relproxy/journal"),
        description="A directory of this host's own, on a disk that outlives the process.",
    )
    allow_volatile: bool = Field(
        default=False,
        description="Whether it may be on tmpfs or in a container's own layer: its entries are "
        "then lost with the machine's memory or the container.",
    )
    when_unwritable: Literal["refuse", "forward"] = Field(
        default="refuse",
        description="What happens to a create that needs a record while the journal can't be "
        "written: refuse it with 503, or forward it unrecorded and count it.",
    )
    keep_delivered_s: LongSeconds = Field(
        default=86_400,
        description="How long an entry stays after the store has taken it: for longer than a "
        "standby of the store can be behind when it is promoted.",
    )
    abandon_after_s: LongSeconds = Field(
        default=900,
        description="Age at which an entry in doubt is given up when the registry has no such "
        "image: longer than the registry can still be at work on a create.",
    )


class Installation(Section):
    """One Nova."""

    name: Name = Field(description="What routes call this installation.")
    uuid: InstallationUUID = Field(description="Its nova_installation_uuid; it never changes.")


class Registry(Section):
    """One image registry."""

    name: Name = Field(description="What routes, records and metrics call it; records keep it.")
    dialect: Literal["glance-v2", "glance-v1", "glance-registry"] = Field(
        default="glance-v2", description="The image API by which it is spoken to."
    )
    tenancy: Tenancy = Field(
        description="registry: it authenticates callers itself; relproxy: it doesn't."
    )
    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1,
        description="Its addresses, one or more: http://HOST:PORT, https://HOST:PORT, or "
        "unix:/PATH.",
    )
    tls: UpstreamTls = UpstreamTls()
    host: Authority | None = Field(
        default=None,
        description="HOST or HOST:PORT that it is asked for; left out, the one that the client "
        "named: Glance makes its links of it.",
    )
    ejection: Ejection = Ejection()
    health_check: HealthCheck = HealthCheck()
    sticky_staging: bool = Field(
        default=False,
        description="Whether an image's stage, import and deletion go to the same endpoint: for a "
        "Glance that stages on a local disk and has no worker_self_reference_url.",
    )
    concurrency: AtOnce = AtOnce()
    upstream_identity: Literal["token", "headers"] = Field(
        default="token",
        description="token: the client's own token goes on; headers: for a pipeline that trusts "
        "its front, relproxy says who the caller is.",
    )
    credentials: Credentials | None = Field(
        default=None,
        description="For a registry that wants a token: relproxy's own. Without, its creates in "
        "doubt wait for a person.",
    )
    chosen_image_ids: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="Whether a non-admin may choose an image's id in tenancy relproxy: the answer "
        "to a taken one tells that a foreign image exists.",
    )
    assign_image_ids: bool = Field(
        default=True,
        description="Whether relproxy chooses the id of an image that it will record and whose "
        "create names none, so that a create in doubt can be asked for.",
    )
    allows_anonymous: bool = Field(
        default=False,
        description="Whether a registry of tenancy registry may list images without credentials; "
        "if it does and may not, it isn't ready: its tenancy is probably relproxy.",
    )
    default_limit: Count = Field(
        default=25, description="Images of a page when the client names no limit (Glance: 25)."
    )
    max_limit: Count = Field(
        default=1000, description="Images of a page at most (Glance's api_limit_max: 1000)."
    )

    @property
    def has_tls(self) -> bool:
        """Tell whether any of its endpoints is asked over TLS."""
        return any(url.startswith("https://") for url in self.endpoints)


class Route(Section):
    """Which requests go to which registry; the first one that matches is taken."""

    name: Name = Field(description="What metrics and logs call this route.")
    host: HostName | None = Field(
        default=None, description="Host header, without its port; any host if left out."
    )
    path_prefix: PathPrefix | None = Field(
        default=None, description="Leading path, taken off before the registry sees it."
    )
    listener: str | None = Field(default=None, description="Name of the listener it came in on.")
    network: Network | None = Field(
        default=None, description="Network that the source address is in."
    )
    registry: str = Field(description="Name of the registry that the request goes to.")
    installation: str | None = Field(
        default=None, description="Name of the installation whose Nova uses this route."
    )
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce",
        description="shadow: what would be hidden or refused is counted and logged, and nothing of "
        "the traffic is changed.",
    )


class Limits(Section):
    """What one request may cost."""

    max_page_bytes: Count = Field(
        default=32 * 1024**2,
        description="Bytes of one upstream list page, decoded: 1000 images of 30 KB each.",
    )
    max_unsent_bytes: Count = Field(
        default=256 * 1024**2,
        description="Bytes of answers of more than 64 KiB that one worker holds until their "
        "clients have taken them; a project has a quarter: two of the largest pages.",
    )
    max_request_body_bytes: Count = Field(
        default=1024**2,
        description="Bytes of a create, PATCH or import body: Glance's own are a few KB.",
    )
    max_upstream_pages: Count = Field(
        default=40,
        description="Upstream requests for one list before it is refused with 503.",
    )
    max_upstream_target_bytes: Annotated[int, Field(ge=1000, strict=True)] = Field(
        default=8000,
        description="Bytes of a path and query sent to a registry: gunicorn takes 8190, uWSGI as "
        "much as its buffer-size.",
    )


class Timeouts(Section):
    """How long a peer may take, in seconds."""

    proxy_header_s: Seconds = Field(
        default=5,
        description="For a PROXY protocol header to arrive whole: a front sends it at once, and a "
        "lost packet is sent again after 3 s at most.",
    )
    tls_handshake_s: Seconds = Field(
        default=10,
        description="For a client to finish a TLS handshake: two round trips, and a lost packet "
        "in each is sent again after 3 s at most.",
    )
    request_head_s: Seconds = Field(
        default=60,
        description="For the head of a request to arrive whole, from its first byte: a few KB. "
        "nginx waits as long.",
    )
    request_body_s: Seconds = Field(
        default=300,
        description="Between two pieces of a request's body: whoever uploads from a pipe may wait "
        "for its source. A slow link sends some all the time.",
    )
    client_keepalive_s: Seconds = Field(
        default=75,
        description="For an idle connection of a client to be kept: longer than a front keeps its "
        "own (nginx: 60 s), or its request meets a connection that is being closed.",
    )
    connect_s: Seconds = Field(
        default=5,
        description="To connect to an endpoint, TLS included: a LAN answers in milliseconds.",
    )
    keepalive_s: Seconds = Field(
        default=1.5,
        description="For an idle connection to a registry to be kept: less than the registry "
        "keeps it (gunicorn: 2 s), or a request meets a connection that is being closed.",
    )
    head_s: Seconds = Field(
        default=60,
        description="For a registry to begin an answer, connecting included: a create, an import "
        "or a long list takes it seconds. Not where image data is moved or deleted.",
    )
    read_s: Seconds = Field(
        default=300,
        description="Between two reads from a registry, or until it takes more of an upload. Also "
        "to begin an answer to an upload, a download, a deletion: a slow store takes minutes.",
    )
    write_s: Seconds = Field(
        default=300,
        description="For a client that takes no byte of its answer: it is gone then. A slow link "
        "takes some all the time.",
    )
    probe_s: Seconds = Field(
        default=3,
        description="For /readyz, a health check, or `relproxy explain`, to ask a registry: "
        "shorter than a probe's own timeout.",
    )
    shadow_s: Seconds = Field(
        default=2,
        description="For relproxy's own judging of a request in shadow: then it goes on unjudged.",
    )
    notice_s: SecondsOrNone = Field(
        default=7,
        description="From SIGTERM, and red readiness, until connections are refused: HAProxy's own "
        "defaults (every 2 s, three times) notice within 6. So long idle connections stay open.",
    )
    shutdown_s: Seconds = Field(
        default=30, description="For running requests to finish after that."
    )
    hang_s: Seconds = Field(
        default=30,
        description="For a worker to say nothing before it is killed and followed: it does each "
        "second, and the longest list is judged in a few.",
    )


class Log(Section):
    """What is written to standard error, one JSON object a line."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least severe level that is written."
    )
    access: bool = Field(
        default=True,
        strict=True,
        description="Whether a line is written for each request, whatever the level.",
    )
    spans: bool = Field(
        default=False,
        strict=True,
        description="Whether a span is sent for each request of a trace that is kept; needs the "
        "extra otel. OTEL_EXPORTER_OTLP_ENDPOINT says where to.",
    )


class Configuration(Section):
    """The whole file."""

    listeners: tuple[Listener, ...] = Field(min_length=1)
    admin: Admin = Admin()
    fronts: Fronts = Fronts()
    identity: Identity = Identity()
    trusted_sources: TrustedSources = TrustedSources()
    metadata_headers: MetadataHeaderNames = MetadataHeaderNames()
    journal: Journal = Journal()
    store: Store
    installations: tuple[Installation, ...] = ()
    registries: tuple[Registry, ...] = Field(min_length=1)
    routes: tuple[Route, ...] = Field(min_length=1)
    forwarding: Forwarding = Forwarding()
    limits: Limits = Limits()
    concurrency: Concurrency = Concurrency()
    timeouts: Timeouts = Timeouts()
    log: Log = Log()

    def registry_of(self, route: Route) -> Registry:
        """Return the registry that a route names; the file was checked for it."""
        return next(r for r in self.registries if r.name == route.registry)

    def shadow_routes(self, registry: str | None = None) -> tuple[str, ...]:
        """Return the names of the routes in shadow: all, or those to one registry."""
        return tuple(
            route.name
            for route in self.routes
            if route.mode == "shadow" and registry in (None, route.registry)
        )

    def installation_of(self, route: Route) -> str | None:
        """Return the UUID of the installation that a route names, or None."""
        found = (i.uuid for i in self.installations if i.name == route.installation)
        return next(found, None)
