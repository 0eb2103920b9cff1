"""Every route that Glance's own router has is in relproxy's table."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from lab import venvs
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.filters.target import parse_target
from relproxy.messages import Headers
from relproxy.model import Access
from tests.functional.conftest import Cloud

_PROGRAM = """
import json, os, sys
from glance.common import config, wsgi
from glance.api.v2 import router
import routes
config.parse_args(args=[], default_config_files=[sys.argv[1]])
mapper = routes.Mapper()
router.API(mapper)
found = []
for route in mapper.matchlist:
    methods = (route.conditions or {}).get("method") or []
    found += [(method, route.routepath) for method in methods]
print("ROUTES " + json.dumps(found))
"""


@pytest.fixture(scope="module")
def routes(cloud: Cloud) -> list[tuple[str, str]]:
    python = venvs.ensure("glance") / "bin" / "python"
    configuration = Path(cloud.lonely.home) / "glance-api.conf"
    ran = subprocess.run(
        [str(python), "-c", _PROGRAM, str(configuration)],
        capture_output=True, text=True, check=True, env=dict(os.environ),
    )  # fmt: skip
    line = next(li for li in ran.stdout.splitlines() if li.startswith("ROUTES "))
    return [(method, path) for method, path in json.loads(line.removeprefix("ROUTES "))]


def test_every_route_of_glance_has_a_row(routes: list[tuple[str, str]]) -> None:
    assert len(routes) > 60
    missing = [
        (method, path)
        for method, path in routes
        if GlanceV2().operation(method, parse_target(f"/v2{path}"), Headers()).name == "other"
    ]
    assert missing == []


def test_no_route_of_glance_is_open_to_callers_that_nobody_vouches_for(
    routes: list[tuple[str, str]],
) -> None:
    for method, path in routes:
        operation = GlanceV2().operation(method, parse_target(f"/v2{path}"), Headers())
        assert operation.access is not Access.ANYONE, (method, path)
