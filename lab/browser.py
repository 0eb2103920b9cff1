"""A headless Chromium, asked over its own protocol (DevTools) by aiohttp: no driver is needed."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp

from lab.processes import START_TIMEOUT_S, Process

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--force-device-scale-factor=1", "--remote-debugging-port=0", "--remote-allow-origins=*"),
)
_POLL_S = 0.02


def browser_there() -> str | None:
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class BrowserError(Exception):
    """The browser refused a command, or a script in the page raised."""


class Tab:
    """One page in the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.problems: list[str] = []

    async def tell(self, method: str, **parameters: object) -> Mapping[str, Any]:
        """Give a command and return its result; raises `BrowserError`."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=START_TIMEOUT_S)
            if message.get("id") == number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']}")
                result: Mapping[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, event: Mapping[str, Any]) -> None:
        """Keep what went wrong in the page: exceptions, and what its policy has blocked."""
        if event.get("method") == "Runtime.exceptionThrown":
            details = event["params"]["exceptionDetails"]
            self.problems.append(str(details.get("exception", details)))
        elif event.get("method") == "Log.entryAdded":
            entry = event["params"]["entry"]
            if entry["source"] in {"security", "javascript", "violation"}:
                self.problems.append(entry["text"])

    async def prepare(self) -> Self:
        """Listen for what goes wrong."""
        for domain in ("Page", "Runtime", "Log"):
            await self.tell(f"{domain}.enable")
        return self

    async def open(self, url: str) -> None:
        """Go to a page and wait until it is there; another fragment alone loads nothing anew."""
        await self.tell("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:  # noqa: ANN401 - JSON of any type
        """Return what an expression is in the page; raises `BrowserError` if it raises."""
        result = await self.tell(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise BrowserError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def until(self, expression: str, *, patience_s: float = 30) -> None:
        """Wait until an expression holds in the page; raises `TimeoutError` if it never does."""
        try:
            async with asyncio.timeout(patience_s):
                # Polled in the page itself, which costs nothing.
                await self.value(
                    f"(async () => {{ while (!({expression})) "
                    "await new Promise((go) => setTimeout(go, 20)); })()"
                )
        except TimeoutError:
            text = await self.value("document.body.innerText")
            raise TimeoutError(f"never: {expression}\n{text}\n{self.problems}") from None

    async def size(self, width: int, height: int, *, is_phone: bool = False) -> None:
        """Show the page as a window, or a phone, of so many CSS pixels does."""
        await self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )

    async def prefer(self, **features: str) -> None:
        """Prefer what media features say, such as prefers_color_scheme="dark"."""
        named = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        await self.tell("Emulation.setEmulatedMedia", features=named)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press and let go a key, as a person does: Tab, Enter, or one sign."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27}.get(key, 0)
        text = {"Enter": "\r", "Tab": ""}.get(key, key)
        modifiers = 8 if shift else 0
        press = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        await self.tell("Input.dispatchKeyEvent", type="keyDown", text=text, **press)
        await self.tell("Input.dispatchKeyEvent", type="keyUp", **press)

    async def type(self, text: str) -> None:
        """Write text where the focus is."""
        await self.tell("Input.insertText", text=text)

    async def screenshot(self, file: Path, *, is_whole: bool = True) -> None:
        """Save what is seen, or the whole page, as a PNG."""
        shot = await self.tell("Page.captureScreenshot", captureBeyondViewport=is_whole)
        file.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def browsing(home: Path) -> AsyncIterator[Tab]:
    """Start a browser with a profile of its own in `home`, and return its one page."""
    program = browser_there()
    if program is None:
        raise BrowserError("there is no Chromium here")
    as_root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    argv = [program, *_FLAGS, *as_root, f"--user-data-dir={home / 'profile'}", "about:blank"]
    process = Process("chromium", argv, home / "chromium.log")
    process.start()
    try:
        file = home / "profile" / "DevToolsActivePort"
        address = await asyncio.to_thread(_address, file, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            # Screenshots are large.
            async with session.ws_connect(
                pages[0]["webSocketDebuggerUrl"], max_msg_size=0
            ) as socket:
                yield await Tab(socket).prepare()
    finally:
        await asyncio.to_thread(process.stop)


def _address(file: Path, process: Process) -> str:
    """Return where the browser listens: it writes that down once it does."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (file.exists() and (lines := file.read_text().splitlines())):
        if not process.is_running or time.monotonic() > deadline:
            raise BrowserError(f"Chromium does not start:\n{process.tail()}")
        time.sleep(_POLL_S)
    return f"127.0.0.1:{lines[0]}"
