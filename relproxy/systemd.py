"""Telling systemd how relproxy is: sd_notify(3), by datagrams to the socket that it names.

Where it names none, nothing is told. A message that can't be sent is dropped: who serves doesn't
wait for who watches.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress

_SOCKET = "NOTIFY_SOCKET"
_WATCHDOG = "WATCHDOG_USEC"
_WATCHDOG_PID = "WATCHDOG_PID"


class Herald:
    """Tells one socket: a path, or an abstract address that begins with @; nobody if it is None."""

    def __init__(self, address: str | None, *, watchdog_s: float | None = None) -> None:
        # The kernel's own spelling of an abstract address.
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self._watchdog_s = watchdog_s

    def ready(self, status: str) -> None:
        """Say that relproxy serves, at first or after a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the configuration is read; `ready` says that this is over, however it ended."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=Reloading.")

    def stopping(self) -> None:
        """Say that relproxy drains and ends."""
        self._send("STOPPING=1", "STATUS=Draining.")

    async def watch(self, is_alive: Callable[[], bool]) -> None:
        """Keep the watchdog quiet for as long as `is_alive`, until cancelled."""
        while self._watchdog_s is not None:
            if is_alive():
                self._send("WATCHDOG=1")
            # Half of it, as sd_watchdog_enabled(3) recommends.
            await asyncio.sleep(self._watchdog_s / 2)

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        # A value ends with its line.
        message = "\n".join(each.replace("\n", " ") for each in assignments)
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto(message.encode(), self._address)


def herald_of(environment: MutableMapping[str, str]) -> Herald:
    """Return whom the environment names, and take it out: it is not for the workers."""
    address = environment.pop(_SOCKET, None)
    watchdog_us = environment.pop(_WATCHDOG, "")
    is_ours = environment.pop(_WATCHDOG_PID, str(os.getpid())) == str(os.getpid())
    has_watchdog = is_ours and watchdog_us.isascii() and watchdog_us.isdigit()
    watchdog_s = int(watchdog_us) / 1e6 if has_watchdog else 0.0
    return Herald(address, watchdog_s=watchdog_s or None)
