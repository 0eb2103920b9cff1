"""Certificates for tests: an authority of their own, and what it vouches for."""

from __future__ import annotations

import ssl
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relproxy.certificates import read_proof
from relproxy.config_upstream_tls import UpstreamTls
from relproxy.upstream_tls import Tls, tls_of

_PEM = serialization.Encoding.PEM
_PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()
NOVA = x509.DNSName("nova.example.org")


@dataclass(frozen=True)
class Authority:
    """An authority; what it makes is written into `home`, where others may be too."""

    home: Path
    ca: trustme.CA = field(default_factory=trustme.CA)
    _id: uuid.UUID = field(default_factory=uuid.uuid4)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.ca.cert_pem.write_to_path(str(self.ca_file))

    @property
    def ca_file(self) -> Path:
        """The file of its own certificate."""
        return self.home / f"ca-{self._id}.pem"

    def issue(self, *names: str, ends: datetime | None = None) -> trustme.LeafCert:
        """Issue a certificate; without names it is for 127.0.0.1."""
        return self.ca.issue_cert(*(names or ("127.0.0.1",)), not_after=ends)

    def files(
        self, *names: str, ends: datetime | None = None, stem: str = "issued"
    ) -> tuple[Path, Path]:
        """Issue a certificate, and return the file of it and that of its key."""
        issued = self.issue(*names, ends=ends)
        certificate, key = self.home / f"{stem}.pem", self.home / f"{stem}-key.pem"
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(issued.private_key_pem.bytes())
        return certificate, key

    def context(
        self, *names: str, ends: datetime | None = None, asks_for_one_of: Authority | None = None
    ) -> ssl.SSLContext:
        """Return what a registry serves with; it may want certificates of another authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issue(*names, ends=ends).configure_cert(context)
        if asks_for_one_of is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(asks_for_one_of.ca_file)
        return context

    def server(self, name: str = "server", **settings: Any) -> dict[str, Any]:
        """Return the `tls` section of a listener on loopback, with files made anew."""
        certificate, key = self.files("127.0.0.1", "localhost", stem=name)
        return {"certificate_file": str(certificate), "key_file": str(key), **settings}

    def asking(self, how: str, **settings: Any) -> dict[str, Any]:
        """Return a section that asks for client certificates of this authority."""
        return self.server(client_ca_file=str(self.ca_file), client_certificates=how, **settings)

    def client_file(
        self,
        *names: x509.GeneralName,
        ends: timedelta = timedelta(days=1),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        common_name: str = "somebody",
    ) -> Path:
        """Return a file with a certificate for these names, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        signer = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + ends)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        path = self.home / f"client-{key.public_key().public_numbers().x}.pem"
        path.write_bytes(
            made.sign(signer, hashes.SHA256()).public_bytes(_PEM)
            + key.private_bytes(_PEM, _PKCS8, PLAIN)
        )
        return path

    def trusting(self, certificate: Path | None = None) -> ssl.SSLContext:
        """Return with what a client of its servers connects, and the certificate that it shows."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context


def tls_with(**settings: Any) -> Tls:
    """Return how these settings of a registry have TLS spoken, with the files that they name."""
    whole = UpstreamTls.model_validate(settings)
    return tls_of(whole, read_proof(whole, "tls"))


def fingerprint(certificate: Path) -> str:
    """Return the SHA-256 fingerprint of a certificate, as relproxy names it."""
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    return f"sha256:{loaded.fingerprint(hashes.SHA256()).hex()}"
