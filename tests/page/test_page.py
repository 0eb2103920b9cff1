"""The operator's page in a real browser (`make verify-page`); pictures are left in build/page."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lab.browser import BrowserError, Tab
from lab.processes import free_port
from lab.stand_in import StandIn
from relproxy.model import Capture, Grade, Instance
from relproxy.store.journal_file import JournalFile
from tests.entries import completed, doubtful
from tests.integration.conftest import EAST, Client, Serve, registry
from tests.integration.test_store_away import broken

PICTURES = Path(__file__).resolve().parent.parent.parent / "build" / "page"
PROJECT = "7a7d3c9f0f1a4c4e8e51b6c0a4d83c55"
# No space in it: an instance's id has none.
HOSTILE = "<img/src=x/onerror=globalThis.hit=1>\"'&{{7*7}}"
LOADED = "document.querySelector('#routes table') && document.querySelector('#registries .good')"
FOUND = "document.querySelector('#found table')"

# The least contrast of any text with what is behind it, and which text that is.
CONTRAST = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim();
    const e = walk.currentNode.parentElement;
    if (!text || !e.checkVisibility() || e.closest("script, style, option")) continue;
    const style = getComputedStyle(e);
    const own = e.closest("svg") ? style.fill : style.color;
    const box = e.closest("g.node")?.querySelector("rect");
    const under = box ? parse(getComputedStyle(box).fill) : behind(e);
    const [a, b] = [light(parse(own)), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least[0]) least = [ratio, text];
  }
  return least;
})()
"""

MOVING = """
[...document.querySelectorAll("*")].filter(
  (e) => parseFloat(getComputedStyle(e).transitionDuration)
).length
"""
WIDE = """
[...document.querySelectorAll("main *")].filter(
  (e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX !== "visible" && !e.matches("input, select, .sr, thead")
).map((e) => e.outerHTML.slice(0, 80))
"""
# WCAG 2.2, 2.5.8.
SMALL = """
[...document.querySelectorAll("button, input, select")].filter(
  (e) => e.checkVisibility() && e.getBoundingClientRect().height < 24
).length
"""
FOCUSED = "document.activeElement.innerText || document.activeElement.id"
IS_SEEN = """
document.activeElement === document.body
  || getComputedStyle(document.activeElement).outlineStyle !== "none"
"""


async def text_of(tab: Tab, selector: str) -> str:
    return str(await tab.value(f"document.querySelector({selector!r}).innerText"))


async def snapshot(client: Client, project: str, instance: str, **options: Any) -> str:
    headers = {"X-Nova-Instance-ID": instance}
    created = await client.create("n", project, headers=headers, **options)
    return str(created.json()["id"])


async def opened(tab: Tab, client: Client, fragment: str = "") -> None:
    await tab.open(f"{client.admin_url}/{fragment}")
    await tab.until(LOADED)


@pytest.fixture
async def lively(serve: Serve, trusting: StandIn) -> Client:
    """A relproxy with everything to show: relations, an entry in doubt, a registry that is away."""
    away = registry(f"http://127.0.0.1:{free_port()}", "relproxy") | {"name": "away"}
    client = await serve(
        registries=[registry(trusting.url, "registry"), away],
        routes=[
            {"name": "dark", "path_prefix": "/dark", "registry": "away", "mode": "shadow"},
            {"name": "all", "registry": "glance", "installation": "east"},
        ],
    )
    for instance in ("web-1", "web-1", "db-7"):
        last = await snapshot(client, PROJECT, instance)
    await snapshot(client, PROJECT, "db-7", fields={"instance_uuid": "db-7"})
    await client.call("DELETE", f"/v2/images/{last}", project=PROJECT)
    trusting.faults.status = (500, b"no")
    await client.create("n", PROJECT, headers={"X-Nova-Instance-ID": "web-1"})
    trusting.faults.status = None
    await client.get("/dark/v2/images", project=PROJECT)
    return client


