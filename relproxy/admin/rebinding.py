"""A page from elsewhere may not read the listener through the browser of an operator.

Whoever owns a name can have it lead to 127.0.0.1 (DNS rebinding): to the browser their page and
this listener are then of one origin, and the page reads every project's records. On loopback, where
the listener may be open, it therefore answers only to what nobody else's name can be.
"""

from __future__ import annotations

import ipaddress
import re

from aiohttp import web
from aiohttp.typedefs import Handler

_SENTENCE = "On loopback this listener answers to localhost and to addresses, not to other names."

_HOST = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::\d*)?")


@web.middleware
async def refuse_other_names(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 421 to a request on loopback whose Host is somebody's name."""
    if _is_on_loopback(request) and not _is_nobodys(request.headers.get("Host", "")):
        return web.json_response({"message": _SENTENCE}, status=421)
    return await handler(request)


def _is_on_loopback(request: web.Request) -> bool:
    own = request.get_extra_info("sockname")
    return isinstance(own, tuple) and ipaddress.ip_address(own[0]).is_loopback


def _is_nobodys(host: str) -> bool:
    """Tell whether a Host is no name that a DNS server outside has a say in (RFC 6761)."""
    parts = _HOST.fullmatch(host)
    if parts is None:
        return False
    name = parts[1] or parts[2]
    if name.lower() in {"", "localhost"}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
