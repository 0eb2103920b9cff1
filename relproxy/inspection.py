"""Looking at one image before a caller may do something with it, or name it as a marker.

The same look-ups, in the same order, whether the image is foreign, absent or the caller's own: the
record first, then the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relproxy.bodies import whole, whole_response
from relproxy.config import Limits
from relproxy.errors import RegistryGarbageError
from relproxy.exchange import Exchange
from relproxy.filters.base import check_named
from relproxy.filters.headers import whole_body_headers
from relproxy.filters.visibility import ImageFacts
from relproxy.messages import Response, Sender
from relproxy.model import Ownership
from relproxy.store.base import OwnerLookup


@dataclass(frozen=True, slots=True)
class Inspected:
    """One image: what the registry says of it, its record, and the registry's whole answer."""

    facts: ImageFacts
    ownership: Ownership | None
    response: Response


class Inspector:
    """Looks at images."""

    def __init__(
        self, upstreams: Mapping[str, Sender], owners: OwnerLookup, limits: Limits
    ) -> None:
        self._upstreams = upstreams
        self._owners = owners
        self._limits = limits

    async def inspect(self, exchange: Exchange, image_id: str) -> Inspected | None:
        """Return what is known of an image; None where the registry has none with this id.

        Nobody is asked for what can be no image's id: a database may read it as another one's.
        Raises `StoreUnavailableError`, `RegistryGarbageError` where the registry answers neither
        with the image nor with 404, and what `Upstream.send` raises.
        """
        if not exchange.dialect.is_image_id(image_id):
            return None
        owners = await self._owners.owners(exchange.registry, (image_id.lower(),))
        response = await self._upstreams[exchange.registry].send(
            exchange.dialect.image_method,
            exchange.dialect.image_path(image_id),
            whole_body_headers(exchange.outgoing),
        )
        body = await whole_response(response, max_bytes=self._limits.max_page_bytes)
        if response.head.status == 404:
            return None
        if response.head.status != 200:
            raise RegistryGarbageError("The registry failed to say what this image is.")
        facts = exchange.dialect.image_facts(response.head.headers, body)
        check_named(facts.id, image_id)
        return Inspected(facts, owners.get(image_id.lower()), whole(response.head, body))
