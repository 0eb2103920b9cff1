from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.glance import Glance
from lab.relproxy import Relproxy

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
WEST = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"


@dataclass(frozen=True)
class Cloud:
    """Two unchanged Glances and two installations behind one relproxy.

    Without a prefix: `lonely`, in Glance's no-auth pipeline, for installation east. Behind
    `/west/image`: `owned`, which knows owners and trusts its front, for installation west.
    """

    relproxy: Relproxy
    lonely: Glance
    owned: Glance

    @property
    def east(self) -> str:
        return self.relproxy.url

    @property
    def west(self) -> str:
        return f"{self.relproxy.url}/west/image"


def settings(lonely: str, owned: str) -> dict[str, Any]:
    loopback = ["127.0.0.0/8"]
    return {
        "identity": {"trusted_networks": loopback},
        "trusted_sources": {"networks": loopback},
        "installations": [{"name": "east", "uuid": EAST}, {"name": "west", "uuid": WEST}],
        "registries": [
            {"name": "lonely", "tenancy": "relproxy", "endpoints": [lonely]},
            {
                "name": "owned",
                "tenancy": "registry",
                "upstream_identity": "headers",
                "endpoints": [owned],
            },
        ],
        "routes": [
            {
                "name": "west",
                "path_prefix": "/west/image",
                "registry": "owned",
                "installation": "west",
            },
            {"name": "east", "registry": "lonely", "installation": "east"},
        ],
    }


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    home: Path = tmp_path_factory.mktemp("cloud")
    lonely, owned = Glance(home / "lonely"), Glance(home / "owned", "trusting")
    relproxy = Relproxy(home / "relproxy", settings(lonely.url, owned.url))
    try:
        for part in (lonely, owned, relproxy):
            part.start()
        yield Cloud(relproxy, lonely, owned)
    finally:
        for part in (relproxy, owned, lonely):
            part.stop()
