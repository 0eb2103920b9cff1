"""The composition root's part about remembering: the journals, the store, what joins them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

from relproxy.config import Configuration
from relproxy.errors import StoreRefusedError, StoreUnavailableError
from relproxy.metrics import Metrics
from relproxy.store.adoption import Adoption
from relproxy.store.base import Store, check_names
from relproxy.store.host_journals import HostJournals
from relproxy.store.journal import LocalJournal
from relproxy.store.journal_room import JournalRoom, open_journal
from relproxy.store.overlay import Overlay
from relproxy.store.relay import Relay, Terms
from relproxy.stores import opened_store

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recorder:
    """What remembers: this worker's journal, its way to the store, and what all of them know."""

    journal: LocalJournal
    relay: Relay
    adoption: Adoption
    journals: HostJournals
    overlay: Overlay
    metrics: Metrics


async def open_store(store: Store, configuration: Configuration) -> None:
    """Open the store; one that is away for now is no reason not to serve what needs none.

    Raises `StoreRefusedError` if it knows the registries by other names than the configuration.
    """
    with _going_on_without_it():
        await store.open()
        configured = [registry.name for registry in configuration.registries]
        check_names(configured, await store.registries(), await store.renamed())


async def _owned(store: Store, room: JournalRoom) -> None:
    """See that this host may write the store; one that is away for now can be any number's."""
    with _going_on_without_it():
        await store.claim(room.identity)


@contextmanager
def _going_on_without_it() -> Iterator[None]:
    """Go on where the store is away; not where it refuses this relproxy."""
    try:
        yield
    except StoreRefusedError:
        raise
    except StoreUnavailableError as failure:
        _LOG.error("store is away", extra={"reason": failure.sentence}, exc_info=failure)


async def claimed(configuration: Configuration) -> str:
    """Take the store for this host; return the identity of its directory of journals.

    Raises `JournalRefusedError` and `StoreUnavailableError`.
    """
    settings = configuration.journal
    room = JournalRoom(settings.directory, allow_volatile=settings.allow_volatile)
    async with opened_store(configuration.store) as store:
        await store.claim(room.identity, by_force=True)
    return room.identity


async def opened_recorder(
    opened: AsyncExitStack, configuration: Configuration, store: Store, metrics: Metrics
) -> Recorder:
    """Open the journal of this worker, and put together what remembers with it.

    Raises `JournalRefusedError` and `StoreRefusedError`.
    """
    settings = configuration.journal
    room = JournalRoom(settings.directory, allow_volatile=settings.allow_volatile)
    await _owned(store, room)
    slot = room.claim()
    opened.callback(slot.release)
    file = await asyncio.to_thread(open_journal, slot)
    if slot.was_broken:
        metrics.journals_broken.inc()
    journal = LocalJournal(file)
    opened.push_async_callback(journal.close)
    journals = HostJournals(settings.directory)
    opened.push_async_callback(journals.close)
    terms = Terms(
        configuration.store.confirm_wait_s,
        settings.keep_delivered_s,
        configuration.store.keep_deleted_days,
    )
    relay = Relay(journal, store, metrics, terms)
    adoption = Adoption(room, journal, relay, metrics)
    return Recorder(journal, relay, adoption, journals, Overlay(journals, store), metrics)
