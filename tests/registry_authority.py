"""Authorities that exist for a test, and what they issue, as files and as contexts."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import trustme


class Authority:
    """A certificate authority whose files are in a directory of its own."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._ca = trustme.CA()
        self.ca_file = home / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, *names: str, ends: datetime | None = None) -> trustme.LeafCert:
        """Issue a certificate; without names it is for 127.0.0.1."""
        return self._ca.issue_cert(*(names or ("127.0.0.1",)), not_after=ends)

    def files(self, *names: str, ends: datetime | None = None) -> tuple[Path, Path]:
        """Issue a certificate, and return the file of it and that of its key."""
        issued = self.issue(*names, ends=ends)
        certificate, key = self._home / "certificate.pem", self._home / "key.pem"
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(str(key))
        return certificate, key

    def server(
        self, *names: str, ends: datetime | None = None, asks_for_one_of: Authority | None = None
    ) -> ssl.SSLContext:
        """Return the context of a server; it may want certificates of another authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issue(*names, ends=ends).configure_cert(context)
        if asks_for_one_of is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(asks_for_one_of.ca_file)
        return context
