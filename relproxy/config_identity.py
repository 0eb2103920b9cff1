"""The settings that say who is believed: about callers, about instances, about relproxy itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from relproxy.config_tls import CertificateName
from relproxy.config_types import Count, KeystoneUrl, Network, Seconds, Section
from relproxy.config_upstream_tls import UpstreamTls


class Fronts(Section):
    """Who is believed about where a request comes from."""

    networks: tuple[Network, ...] = Field(
        default=(),
        description="Networks of the fronts, and of nobody else: whoever is in them can come from "
        "anywhere.",
    )
    header: Literal["none", "forwarded", "x-forwarded-for"] = Field(
        default="none",
        description="The one header that every front sets, or adds itself to; a client's own copy "
        "of another one would pass.",
    )


class Credentials(Section):
    """With what relproxy itself logs in to Keystone: a password, or an application credential."""

    auth_url: KeystoneUrl = Field(
        description="Keystone's Identity API: http://HOST:PORT/v3, or https."
    )
    tls: UpstreamTls = UpstreamTls()
    username: str | None = Field(default=None, description="A user of relproxy's own.")
    user_domain: str = Field(default="Default", description="The domain of the user.")
    project: str | None = Field(
        default=None, description="The project in which the user has its role."
    )
    project_domain: str = Field(default="Default", description="The domain of the project.")
    password_file: Path | None = Field(
        default=None, description="A file that holds the user's password, read at each log-in."
    )
    application_credential_id: str | None = Field(
        default=None, description="Instead of a user: the id of an application credential of it."
    )
    application_credential_secret_file: Path | None = Field(
        default=None, description="A file that holds its secret, read at each log-in."
    )

    @model_validator(mode="after")
    def _are_of_one_kind(self) -> Self:
        user = (self.username, self.project, self.password_file)
        application = (self.application_credential_id, self.application_credential_secret_file)
        is_user = None not in user and application == (None, None)
        is_application = None not in application and user == (None, None, None)
        if not (is_user or is_application):
            raise ValueError(
                "should have username, project and password_file, or application_credential_id "
                "and application_credential_secret_file"
            )
        return self

    @property
    def has_tls(self) -> bool:
        """Tell whether Keystone is asked over TLS."""
        return self.auth_url.startswith("https://")

    @property
    def login_name(self) -> str:
        """Return who logs in, as people are told."""
        return self.username or f"application credential {self.application_credential_id}"


class TokenValidation(Section):
    """How X-Auth-Token is validated against Keystone."""

    credentials: Credentials = Field(
        description="With what relproxy asks: whoever they are may validate tokens (role service)."
    )
    www_authenticate_uri: str | None = Field(
        default=None,
        description="Where a client without a token is sent to; auth_url if left out.",
    )
    cache_s: Seconds = Field(
        default=60,
        description="How long a token is believed before Keystone is asked again, and so at most "
        "after it was revoked; Keystone's own middleware believes it for 300.",
    )
    cached_tokens: Count = Field(
        default=20_000, description="Tokens that are remembered at most: about 1 KB each."
    )
    timeout_s: Seconds = Field(
        default=5,
        description="For Keystone to answer, and for a free connection to it: then 503.",
    )
    connections: Count = Field(
        default=20,
        description="Connections to Keystone of one worker at most: tokens that nobody knows "
        "can't ask it for more at a time.",
    )
    service_token_roles: tuple[str, ...] = Field(
        default=("service",),
        description="Roles that make X-Service-Token that of a service: with it a user's token "
        "may have ended, so that long snapshots finish.",
    )
    service_type: str = Field(
        default="image",
        description="What application credentials with access rules call this service.",
    )


class Identity(Section):
    """Who vouches for callers."""

    provider: Literal["headers", "keystone"] | None = Field(
        default=None,
        description="headers: a front that authenticated the caller sends X-Project-Id, X-Roles; "
        "keystone: relproxy validates X-Auth-Token itself. Left out: keystone if that is "
        "configured, else headers.",
    )
    trusted_networks: tuple[Network, ...] = Field(
        default=(),
        description="Networks of those fronts; from anyone else identity headers are stripped.",
    )
    keystone: TokenValidation | None = Field(
        default=None, description="How tokens are validated, with provider keystone."
    )
    admin_roles: tuple[str, ...] = Field(
        default=("admin",),
        description="Roles that make a caller an admin, who sees everything.",
    )

    @property
    def provides(self) -> str:
        """Return the provider's name, whether it is configured or follows."""
        return "headers" if self.keystone is None else "keystone"


class TrustedSources(Section):
    """Who vouches for instance metadata headers: each of these alone is enough."""

    networks: tuple[Network, ...] = Field(
        default=(),
        description="Networks of the Novas; metadata headers from elsewhere count for nothing.",
    )
    roles: tuple[str, ...] = Field(
        default=(), description="Roles of a caller who vouches, whatever the network."
    )
    service_roles: tuple[str, ...] = Field(
        default=(),
        description="Roles of a valid X-Service-Token that vouches: Nova sends one if its "
        "[service_user] send_service_user_token is set.",
    )
    certificates: tuple[CertificateName, ...] = Field(
        default=(),
        description="Names of client certificates that vouch: dns:NAME or uri:URI of their "
        "subjectAltName, or sha256:FINGERPRINT. Of Novas, never of a front.",
    )
