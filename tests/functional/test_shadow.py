"""A route in shadow before a real Glance: nothing is as it isn't without relproxy."""

from __future__ import annotations

import http.client
import json
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lab.clients import connect, metadata_headers
from lab.relproxy import Relproxy
from tests.functional.conftest import EAST, Cloud, settings
from tests.functional.test_hazards import WAYS

_PASSING = {"date", "x-openstack-request-id", "connection"}
# What never goes on, in shadow neither: a WSGI server may route by it.
_STRIPPED = {"script name", "script name with a hyphen", "path info"}


@pytest.fixture(scope="module")
def shadow(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relproxy]:
    whole = settings(cloud.lonely.url, cloud.owned.url)
    whole["routes"] = [route | {"mode": "shadow"} for route in whole["routes"]]
    # Of itself relproxy says nothing, so that whole answers can be compared.
    whole["forwarding"] = {"via": None, "header": "none"}
    home: Path = tmp_path_factory.mktemp("shadow")
    relproxy = Relproxy(home, whole)
    relproxy.start()
    yield relproxy
    relproxy.stop()


def asked(
    url: str, method: str, target: str, headers: Mapping[str, str], body: str
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    told = {"Host": "images.example", "X-Project-Id": "alice", "X-Roles": "member", **headers}
    connection.request(method, target, body or None, told)
    answer = connection.getresponse()
    fields = [(n, v) for n, v in answer.getheaders() if n.lower() not in _PASSING]
    whole = answer.read()
    connection.close()
    return answer.status, fields, whole


@pytest.mark.parametrize(
    ("method", "target", "headers", "body"), [way for way in WAYS if way.id not in _STRIPPED]
)
def test_every_way_to_a_list_leads_where_it_leads_without_relproxy(
    cloud: Cloud,
    shadow: Relproxy,
    method: str,
    target: str,
    headers: dict[str, str],
    body: str,
) -> None:
    made = connect(cloud.lonely.url, "nobody").image.post("/images", json={"name": "secret"})
    assert made.status_code == 201
    direct = asked(cloud.lonely.url, method, target, headers, body)
    assert asked(shadow.url, method, target, headers, body) == direct


def test_a_snapshot_in_shadow_is_recorded_and_hidden_from_nobody(shadow: Relproxy) -> None:
    instance = uuid.uuid4().hex
    nova = connect(shadow.url, "alice", headers=metadata_headers(EAST, instance))
    image = nova.image.create_image(
        name=instance,
        data=b"data" * 1000,
        disk_format="raw",
        container_format="bare",
        allow_duplicates=True,
    )
    listed = connect(shadow.url, "bob").image.images(name=instance)
    assert [found.id for found in listed] == [image.id]
    assert connect(shadow.url, "bob").image.download_image(image.id).content == b"data" * 1000
    with urllib.request.urlopen(
        f"{shadow.admin_url}/v1/relations?instance_id={instance}"
    ) as answer:
        (relation,) = json.load(answer)["relations"]
    assert (relation["image_id"], relation["project"]) == (image.id, "alice")
    lines = [json.loads(line) for line in shadow.log.read_text().splitlines()]
    told = [line for line in lines if line["event"] == "shadow" and line["project"] == "bob"]
    assert {"would_hide", "would_refuse"} <= {line["verdict"] for line in told}
    assert image.id in [image_id for line in told for image_id in line["images"]]
