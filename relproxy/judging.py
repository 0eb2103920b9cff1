"""What relproxy decides about a request, besides who may do it at all (`exchange.py`).

The flow asks here before it acts. A route in shadow asks the same, and acts on nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from relproxy.errors import BadRequestError, NotFoundError
from relproxy.exchange import Exchange
from relproxy.filters.access import create_objection, effect_objection
from relproxy.filters.base import BodyEffect, CreateBody
from relproxy.filters.capture import MetadataHeaders, read_capture
from relproxy.filters.trust import TrustedSources
from relproxy.filters.visibility import is_own, may_see
from relproxy.inspection import Inspected, Inspector
from relproxy.model import Access, Capture


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides, and changes nothing."""

    trusted_sources: TrustedSources
    metadata_headers: MetadataHeaders
    inspector: Inspector

    def capture(self, exchange: Exchange, said: CreateBody) -> Capture | None:
        """Return the instance that a create names; raises `BadRequestError` for half of one."""
        head = exchange.request.head
        return read_capture(
            head.headers,
            said.metadata,
            names=self.metadata_headers,
            is_trusted=self.trusted_sources.include(head, exchange.caller),
            route_installation=exchange.match.route.installation,
        )

    def check_create(self, exchange: Exchange, said: CreateBody) -> None:
        """Raise `ForbiddenError` if the caller may not create this, at the only wall."""
        if not exchange.is_only_wall or exchange.caller is None:
            return
        may_choose_id = exchange.match.route.registry.chosen_image_ids == "allow"
        refused = create_objection(said, exchange.caller, may_choose_id=may_choose_id)
        if refused is not None:
            raise refused

    def check_id(self, exchange: Exchange, said: CreateBody) -> None:
        """Raise `BadRequestError` if the chosen id of an image that is to be recorded won't do."""
        dialect = exchange.dialect
        if said.chosen_id is None or dialect.is_recordable_id(said.chosen_id):
            return
        if dialect.takes_chosen_ids:
            raise BadRequestError("'id' has to be a UUID in lower case with hyphens.")
        raise BadRequestError("'id' has to be a number as the registry writes it.")

    def effect(self, exchange: Exchange, body: bytes) -> BodyEffect | None:
        """Return what not everyone may do with this request; raises if the caller may not."""
        effect = exchange.dialect.effect(exchange.match.operation, exchange.outgoing, body)
        if effect is not None and exchange.is_only_wall:
            refused = effect_objection(effect, exchange.caller)
            if refused is not None:
                raise refused
        return effect

    async def own_or_visible(self, exchange: Exchange) -> Inspected:
        """Return what the registry says of the image, if the caller may do this with it.

        A foreign image and one that doesn't exist raise the same `NotFoundError`, after the same
        look-ups.
        """
        operation = exchange.match.operation
        image_id = operation.image_id or ""
        found = await self.inspector.inspect(exchange, image_id)
        allowed = is_own if operation.access is Access.OWN else may_see
        if found is None or not allowed(exchange.viewer(), found.facts, found.ownership):
            raise NotFoundError(exchange.dialect.absent_image(image_id))
        return found
