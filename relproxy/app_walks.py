"""The composition root's part about walks: on what terms one goes, and the store it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from relproxy.config import Configuration, Registry
from relproxy.errors import NotFoundError, WalkRefusedError
from relproxy.model import Tenancy
from relproxy.store.base import Store, check_names
from relproxy.store.journal_room import JournalRoom
from relproxy.stores import opened_store, store_to_read


@dataclass(frozen=True, slots=True)
class Terms:
    """How one registry is walked, and whether the store is written to.

    `installation` is whose the instances are that name none; `per_s` is pages a second.
    """

    registry: Registry
    installation: str | None
    page_size: int
    per_s: float
    writes: bool


def walked_registry(configuration: Configuration, name: str) -> Registry:
    """Return a registry that can be walked.

    Raises `NotFoundError`, and `WalkRefusedError` if it hides images from relproxy.
    """
    found = [registry for registry in configuration.registries if registry.name == name]
    if not found:
        known = ", ".join(registry.name for registry in configuration.registries)
        raise NotFoundError(f"No registry is named '{name}'; known: {known}.")
    (registry,) = found
    believes_relproxy = registry.upstream_identity == "headers"
    if registry.tenancy is Tenancy.REGISTRY and not believes_relproxy and not registry.credentials:
        raise WalkRefusedError(
            f"The registry '{name}' shows a stranger only what is public: give relproxy "
            "`credentials` of an admin for it."
        )
    return registry


def installation_of(configuration: Configuration, registry: Registry) -> str | None:
    """Return the installation of all routes to a registry, None where there isn't one of all."""
    found = {
        configuration.installation_of(route)
        for route in configuration.routes
        if route.registry == registry.name
    }
    return found.pop() if len(found) == 1 else None


@asynccontextmanager
async def walked_store(configuration: Configuration, *, writes: bool) -> AsyncIterator[Store]:
    """Lend the store; to be written to only if it is this host's."""
    opened = opened_store if writes else store_to_read
    async with opened(configuration.store) as store:
        if writes:
            settings = configuration.journal
            room = JournalRoom(settings.directory, allow_volatile=settings.allow_volatile)
            await store.claim(room.identity)
        configured = [registry.name for registry in configuration.registries]
        check_names(configured, await store.registries(), await store.renamed())
        yield store
