"""With what TLS is spoken on either side: settings, and what files held, made a context."""

from __future__ import annotations

import ssl

from relproxy.certificates import Proof, show, trust
from relproxy.config_tls import ServerTls, TlsVersion
from relproxy.config_upstream_tls import UpstreamTls

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Another protocol than what is spoken then would be an answer to nothing.
_ALPN = ("http/1.1",)


def listener_context(proof: Proof, settings: ServerTls) -> ssl.SSLContext:
    """Return what a listener's handshakes are made with; raises `ssl.SSLError`.

    Only the authorities of the section count for clients, none of the system's.
    """
    context = _speaking(ssl.PROTOCOL_TLS_SERVER, settings.minimum_version)
    # Who the client is was settled by the handshake that began the connection.
    context.options |= ssl.OP_NO_RENEGOTIATION
    show(context, proof)
    if settings.asks_clients:
        is_required = settings.client_certificates == "required"
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
        trust(context, proof)
        # Those in the file vouch themselves: an intermediate one, without all that its root signed.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # A resumed session isn't verified again: its certificate may have expired since. In TLS 1.2
        # there are such without tickets: `relproxy.securing` looks at the date itself.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def upstream_context(proof: Proof, settings: UpstreamTls) -> ssl.SSLContext:
    """Return what a registry or a Keystone is asked with; raises `ssl.SSLError`.

    Without authorities in a file those of the system count.
    """
    # Verifies certificates and names, unless told otherwise.
    context = _speaking(ssl.PROTOCOL_TLS_CLIENT, settings.minimum_version)
    if settings.insecure_accept_any_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca_file is None:
        context.load_default_certs()
    else:
        trust(context, proof)
    show(context, proof)
    return context


def _speaking(protocol: int, oldest: TlsVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = _VERSIONS[oldest]
    context.set_alpn_protocols(_ALPN)
    return context
