"""The operator's page: one file, which asks the other paths of this listener and changes nothing.

It holds nothing of anybody's, so it may be read by whoever reaches the listener; what it shows it
asks for as the operator. Names in it come from registries and customers and are hostile: the page
makes text of them and never markup, and the policy that goes with it lets no other script run than
the one of this file, nor any text become markup.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib import resources

from aiohttp import web


class PageView:
    """Answers /."""

    def __init__(self) -> None:
        self._html = resources.files("relproxy.admin").joinpath("page.html").read_bytes()
        self._headers = headers_of(self._html)

    async def page(self, _: web.Request) -> web.Response:
        """Return the page."""
        return web.Response(
            body=self._html, content_type="text/html", charset="utf-8", headers=self._headers
        )


def headers_of(html: bytes) -> Mapping[str, str]:
    """Return what goes with a page: it may do what it does now, and nothing else."""
    return {
        "Content-Security-Policy": "; ".join(
            (
                "default-src 'none'",
                f"script-src {_sources(html, b'script')}",
                f"style-src {_sources(html, b'style')}",
                "img-src data:",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
                "trusted-types 'none'",
            )
        ),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        # A page of an older version would ask for what is no longer there.
        "Cache-Control": "no-cache",
    }


def _sources(html: bytes, tag: bytes) -> str:
    """Return the hashes of a page's inline elements (CSP level 3, section 2.3.1)."""
    inline = re.findall(b"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in inline)
    return " ".join(f"'sha256-{digest}'" for digest in hashes)