async def test_page_shows_what_relproxy_says(tab: Tab, lively: Client) -> None:
    await opened(tab, lively)
    await tab.until("document.querySelector('#waiting table')")
    points = await text_of(tab, "#points")
    for claim in (
        "Registry away is not ready.",
        "Nothing is protected on route dark.",
        "1 entry is in doubt.",
    ):
        assert claim in points
    assert "web-1" in await text_of(tab, "#waiting")
    assert EAST in await text_of(tab, "#installations")
    registries = await text_of(tab, "#registries")
    assert "authenticates callers itself" in registries
    assert "The registry can't be reached." in registries
    # Two looks, and there is something to compare.
    await tab.until("/\\d/.test(document.querySelector('#numbers .value').innerText)")
    await tab.screenshot(PICTURES / "wide.png")


async def test_page_says_so_when_all_is_well(tab: Tab, second_wall: Client) -> None:
    await opened(tab, second_wall)
    await tab.until("document.querySelector('#headline').innerText === 'All is well'")
    assert await tab.value("document.querySelector('#points').hidden") is True
    assert (await text_of(tab, "#waiting")).startswith("None.")


async def test_relations_are_drawn_as_a_graph_and_written_as_a_table(
    tab: Tab, lively: Client
) -> None:
    await opened(tab, lively, f"#project={PROJECT}")
    await tab.until(FOUND)
    drawn = "document.querySelectorAll('.graph .%s').length"
    for kind, count in (("image", 4), ("instance", 2), ("project", 1), ("edge", 8), ("gone", 1)):
        assert await tab.value(drawn % kind) == count
    assert await tab.value("document.querySelectorAll('#found tbody tr').length") == 4
    # Who clicks on what is drawn asks for that.
    await tab.value(
        "document.querySelector('.graph .instance').dispatchEvent(new MouseEvent('click'))"
    )
    await tab.until("location.hash.startsWith('#instance=')")
    await tab.until("document.querySelectorAll('#found tbody tr').length === 2")
    await tab.screenshot(PICTURES / "search.png")


async def test_hostile_names_are_shown_as_text(
    tab: Tab, serve: Serve, trusting: StandIn, tmp_path: Path
) -> None:
    """A registry may say anything of an owner; a customer, of a name."""
    directory = tmp_path / "shared"
    client = await serve(
        registries=[registry(trusting.url, "registry")],
        journal={"directory": directory, "allow_volatile": True},
    )
    turned = "bob\u202egpj"
    capture = Capture(Instance(EAST, HOSTILE), Grade.CLAIMED)
    file = JournalFile(directory / "worker-7.db")
    rows = [
        completed(HOSTILE, project=HOSTILE, capture=capture),
        completed("b", project=turned, capture=capture),
        doubtful(None, image_name=HOSTILE, project=turned, reason=HOSTILE),
    ]
    assert file.together([lambda: file.add(rows)]) == [None]
    file.close()
    await opened(tab, client)
    await tab.until("document.querySelector('#waiting table')")
    await tab.value("document.querySelector('#asked-for').focus()")
    await tab.type(HOSTILE)
    await tab.press("Enter")
    await tab.until(FOUND)
    found = await text_of(tab, "#found")
    assert HOSTILE in found
    # A sign that turns the order of others round is written out.
    assert "bob\\u202egpj" in found
    assert turned not in found
    assert HOSTILE in await text_of(tab, "#waiting")
    assert await tab.value("document.querySelectorAll('img, iframe, object').length") == 0
    assert await tab.value("globalThis.hit === undefined") is True
    await tab.value("document.querySelector('[data-image]').click()")
    await tab.until("document.querySelector('#verdicts .facts')")


