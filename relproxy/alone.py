"""One process that serves: until it is told to end, or a new configuration beside the old one."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from relproxy.accepting import Crowd
from relproxy.app import Running, running
from relproxy.config import Configuration
from relproxy.logs import write_log
from relproxy.metrics import Metrics
from relproxy.sockets import Sockets
from relproxy.tasks import TaskSet
from relproxy.worker import Order, Orders

_LOG = logging.getLogger(__name__)


async def live(
    life: AbstractAsyncContextManager[Running], orders: Orders, begin: Callable[[], None]
) -> None:
    """Serve until there is an order to end; `begin` is called once it is served."""
    async with life as served:
        begin()
        match await orders.wait():
            case Order.STOP:
                await served.departure.announce()
            case Order.RETIRE:
                await served.departure.retire()
            case Order.ABANDONED:
                # Nobody is left to notice, and the ports have to be free.
                pass


class Alone:
    """A process without workers: it has one life for each configuration."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._crowd = Crowd(metrics)
        self._tasks = TaskSet()
        self._orders = Orders()
        self._lives: list[asyncio.Task[None]] = []
        self._is_over = asyncio.Event()

    def heed(self, number: signal.Signals) -> None:
        """Do what a signal says: stop; and what a second one says: at once."""
        if self._is_over.is_set():
            # Like a crash, which costs no record: the journal's next start goes on.
            _LOG.warning("ended at once", extra={"signal": number.name})
            os._exit(1)
        self._is_over.set()

    async def replace(self, configuration: Configuration, _: str, sockets: Sockets) -> None:
        """Serve a configuration, and no longer the one that is served now.

        Raises what `running` does; then nothing has changed.
        """
        orders, begun = Orders(), asyncio.Event()
        held = sockets.duplicate()
        life = self._tasks.start(
            live(self._served(configuration, held), orders, begun.set), name="life"
        )
        life.add_done_callback(lambda _: begun.set())
        self._lives.append(life)
        try:
            await begun.wait()
        except asyncio.CancelledError:
            orders.give(Order.ABANDONED)
            raise
        if life.done():
            self._lives.remove(life)
            return await life
        write_log(configuration.log.level)
        self._orders.give(Order.RETIRE)
        self._orders = orders
        life.add_done_callback(lambda life: self._has_ended(life, orders))
        return None

    def _served(
        self, configuration: Configuration, sockets: Sockets
    ) -> AbstractAsyncContextManager[Running]:
        return running(configuration, sockets, self._metrics, crowd=self._crowd)

    async def until_over(self) -> None:
        """Wait until this process is told to stop, or can't go on."""
        await self._is_over.wait()

    async def end(self) -> None:
        """Stop, and wait until everything has ended; raises what it failed with."""
        self._orders.give(Order.STOP)
        await asyncio.gather(*self._lives)

    def _has_ended(self, life: asyncio.Task[None], orders: Orders) -> None:
        if not orders.are_given:
            self._is_over.set()
        elif not life.cancelled() and life.exception() is None:
            self._lives.remove(life)
