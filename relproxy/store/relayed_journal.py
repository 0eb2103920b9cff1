"""The journal as the flow sees it: what it makes durable, the relay takes to the store at once."""

from __future__ import annotations

from datetime import datetime

from relproxy.model import CreatedImage, ImageKey, Intent
from relproxy.store.base import Delivery, Entry, EntryKind
from relproxy.store.journal import LocalJournal, new_entry
from relproxy.store.relay import Relay


class RelayedJournal:
    """The flow's journal: see `relproxy.store.base.Journal`."""

    def __init__(self, journal: LocalJournal, relay: Relay) -> None:
        self._journal = journal
        self._relay = relay

    async def begin(self, intent: Intent, kind: EntryKind = EntryKind.CREATE) -> Entry:
        """Make an intent durable."""
        return await self._journal.begin(intent, kind)

    async def complete(
        self, entry: Entry, image: CreatedImage, *, at: datetime | None = None
    ) -> Delivery:
        """Make the end durable, then wait a little for the store."""
        with self._relay.expected(entry.id) as delivered:
            await self._journal.complete(entry, image, at=at)
            return await self._relay.confirmed(delivered)

    async def abandon(self, entry: Entry) -> None:
        """Give an intent up."""
        await self._journal.abandon(entry)

    async def doubt(self, entry: Entry, reason: str) -> None:
        """Leave an intent to be settled."""
        await self._journal.doubt(entry, reason)

    async def bury(self, registry: str, image: ImageKey) -> Delivery:
        """Make a deletion durable, then wait a little for the store."""
        entry = new_entry(EntryKind.BURIAL, Intent(registry, None, None, image.id))
        with self._relay.expected(entry.id) as delivered:
            await self._journal.bury(entry, image.created_at)
            return await self._relay.confirmed(delivered)
