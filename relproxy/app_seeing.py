"""The composition root's part about seeing: what becomes of the account of each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from relproxy.account import Account, Accounts
from relproxy.config import Configuration
from relproxy.logs import tell_request
from relproxy.metrics import Metrics
from relproxy.spans import opened_spans
from relproxy.tasks import TaskSet

# Less than any interval at which metrics are scraped; with ten thousand connections it takes
# some milliseconds.
_LOOK_S = 5.0


@asynccontextmanager
async def opened_accounts(
    configuration: Configuration, metrics: Metrics
) -> AsyncIterator[Accounts]:
    """Lend what opens an account for each request.

    Raises `ConfigurationError` if spans are asked for and can't be had.
    """
    metrics.begin_at_zero(registry.name for registry in configuration.registries)
    tell: list[Callable[[Account], None]] = []
    async with AsyncExitStack() as opened:
        if configuration.log.access:
            tell.append(_tell_request)
        if configuration.log.spans:
            tell.append((await opened.enter_async_context(opened_spans())).tell)
        yield Accounts(metrics, *tell)


@asynccontextmanager
async def looking(metrics: Metrics) -> AsyncIterator[None]:
    """Look at this process from time to time: another one may be asked how it is."""
    tasks = TaskSet()

    async def look() -> None:
        while True:
            metrics.look()
            await asyncio.sleep(_LOOK_S)

    tasks.start(look(), name="looking")
    try:
        yield
    finally:
        await tasks.cancel()


def _tell_request(account: Account) -> None:
    tell_request(account.told())