@pytest.mark.parametrize(
    "attempt",
    [
        "document.body.innerHTML = '<img src=x onerror=hit=1>'",
        "document.body.insertAdjacentHTML('beforeend', '<p>')",
        "setTimeout('globalThis.hit = 1')",
    ],
)
async def test_policy_lets_no_text_become_markup_or_script(
    tab: Tab, second_wall: Client, attempt: str
) -> None:
    """Even a script of the page's own could not."""
    await opened(tab, second_wall)
    with pytest.raises(BrowserError, match=r"TrustedHTML|TrustedScript|Content Security Policy"):
        await tab.value(attempt)
    tab.problems.clear()


async def test_page_is_used_by_keyboard_alone(tab: Tab, lively: Client) -> None:
    await opened(tab, lively)
    seen: list[str] = []

    async def go_to(name: str) -> None:
        """Press Tab until something is focused, and that the focus is seen each time."""
        while (at := await tab.value(FOCUSED)) != name:
            await tab.press("Tab")
            seen.append(at)
            assert len(seen) < 60, seen
            assert await tab.value(IS_SEEN)

    await tab.press("Tab")
    assert await tab.value("document.activeElement.className") == "skip"
    await go_to("asked-for")
    await tab.type("web-1")
    await tab.press("Enter")
    await tab.until(FOUND)
    assert await tab.value("document.activeElement.id") == "asked-for"
    await go_to(PROJECT)
    await tab.press("Enter")
    await tab.until("document.querySelectorAll('#found tbody tr').length === 4")
    await tab.value("document.querySelector('#asked-for').focus()")
    await go_to("Who sees it?")
    await tab.press("Enter")
    await tab.until("document.querySelector('#verdicts .facts')")
    assert await tab.value("document.activeElement.id") == "explain-project"
    assert "The registry judges" in await text_of(tab, "#verdicts")


async def test_what_is_polled_takes_no_focus_away(tab: Tab, lively: Client) -> None:
    await opened(tab, lively)
    await tab.until("document.querySelector('#waiting a')")
    await tab.value("document.querySelector('#waiting a').focus()")
    await lively.get("/v2/images", project=PROJECT)
    before = await text_of(tab, "#asked")
    await tab.until(f"document.querySelector('#asked').innerText !== {before!r}")
    assert await tab.value("document.activeElement.matches('#waiting a')") is True


async def test_everything_that_can_be_focused_has_a_name_and_headings_are_in_order(
    tab: Tab, lively: Client
) -> None:
    await opened(tab, lively, f"#project={PROJECT}")
    await tab.until(FOUND)
    await tab.tell("Accessibility.enable")
    nodes = (await tab.tell("Accessibility.getFullAXTree"))["nodes"]
    focusable = [
        node
        for node in nodes
        if any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", ()))
        and node["role"]["value"] not in {"RootWebArea", "main", "generic", "MenuListPopup"}
    ]
    assert len(focusable) > 15
    assert [node["role"] for node in focusable if not node["name"]["value"]] == []
    roles = {node["role"]["value"] for node in nodes if not node["ignored"]}
    assert {"banner", "main", "contentinfo", "search", "table", "rowheader", "status"} <= roles
    levels = await tab.value(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_stands_out_by_day_and_by_night(
    tab: Tab, lively: Client, scheme: str
) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    await tab.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    await opened(tab, lively, f"#project={PROJECT}")
    await tab.until(FOUND)
    await tab.until("document.querySelector('#waiting table')")
    ratio, text = await tab.value(CONTRAST)
    assert ratio >= 4.5, text
    ground = await tab.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(ground) < 60) is (scheme == "dark")
    assert await tab.value(MOVING) == 0
    await tab.prefer(prefers_color_scheme=scheme)
    assert await tab.value(MOVING) > 0
    await tab.screenshot(PICTURES / f"{scheme}.png")


async def test_page_fits_a_phone(tab: Tab, lively: Client) -> None:
    await tab.size(360, 740, is_phone=True)
    await opened(tab, lively, f"#project={PROJECT}")
    await tab.until(FOUND)
    await tab.until("document.querySelector('#waiting table')")
    assert await tab.value("document.documentElement.scrollWidth") == 360
    assert await tab.value(WIDE) == []
    assert await tab.value(SMALL) == 0
    await tab.screenshot(PICTURES / "phone.png")


