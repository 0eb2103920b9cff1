"""Ways around a list filter that a real Glance under a real WSGI server offers."""

from __future__ import annotations

import http.client
import uuid
from urllib.parse import urlsplit

import pytest

from lab.clients import connect
from tests.functional.conftest import Cloud

MEDIA_TYPE = "application/vnd.openstack.images-v2"
FORM = "application/x-www-form-urlencoded"

WAYS = [
    pytest.param("GET", "/v2.0/images", {}, "", id="minor version"),
    pytest.param("GET", "/v2//images", {}, "", id="double slash"),
    pytest.param("GET", "//v2/images", {}, "", id="double slash in front"),
    pytest.param("GET", "/v2/%69mages", {}, "", id="encoded letter"),
    pytest.param("GET", "/%762/images", {}, "", id="encoded version"),
    pytest.param("GET", "/v2%2Fimages", {}, "", id="encoded slash"),
    pytest.param("GET", "/images", {"Accept": MEDIA_TYPE}, "", id="media type"),
    pytest.param("GET", "/images", {"Accept": f"{MEDIA_TYPE};q=1"}, "", id="weighed media type"),
    pytest.param("GET", "/v2/images?limit=1000&visibility=all", {}, "", id="every visibility"),
    pytest.param("GET", "/v2/images?x=1;visibility=all", {}, "", id="semicolon"),
    pytest.param("DELETE", "/v2/images?_method=GET", {}, "", id="method in the query"),
    pytest.param("PUT", "/v2/images?a=_method;%5fmethod=GET", {}, "", id="semicolon method"),
    pytest.param("POST", "/v2/images", {"Content-Type": FORM}, "_method=GET", id="form"),
    pytest.param(
        "POST", "/v2/images", {"Content-Type": FORM}, '{"name": "&_method=GET&"}', id="form in JSON"
    ),
    pytest.param("GET", "/x/v2/images", {"SCRIPT_NAME": "/x"}, "", id="script name"),
    pytest.param("GET", "/x/v2/images", {"Script-Name": "/x"}, "", id="script name with a hyphen"),
    pytest.param("GET", "/versions", {"PATH_INFO": "/v2/images"}, "", id="path info"),
    pytest.param("GET", "/v2/images", {"X-Roles": "admin", "X_Project_Id": ""}, "", id="roles"),
    pytest.param("GET", "/v2/tasks", {}, "", id="tasks"),
]  # fmt: skip


@pytest.mark.parametrize("route", ["east", "west"])
@pytest.mark.parametrize(("method", "target", "headers", "body"), WAYS)
def test_no_way_around_the_list_shows_a_foreign_image(
    cloud: Cloud, route: str, method: str, target: str, headers: dict[str, str], body: str
) -> None:
    endpoint: str = getattr(cloud, route)
    bob, secret = f"bob-{uuid.uuid4().hex}", f"secret-{uuid.uuid4().hex}"
    fields = {"name": secret, "visibility": "private"}
    created = connect(endpoint, bob).image.post("/images", json=fields)
    assert created.status_code == 201
    url = urlsplit(endpoint)
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    mine = {"X-Project-Id": "alice", "X-Roles": "member,reader", **headers}
    connection.request(method, url.path + target, body or None, mine)
    answer = connection.getresponse()
    shown = answer.read()
    connection.close()
    assert secret.encode() not in shown, answer.status
    assert created.json()["id"].encode() not in shown
    if target.startswith("/x/"):
        assert b'"images"' not in shown
