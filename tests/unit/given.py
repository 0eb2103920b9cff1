"""Requests, routes and images for tests to start from."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from relproxy.config import Configuration
from relproxy.filters.glance_v2 import GlanceV2
from relproxy.messages import Headers, Request, RequestHead
from relproxy.networks import parse_address
from relproxy.routing import Route, route_table

UUID = "6f2a4c1e-8d35-4b7a-9c10-2f1e5d3b7a90"
OTHER_UUID = "0b1d2e3f-4a5b-4c6d-8e7f-8091a2b3c4d5"
IMAGE_ID = "14c22e86-19ff-4fce-8919-89a34d23b277"
CREATED_AT = "2026-11-22T15:07:26Z"


def fields(*pairs: tuple[str, str]) -> Headers:
    """Return headers with these fields in this order."""
    return Headers().with_added(*pairs)


def request_head(
    target: str = "/v2/images",
    *pairs: tuple[str, str],
    method: str = "GET",
    peer: str | None = "192.0.2.7",
    listener: str = "public",
) -> RequestHead:
    """Return the head of a request that comes from its peer."""
    address = None if peer is None else parse_address(peer)
    return RequestHead(
        method, target, fields(*pairs), address, listener, connection_source=address, source=address
    )


class Body:
    """A request body that arrives in these chunks, and counts those that were taken."""

    def __init__(self, *chunks: bytes, length: int | None = None) -> None:
        self._chunks = chunks
        self._length = length
        self.taken = 0

    @property
    def is_empty(self) -> bool:
        return not self._chunks

    @property
    def length(self) -> int | None:
        return self._length

    @property
    def is_awaited(self) -> bool:
        return False

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.taken += 1
            yield chunk


def request(head: RequestHead) -> Request:
    """Return a request without a body."""
    return Request(head, Body())


def routes(
    *conditions: Mapping[str, Any], registry: Mapping[str, Any] | None = None
) -> tuple[Route, ...]:
    """Return a route for each mapping of conditions, named r0, r1 and so on, to one registry."""
    configuration = Configuration.model_validate(
        {
            "listeners": [{"name": "public", "bind": "127.0.0.1:9292"}],
            "store": {"path": "/var/lib/relproxy/relproxy.db"},
            "installations": [{"name": "nova", "uuid": UUID}],
            "registries": [
                {
                    "name": "main",
                    "tenancy": "relproxy",
                    "endpoints": ["http://127.0.0.1:9191"],
                    **(registry or {}),
                }
            ],
            "routes": [
                {"name": f"r{index}", "registry": "main", **condition}
                for index, condition in enumerate(conditions or ({},))
            ],
        }
    )
    return route_table(configuration, {"glance-v2": GlanceV2()})


def image(image_id: str = IMAGE_ID, **members: Any) -> dict[str, Any]:
    """Return an image as Glance shows one."""
    return {
        "id": image_id,
        "visibility": "public",
        "created_at": CREATED_AT,
        "owner": None,
        **members,
    }


def as_json(document: object) -> bytes:
    """Return the document as Glance spaces it."""
    return json.dumps(document).encode()