async def test_page_says_what_to_do_while_the_store_is_away(tab: Tab, lively: Client) -> None:
    with broken(lively):
        await opened(tab, lively, f"#project={PROJECT}")
        await tab.until("document.querySelector('#found [role=alert]')")
        assert "while the store is away" in await text_of(tab, "#found")
        await tab.until(
            "document.querySelector('#points').innerText.includes('The store is away.')"
        )
        assert "Creates go on" in await text_of(tab, "#points")
        await tab.screenshot(PICTURES / "store-away.png")


async def test_page_says_so_when_relproxy_is_gone(tab: Tab, second_wall: Client) -> None:
    await opened(tab, second_wall)
    await second_wall.stop()
    await tab.until("document.querySelector('#headline').innerText.includes('does not answer')")
    assert "systemctl status relproxy" in await text_of(tab, "#subline")
    assert "What is shown below is of" in await text_of(tab, "#subline")
    tab.problems.clear()


async def test_nothing_found_says_why_that_may_be(tab: Tab, second_wall: Client) -> None:
    await opened(tab, second_wall, "#any=nobody%20at%20all")
    await tab.until("document.querySelector('#found strong')")
    assert await text_of(tab, "#found strong") == "No record names nobody at all."


@asynccontextmanager
async def guarded(client: Client, token: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Stand before an admin listener, show the page to all, and the rest for a token."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        if request.path != "/" and request.headers.get("Authorization") != f"Bearer {token}":
            return web.json_response({"message": "Which token?"}, status=401)
        async with client.session.get(client.admin_url + request.path_qs) as found:
            kept = {
                k: v for k, v in found.headers.items() if k.startswith(("Content-T", "Content-S"))
            }
            return web.Response(status=found.status, headers=kept, body=await found.read())

    server = web.Server(answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def test_page_asks_for_a_token_sends_it_and_keeps_it_for_the_tab(
    tab: Tab, second_wall: Client
) -> None:
    async with guarded(second_wall, "s3cret") as (url, _):
        await tab.open(f"{url}/")
        await tab.until("document.querySelector('#token').checkVisibility()")
        assert await text_of(tab, "#headline") == "This listener wants a token."
        await tab.screenshot(PICTURES / "token.png")
        for token, is_right in (("wrong", False), ("s3cret", True)):
            await tab.value("document.querySelector('#token').focus()")
            await tab.type(token)
            await tab.press("Enter")
            if not is_right:
                await tab.until("document.querySelector('#headline').innerText.includes('refused')")
        await tab.until(LOADED)
        assert await tab.value("document.querySelector('#token').value") == ""
        assert await tab.value("localStorage.length") == 0
        await tab.open(f"{url}/?again")
        await tab.until(LOADED)
        await tab.value("document.querySelector('#forget').click()")
        await tab.until("document.querySelector('#token')?.checkVisibility()")
    tab.problems.clear()


async def test_pause_stops_the_asking(tab: Tab, second_wall: Client) -> None:
    async with guarded(second_wall, "t") as (url, asked):
        await tab.open(f"{url}/")
        await tab.value("sessionStorage.setItem('relproxy-token', 't')")
        await tab.open(f"{url}/?again")
        await tab.until(LOADED)
        await tab.value("document.querySelector('#pause').click()")
        assert await text_of(tab, "#asked") == "Paused"
        asked.clear()
        # Longer than it waits between two looks.
        await tab.value("new Promise((go) => setTimeout(go, 5500))")
        assert asked == []
        await tab.value("document.querySelector('#pause').click()")
        await tab.until("document.querySelector('#asked').innerText.startsWith('As of')")
        assert "/v1/overview" in asked
    tab.problems.clear()
