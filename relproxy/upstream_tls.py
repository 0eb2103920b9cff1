"""TLS with whom relproxy asks: what a connection to a registry or a Keystone is made with."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from relproxy.certificates import Proof
from relproxy.config_upstream_tls import UpstreamTls
from relproxy.tls_contexts import upstream_context


@dataclass(frozen=True, slots=True)
class Tls:
    """How TLS is spoken with one registry, or one Keystone."""

    context: ssl.SSLContext
    server_name: str | None = None

    def options(self, url: str) -> dict[str, Any]:
        """Return what aiohttp's client wants to know for a request to an address."""
        if not url.startswith("https://"):
            return {}
        return {"ssl": self.context, "server_hostname": self.server_name}


def tls_of(settings: UpstreamTls, proof: Proof) -> Tls:
    """Return how settings, with what their files held, have TLS spoken."""
    return Tls(upstream_context(proof, settings), settings.server_name)
