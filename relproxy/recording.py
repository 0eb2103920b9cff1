"""Requests after which the store has to know something: creates, changes of owners, deletions.

What is about to be done is durable before it leaves for the registry, and what was done before the
client reads of it. Both run to their end although the client may have gone.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus

from relproxy.bodies import whole, whole_response
from relproxy.config import Limits
from relproxy.errors import (
    BadRequestError,
    JournalUnavailableError,
    NotFoundError,
    NothingSentError,
    RegistryGarbageError,
    RelproxyError,
    StoreUnavailableError,
)
from relproxy.exchange import Exchange
from relproxy.failpoints import failpoint
from relproxy.filters.base import CreateBody, check_named, created_from
from relproxy.filters.headers import resized_headers, whole_body_headers
from relproxy.messages import RequestBody, Response, ResponseHead, Sender
from relproxy.metrics import Metrics
from relproxy.model import Capture, CreatedImage, ImageKey, Intent
from relproxy.store.base import Delivery, Entry, EntryKind, Journal, OwnerLookup

_LOG = logging.getLogger(__name__)

# A deletion waits no longer for a store that is slow: its record is found without, if less exactly.
_LOOKED_UP_S = 1.0
# What a registry answers before it looks at what a PATCH of an owner would do: anybody can have it
# answered so, as often as he likes.
_NOTHING_WAS_DONE = frozenset({400, 401, 404, 405, 406, 411, 413, 414, 415, 417, 429, 431})
# Of these, what it answers to the data of a request whose metadata it has already taken.
_DATA_REFUSED = frozenset({400, 413})
# What it answers to one that it may have made; the very caller can see whether it has.
_MAYBE_DONE = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT})
# Glance's v1 answers a deletion with 200, its v2 with 204.
_DELETED = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})


@dataclass(frozen=True, slots=True)
class Recording:
    """Forwards what has to be recorded.

    `goes_on_unrecorded` says that it does so even while the journal can't be written.
    """

    upstreams: Mapping[str, Sender]
    journal: Journal
    owners: OwnerLookup
    limits: Limits
    metrics: Metrics
    goes_on_unrecorded: bool

    async def create(
        self,
        exchange: Exchange,
        said: CreateBody,
        capture: Capture | None,
        *,
        data: RequestBody | None = None,
    ) -> Response:
        """Forward a create and record the image that the registry makes.

        `data` is the body of one that is said in headers. Raises what `created` raises.
        """
        registry = exchange.match.route.registry
        takes_ids = registry.assign_image_ids and exchange.dialect.takes_chosen_ids
        is_assigned = takes_ids and not said.has_id
        image_id = time_ordered_id() if is_assigned else said.chosen_id
        if is_assigned and image_id is not None:
            said = exchange.dialect.with_image_id(said, image_id)
        project = exchange.caller.project if exchange.caller else None
        intent = Intent(
            registry.name,
            project,
            capture,
            image_id,
            is_assigned=is_assigned,
            image_name=said.name,
        )
        exchange = replace(exchange, outgoing=said.headers)
        return await self.created(exchange, said.stripped if data is None else data, intent)

    async def created(
        self, exchange: Exchange, body: bytes | RequestBody, intent: Intent
    ) -> Response:
        """Forward the body of a create as it is, and record what comes of the intent.

        Raises `JournalUnavailableError`, before anything is sent, and what `Upstream.send` raises.
        """
        entry = await self._begun(intent)
        if entry is None:
            return await self._sent(exchange, body)
        response = await self._answered(exchange, entry, body)
        status = response.head.status
        if status == exchange.dialect.created_status:
            return await self._completed(exchange, entry, response)
        is_refused = 300 <= status < 500
        if is_refused and intent.is_assigned and _may_have_begun(exchange, status):
            await self._left_behind(exchange, entry)
        elif is_refused and not (intent.is_assigned and status == HTTPStatus.CONFLICT):
            await self._abandon(entry)
        else:
            # Not abandoned: the registry may have made the image. An id that relproxy has chosen
            # conflicts with nothing but an image that this very create has made.
            await self._doubt(entry, f"the registry answered {status}")
        return response

    async def _left_behind(self, exchange: Exchange, entry: Entry) -> None:
        """Record the image that a refused create has left, if it has; the registry is done with it.

        Glance's v1 makes the image before it takes its data: a killed one stays, and is whose it
        is. It is asked for by the id that relproxy has chosen, with the caller's own eyes.
        """
        try:
            image = await self._shown(exchange, entry.intent.image_id or "")
            if image is None:
                await self._abandon(entry)
            else:
                delivery = await self.journal.complete(entry, image)
                self.metrics.records.labels(exchange.registry, delivery.value).inc()
        except RelproxyError as failure:
            await self._doubt(entry, repr(failure))
        except (Exception, asyncio.CancelledError) as failure:
            await self._doubt(entry, repr(failure))
            raise

    async def owner_change(self, exchange: Exchange, body: bytes | RequestBody) -> Response:
        """Forward a PATCH that changes an owner, and record the owner that the registry takes.

        Raises `NotFoundError` for an id that no image has, and what `created` raises.
        """
        image_id = (exchange.match.operation.image_id or "").lower()
        if not exchange.dialect.is_image_id(image_id):
            # It would be the journal's whatever its size; or a database's other way to spell an id.
            raise NotFoundError(exchange.dialect.absent_image(image_id))
        entry = await self._begun(Intent(exchange.registry, None, None, image_id), EntryKind.OWNER)
        if entry is None:
            return await self._sent(exchange, body)
        response = await self._answered(exchange, entry, body)
        status = response.head.status
        if status == HTTPStatus.OK:
            image = exchange.dialect.created_image(_bytes(response))
            if image.owner is not None:
                return await self._completed(exchange, entry, response)
            await self._abandon(entry)
        elif status in _NOTHING_WAS_DONE:
            in_steps = exchange.dialect.makes_images_in_steps and status in _DATA_REFUSED
            if not (in_steps and await self._is_seen(exchange, entry)):
                await self._abandon(entry)
        elif status not in _MAYBE_DONE or not await self._is_seen(exchange, entry):
            await self._doubt(entry, f"the registry answered {status}")
        return response

    async def _is_seen(self, exchange: Exchange, entry: Entry) -> bool:
        """Record the owner of an image as the registry shows it to the very caller; False if not.

        Glance answers some changes of an owner with 403 and makes them all the same; a 409 comes of
        what is beside it in the PATCH, and anybody can have one for an image of his own. A caller
        who sees the image no longer may just have given it away.
        """
        asked_at = datetime.now(UTC)
        try:
            image = await self._shown(exchange, exchange.match.operation.image_id or "")
            if image is None or image.owner is None:
                return False
            await self.journal.complete(entry, image, at=asked_at)
        except RelproxyError:
            # The entry is in doubt then, and asked for again.
            return False
        except (Exception, asyncio.CancelledError) as failure:
            await self._doubt(entry, repr(failure))
            raise
        return True

    async def deletion(self, exchange: Exchange, body: bytes, created_at: str | None) -> Response:
        """Forward a DELETE of an image, and record that the registry has deleted it.

        `created_at` is the image's, where relproxy has seen it; else its record says it, or the
        registry, so that no image that is created anew under the id is taken for the one that is
        gone.
        """
        image_id = (exchange.match.operation.image_id or "").lower()
        created_at = (
            created_at
            or await self._recorded_at(exchange.registry, image_id)
            or await self._shown_at(exchange)
        )
        head, answer = await self._exchanged(exchange, body)
        if head.status not in _DELETED:
            return whole(head, answer)
        await self._bury(exchange.registry, ImageKey(image_id, created_at))
        # As it was said: with no length, because there is no body.
        return Response(head, answer)

    async def _recorded_at(self, registry: str, image_id: str) -> str | None:
        """Return the `created_at` of an image's record; None without one, or a store in time."""
        try:
            async with asyncio.timeout(_LOOKED_UP_S):
                found = (await self.owners.owners(registry, (image_id,))).get(image_id)
        except (StoreUnavailableError, TimeoutError):
            return None
        return found.created_at if found is not None else None

    async def _shown_at(self, exchange: Exchange) -> str | None:
        """Return the `created_at` of an image that the registry shows to the very caller."""
        try:
            async with asyncio.timeout(_LOOKED_UP_S):
                image = await self._shown(exchange, exchange.match.operation.image_id or "")
        except (RelproxyError, TimeoutError):
            return None
        return image.created_at if image is not None else None

    async def _shown(self, exchange: Exchange, image_id: str) -> CreatedImage | None:
        """Ask the registry for an image with the caller's own eyes; None if it says there is none.

        Raises `RegistryGarbageError` where it says neither.
        """
        dialect = exchange.dialect
        answer = await self.upstreams[exchange.registry].send(
            dialect.image_method,
            dialect.image_path(image_id),
            whole_body_headers(exchange.outgoing),
        )
        body = await whole_response(answer, max_bytes=self.limits.max_page_bytes)
        if answer.head.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.head.status != HTTPStatus.OK:
            raise RegistryGarbageError("The registry failed to say what this image is.")
        image = created_from(dialect.image_facts(answer.head.headers, body))
        check_named(image.id, image_id)
        return image

    async def _bury(self, registry: str, image: ImageKey) -> None:
        try:
            await self.journal.bury(registry, image)
        except JournalUnavailableError as failure:
            # Its record stays live: queries name an image that the registry no longer lists.
            _LOG.warning(
                "record not buried",
                extra={"registry": registry, "image_id": image.id},
                exc_info=failure,
            )

    async def _begun(self, intent: Intent, kind: EntryKind = EntryKind.CREATE) -> Entry | None:
        """Make the intent durable; None if that failed and the request goes on all the same."""
        try:
            return await self.journal.begin(intent, kind)
        except JournalUnavailableError as failure:
            result = "unrecorded" if self.goes_on_unrecorded else "refused"
            self.metrics.records.labels(intent.registry, result).inc()
            _LOG.error(
                "journal can't be written",
                extra={"intent": repr(intent), "result": result},
                exc_info=failure,
            )
            if not self.goes_on_unrecorded:
                raise
            return None

    async def _answered(
        self, exchange: Exchange, entry: Entry, body: bytes | RequestBody
    ) -> Response:
        """Return the registry's whole answer; if there is none, the entry is in doubt."""
        try:
            return await self._sent(exchange, body)
        except (NothingSentError, BadRequestError):
            await self._abandon(entry)
            raise
        except (Exception, asyncio.CancelledError) as failure:
            await self._doubt(entry, repr(failure))
            raise

    async def _sent(self, exchange: Exchange, body: bytes | RequestBody) -> Response:
        return whole(*await self._exchanged(exchange, body))

    async def _exchanged(
        self, exchange: Exchange, body: bytes | RequestBody
    ) -> tuple[ResponseHead, bytes]:
        upstream, headers = self.upstreams[exchange.registry], exchange.outgoing
        sent: bytes | RequestBody | None = body
        if isinstance(body, bytes):
            headers = resized_headers(headers, length=len(body))
        elif body.is_empty:
            sent = None
        method, target = exchange.request.head.method, exchange.match.target
        response = await upstream.send(method, target, headers, sent, errand=exchange.errand)
        failpoint("before-answer-read")
        return response.head, await whole_response(response, max_bytes=self.limits.max_page_bytes)

    async def _completed(self, exchange: Exchange, entry: Entry, response: Response) -> Response:
        head = response.head
        try:
            image = exchange.dialect.created_image(_bytes(response))
            check_named(image.id, entry.intent.image_id)
            delivery = await self.journal.complete(entry, image)
        except (Exception, asyncio.CancelledError) as failure:
            await self._doubt(entry, f"{failure!r}, location {head.headers.first('Location')}")
            raise
        self.metrics.records.labels(exchange.registry, delivery.value).inc()
        if (capture := entry.intent.capture) is not None:
            self.metrics.captures.labels(exchange.registry, capture.grade.value).inc()
        if delivery is Delivery.CONFIRMED:
            return response
        headers = head.headers.with_added(("X-Relproxy-Record", delivery.value))
        return Response(ResponseHead(head.status, head.reason, headers), response.body)

    async def _abandon(self, entry: Entry) -> None:
        self.metrics.records.labels(entry.intent.registry, "abandoned").inc()
        await self.journal.abandon(entry)

    async def _doubt(self, entry: Entry, reason: str) -> None:
        """Leave an entry to be settled, but for a stranger's.

        A stranger can send as many as he likes, and nothing says what he has made. He wasn't told
        that it is made, either.
        """
        if entry.is_strangers:
            await self._abandon(entry)
            return
        self.metrics.records.labels(entry.intent.registry, "in_doubt").inc()
        await self.journal.doubt(entry, reason)


def _may_have_begun(exchange: Exchange, status: int) -> bool:
    """Tell whether a create that was refused may have made its image before."""
    # Who may create is asked before anything is made.
    is_judged_first = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    return exchange.dialect.makes_images_in_steps and not is_judged_first


def time_ordered_id() -> str:
    """Return a UUID of version 7 (RFC 9562 section 5.7).

    Ids that grow with time are written side by side in the stores' indexes, the registry's too: of
    a hundred million images only the youngest pages of an index are touched. 74 bits are random.
    """
    milliseconds = time.time_ns() // 1_000_000
    high = (milliseconds << 16) | (7 << 12) | secrets.randbits(12)
    return str(uuid.UUID(int=(high << 64) | (0b10 << 62) | secrets.randbits(62)))


def _bytes(response: Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""
