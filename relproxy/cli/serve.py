"""`relproxy serve`: the proxy listeners and the admin listener, until SIGTERM or SIGINT.

SIGHUP has the configuration read anew. One process alone then serves the new one beside the old
one, until that has drained; several leave it to their supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from relproxy.accepting import raise_descriptors
from relproxy.alone import Alone, live
from relproxy.app import running
from relproxy.certificates import to_text
from relproxy.config import Configuration
from relproxy.config_file import load_configuration, parse_configuration, read_text
from relproxy.crew import Outfit, in_memory
from relproxy.errors import RelproxyError
from relproxy.logs import write_log
from relproxy.metric_slots import DIRECTORY_VARIABLE, SUPERVISOR_SLOT, count_in_slot
from relproxy.metrics import Metrics
from relproxy.reload import Reloads, Replace
from relproxy.sockets import Sockets, bind_all
from relproxy.supervisor import Supervisor
from relproxy.systemd import Herald, herald_of
from relproxy.tasks import TaskSet
from relproxy.worker import Order, Orders, Worker

_MAX_WORKERS = 256
# What `running` may take to end: requests, then creates whose clients left, then the relay.
_DRAIN_MARGIN_S = 15.0


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("serve", help="serve, as the configuration says")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--workers",
        type=_worker_count,
        default=1,
        metavar="N",
        help="processes that serve together on the same addresses (default: 1)",
    )
    # A supervisor starts its workers with it.
    parser.add_argument("--as-worker", type=Worker.from_argument, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; EX_CONFIG if it refuses to start, and would again."""
    worker: Worker | None = arguments.as_worker
    raise_descriptors()
    try:
        if worker is not None:
            return _work(arguments.config, worker, count=arguments.workers)
        text = read_text(arguments.config)
        configuration = parse_configuration(text, str(arguments.config))
        write_log(configuration.log.level)
        if arguments.workers > 1:
            return asyncio.run(
                _supervise(arguments.config, configuration, text, count=arguments.workers)
            )
        asyncio.run(_serve_alone(arguments.config, configuration))
    except RelproxyError as failure:
        print(failure.sentence, file=sys.stderr)
        return os.EX_CONFIG
    return 0


def _work(file: Path, worker: Worker, *, count: int) -> int:
    try:
        configuration = load_configuration(file)
        write_log(configuration.log.level, worker=worker.slot)
        count_in_slot(worker.slot)
        asyncio.run(_serve_as(worker, configuration, count=count))
    except RelproxyError as failure:
        worker.refuse(failure.sentence)
        raise
    return 0


async def _serve_as(worker: Worker, configuration: Configuration, *, count: int) -> None:
    orders, tasks = Orders(), TaskSet()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, orders.give, Order.STOP)
    for number in (signal.SIGINT, signal.SIGHUP):
        # A terminal sends them to all; the supervisor says what they mean.
        signal.signal(number, signal.SIG_IGN)

    def begin() -> None:
        tasks.start(worker.attend(orders), name="line to the supervisor")

    life = running(configuration, worker.sockets(), Metrics(), workers=count)
    await live(life, orders, begin)
    await tasks.cancel()


async def _serve_alone(file: Path, configuration: Configuration) -> None:
    metrics, herald = Metrics(), herald_of(os.environ)
    alone = Alone(metrics)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, alone.heed, number)
    reloads = Reloads(file, configuration, bind_all(configuration), metrics, herald)
    tasks = TaskSet()
    with _removing_files(reloads):
        try:
            await alone.replace(configuration, "", reloads.bound.sockets)
            herald.ready("Serving.")
            # Said by the event loop that serves: one that hangs says nothing.
            tasks.start(herald.watch(lambda: True), name="watchdog")
            async with _reloading(reloads, alone.replace):
                await alone.until_over()
        finally:
            # Or connections would go on to wait here, with nobody to accept them.
            reloads.bound.sockets.close()
        herald.stopping()
        await alone.end()
    await tasks.cancel()


async def _supervise(file: Path, configuration: Configuration, text: str, *, count: int) -> int:
    with TemporaryDirectory(prefix="relproxy-") as directory:
        os.environ[DIRECTORY_VARIABLE] = directory
        count_in_slot(SUPERVISOR_SLOT)
        bound, herald = bind_all(configuration), herald_of(os.environ)
        supervisor = Supervisor(_outfit(configuration, text, bound.sockets), count=count)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _heed, supervisor, herald)

        async def replace(configuration: Configuration, text: str, sockets: Sockets) -> None:
            await supervisor.replace(_outfit(configuration, text, sockets))

        tasks = TaskSet()
        tasks.start(_tell_of(supervisor, herald), name="watchdog")
        reloads = Reloads(file, configuration, bound, Metrics(), herald)
        with _removing_files(reloads):
            async with _reloading(reloads, replace):
                status = await supervisor.run()
        await tasks.cancel()
        return status


def _heed(supervisor: Supervisor, herald: Herald) -> None:
    herald.stopping()
    supervisor.heed()


async def _tell_of(supervisor: Supervisor, herald: Herald) -> None:
    await supervisor.until_begun()
    herald.ready("Serving.")
    await herald.watch(lambda: supervisor.is_serving)


def _outfit(configuration: Configuration, text: str, sockets: Sockets) -> Outfit:
    timeouts = configuration.timeouts
    return Outfit(
        # As this process was started itself, whichever way that was.
        [sys.executable, *sys.orig_argv[1:]],
        sockets,
        in_memory(text),
        in_memory(to_text(sockets.proofs)),
        Path(os.environ[DIRECTORY_VARIABLE]),
        drain_s=timeouts.notice_s + 2 * timeouts.shutdown_s + _DRAIN_MARGIN_S,
        hang_s=timeouts.hang_s,
    )


@asynccontextmanager
async def _reloading(reloads: Reloads, replace: Replace) -> AsyncIterator[None]:
    """Reload at SIGHUP, for as long as the context lasts."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloads.ask)
    tasks = TaskSet()
    tasks.start(reloads.run(replace), name="reloads")
    try:
        yield
    finally:
        await tasks.cancel()


@contextmanager
def _removing_files(reloads: Reloads) -> Iterator[None]:
    """Remove the files of Unix sockets in the end, when nobody accepts there any more."""
    try:
        yield
    finally:
        reloads.bound.remove_files()


def _worker_count(text: str) -> int:
    count = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= count <= _MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"should be a number from 1 to {_MAX_WORKERS}")
    return count
