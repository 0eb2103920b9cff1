"""The operator's page as it is served, and what it polls; tests/page looks at it in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from lab.stand_in import StandIn
from relproxy.store.journal_file import JournalFile
from tests.entries import completed, doubtful
from tests.integration.conftest import EAST, Client, Serve, eventually, registry

TUPLE = {"X-Nova-Instance-ID": "123"}


async def page_of(client: Client) -> str:
    return (await client.get("/", url=client.admin_url)).body.decode()


async def overview(client: Client) -> Any:
    answer = await client.get("/v1/overview", url=client.admin_url)
    assert answer.status == 200
    return answer.json()


async def test_page_may_run_its_own_script_and_style_and_nothing_else(second_wall: Client) -> None:
    answer = await second_wall.get("/", url=second_wall.admin_url)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(
        each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; ")
    )
    for tag in ("script", "style"):
        (inline,) = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", answer.body.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_page_has_no_external_asset_no_inline_handler_and_makes_no_markup_of_text(
    second_wall: Client,
) -> None:
    html = await page_of(second_wall)
    addresses = set(re.findall(r"\b(?:src|href|action|url)\s*[=(]\s*[\"']?([^\"'\s)]+)", html))
    assert {a for a in addresses if not a.startswith(("#", "data:", "${", "place("))} == set()
    assert re.findall(r"<[^>]+\son\w+\s*=", html) == []
    assert re.findall(r"<[^>]+\sstyle\s*=", html) == []
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|srcdoc"
    assert re.findall(unsafe, html) == []


async def test_page_only_asks_for_paths_that_there_are(second_wall: Client) -> None:
    html = await page_of(second_wall)
    asked = set(re.findall(r"(?:ask\(|take\(\"\w+\", )[\"`](/[\w/]+)", html))
    assert asked == {"/readyz", "/v1/overview", "/v1/journal", "/v1/relations", "/v1/explain"}
    for path in asked:
        answer = await second_wall.get(path, url=second_wall.admin_url)
        assert answer.status != 404
    assert (await second_wall.post("/", url=second_wall.admin_url)).status == 405


async def test_overview_names_what_is_configured(serve: Serve, noauth: StandIn) -> None:
    routes = [
        {"name": "west", "path_prefix": "/west", "registry": "glance", "mode": "shadow"},
        {"name": "rest", "registry": "glance", "installation": "east"},
    ]
    client = await serve(registries=[registry(noauth.url, "relproxy")], routes=routes)
    found = await overview(client)
    (glance,) = found["registries"]
    assert (glance["name"], glance["tenancy"]) == ("glance", "relproxy")
    assert [endpoint["url"] for endpoint in glance["endpoints"]] == [noauth.url]
    west, rest, _ = found["routes"]
    assert (west["mode"], west["conditions"]) == ("shadow", {"path_prefix": "/west"})
    assert (rest["mode"], rest["conditions"], rest["installation"]) == ("enforce", {}, "east")
    assert found["installations"][0] == {"name": "east", "uuid": EAST, "routes": ["rest"]}
    assert found["store"] == {"driver": "sqlite"}


async def test_overview_counts_by_route_and_registry(
    second_wall: Client, trusting: StandIn
) -> None:
    await second_wall.get("/v2/images", project="alice")
    await second_wall.create("a", "alice", headers=TUPLE)
    await second_wall.get("/v2/images/x", project="alice")
    trusting.faults.drop_after_create = True
    await second_wall.get("/v2/images", project="alice")
    await second_wall.create("b", "alice", headers=TUPLE)
    found = await overview(second_wall)
    (route, none), (glance,) = found["routes"], found["registries"]
    assert route["requests"] == {"200": 2, "201": 1, "404": 1, "502": 1}
    assert route["treatments"] == {"list": 2, "create": 2, "image": 1}
    assert route["seconds"] > 0
    assert (none["name"], none["requests"]) == ("none", {})
    assert {k: v for k, v in glance["records"].items() if v} == {"confirmed": 1, "in_doubt": 1}
    assert sum(glance["errors"].values()) == 1


async def test_overview_counts_the_open_entries_of_every_worker(
    serve: Serve, trusting: StandIn, tmp_path: Any
) -> None:
    """Another worker's file is one of this host's, too."""
    directory = tmp_path / "shared"
    client = await serve(
        registries=[registry(trusting.url, "registry")],
        journal={"directory": directory, "allow_volatile": True},
    )
    file = JournalFile(directory / "worker-7.db")
    parked = {"ended_at": completed("x").at, "reason": "no"}
    rows = [doubtful("a"), doubtful("b"), completed("c"), completed("d", **parked)]
    assert file.together([lambda: file.add(rows)]) == [None]

    async def waiting() -> tuple[int, int]:
        found = (await overview(client))["journal"]
        return found["in_doubt"], found["parked"]

    # While this worker adopts the file, an entry may count twice.
    await eventually(waiting, (2, 1))
    file.close()


async def test_overview_says_why_the_journals_can_not_be_counted(
    serve: Serve, trusting: StandIn, tmp_path: Any
) -> None:
    directory = tmp_path / "shared"
    client = await serve(
        registries=[registry(trusting.url, "registry")],
        journal={"directory": directory, "allow_volatile": True},
    )
    (directory / "worker-7.db").mkdir()
    found = await overview(client)
    assert found["journal"]["reason"] == "The journals of this host can't be read now."
    assert found["routes"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_overview_is_only_read(second_wall: Client, method: str) -> None:
    answer = await second_wall.call(method, "/v1/overview", url=second_wall.admin_url)
    assert answer.status == 405


@pytest.mark.parametrize("path", ["/", "/readyz", "/metrics", "/v1/relations?project=alice"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example.org", 421),
        ("evil.example.org:9393", 421),
        ("127.0.0.1.example.org", 421),
        ("localhost.example.org", 421),
        ("[::1].example.org", 421),
        ("localhost:9393", 200),
        ("127.0.0.1", 200),
        ("[::1]:9393", 200),
    ],
)
async def test_no_page_of_another_name_reads_the_listener_through_a_browser(
    second_wall: Client, path: str, host: str, status: int
) -> None:
    """DNS rebinding: whose name leads here, theirs is the origin."""
    answer = await second_wall.get(path, url=second_wall.admin_url, headers={"Host": host})
    assert answer.status == status
    if status == 421:
        assert list(answer.json()) == ["message"]
