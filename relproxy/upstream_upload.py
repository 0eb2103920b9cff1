"""Uploads that are asked for before they are sent (RFC 9110, section 10.1.1).

A client that expects `100 Continue` hears it when the registry says so: what the registry refuses
is then refused before the client has sent its gigabytes. Some registries never say it; after a
while the body is asked for all the same, as the RFC wants of whoever waits.
"""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection


def asking_requests(patience_s: float) -> type[aiohttp.ClientRequest]:
    """Return the class of requests that wait so long for a registry to want their body.

    aiohttp waits for ever; tests/integration/test_uploads.py fails if its switch for that moves.
    """

    class AskingRequest(aiohttp.ClientRequest):
        async def write_bytes(
            self,
            writer: AbstractStreamWriter,
            conn: Connection,
            content_length: int | None = None,
        ) -> None:
            if self._continue is None:
                await super().write_bytes(writer, conn, content_length)
                return
            waiting = asyncio.get_running_loop().call_later(patience_s, _let_go, self._continue)
            try:
                await super().write_bytes(writer, conn, content_length)
            finally:
                waiting.cancel()

    return AskingRequest


def _let_go(wanted: asyncio.Future[bool]) -> None:
    if not wanted.done():
        wanted.set_result(True)
