"""An unchanged Glance whose WSGI server speaks TLS, with nobody but relproxy."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.clients import connect
from lab.glance import Glance
from lab.relproxy import Relproxy
from tests.authority import Authority

DATA = bytes(range(256)) * 4096


@pytest.fixture
def relproxy(tmp_path: Path) -> Iterator[Relproxy]:
    registries, own = Authority(tmp_path / "registries"), Authority(tmp_path / "relproxies")
    certificate, key = registries.files("glance.example")
    ours, our_key = own.files("relproxy")
    tls = ("--certfile", certificate, "--keyfile", key, "--ca-certs", own.ca_file, "--cert-reqs", 2)
    glance = Glance(tmp_path / "glance", "trusting", tls=tuple(map(str, tls)))
    towards_it = {
        "ca_file": str(registries.ca_file),
        "server_name": "glance.example",
        "certificate_file": str(ours),
        "key_file": str(our_key),
    }
    relproxy = Relproxy(
        tmp_path / "relproxy",
        {
            "identity": {"trusted_networks": ["127.0.0.0/8"]},
            "registries": [
                {
                    "name": "glance",
                    "tenancy": "registry",
                    "upstream_identity": "headers",
                    "endpoints": [glance.url],
                    "tls": towards_it,
                },
                {
                    "name": "strange",
                    "tenancy": "registry",
                    "upstream_identity": "headers",
                    "endpoints": [glance.url],
                    "tls": {name: towards_it[name] for name in ("ca_file", "server_name")},
                },
            ],
            "routes": [
                {"name": "strange", "path_prefix": "/strange", "registry": "strange"},
                {"name": "all", "registry": "glance"},
            ],
        },
    )
    try:
        glance.start()
        relproxy.start()
        yield relproxy
    finally:
        relproxy.stop()
        glance.stop()


def test_an_image_is_made_filled_listed_and_read_over_tls(relproxy: Relproxy) -> None:
    alice = connect(relproxy.url, "alice")
    image = alice.image.create_image(
        "a", data=DATA, container_format="bare", disk_format="raw", validate_checksum=False
    )
    assert [each.name for each in alice.image.images()] == ["a"]
    assert list(connect(relproxy.url, "bob").image.images()) == []
    read = alice.image.download_image(image.id).content
    assert hashlib.sha256(read).digest() == hashlib.sha256(DATA).digest()


def test_without_a_certificate_nothing_is_made_and_nothing_in_doubt(relproxy: Relproxy) -> None:
    known = {"X-Project-Id": "alice", "X-Roles": "member,reader", "Accept": "application/json"}
    asked = urllib.request.Request(
        f"{relproxy.url}/strange/v2/images",
        data=b'{"name": "a", "instance_uuid": "1"}',
        headers=known,
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked)
    with refused.value as answer:
        assert answer.status == 502
        assert b"be reached securely." in answer.read()
    assert list(connect(relproxy.url, "alice").image.images()) == []
    with urllib.request.urlopen(f"{relproxy.admin_url}/v1/journal") as journal:
        assert json.load(journal)["in_doubt"] == []
