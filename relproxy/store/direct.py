"""A journal that keeps nothing back: a create's record is in the store before its client is told.

What it can't do is survive: a create whose answer is lost, or a store that is away at that moment,
leaves an image without a record. Both are logged with everything a person needs to mend them, and
the client is never told that such a create succeeded.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from relproxy.errors import RecordNotKeptError, StoreUnavailableError
from relproxy.model import CreatedImage, ImageRecord, Intent
from relproxy.store.base import Delivery, Entry, Store

_LOG = logging.getLogger(__name__)


class DirectJournal:
    """See `relproxy.store.base.Journal`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, intent: Intent) -> Entry:
        """Refuse the create before it leaves if the store could not take its record now."""
        await self._store.check()
        return Entry(intent)

    async def complete(self, entry: Entry, record_of: CreatedImage) -> Delivery:
        """Write the record and return once it is durable."""
        record = _record(entry.intent, record_of)
        try:
            await self._store.put((record,))
        except StoreUnavailableError as failure:
            _LOG.error("record not kept", extra={"record": repr(record)}, exc_info=failure)
            raise RecordNotKeptError(
                f"The registry made image {record_of.id}, but its record could not be kept: ask an "
                "administrator before you try again."
            ) from failure
        return Delivery.CONFIRMED

    async def abandon(self, entry: Entry) -> None:
        """Forget the intent: nothing was kept."""

    async def doubt(self, entry: Entry, reason: str) -> None:
        """Tell the log: there is nowhere else to keep it."""
        _LOG.error("create in doubt", extra={"intent": repr(entry.intent), "reason": reason})


def _record(intent: Intent, image: CreatedImage) -> ImageRecord:
    project = image.owner or intent.caller_project
    if project is None:
        raise RecordNotKeptError(f"Nobody is known to own image {image.id}: it is not recorded.")
    return ImageRecord(
        registry=intent.registry,
        image_id=image.id.lower(),
        created_at=image.created_at,
        project=project,
        capture=intent.capture,
        recorded_at=datetime.now(UTC),
    )
