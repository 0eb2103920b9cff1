"""`relproxy serve`: the proxy listeners and the admin listener, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from relproxy.app import running
from relproxy.config import Configuration
from relproxy.config_file import load_configuration
from relproxy.config_warnings import warnings
from relproxy.errors import RelproxyError
from relproxy.logs import write_log
from relproxy.metrics import count_in_slot
from relproxy.sockets import bind_all
from relproxy.supervisor import supervise
from relproxy.tasks import TaskSet
from relproxy.worker import Worker

_LOG = logging.getLogger(__name__)

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
    try:
        configuration = load_configuration(arguments.config)
        write_log(configuration.log.level, worker=worker.slot if worker else None)
        if worker is None and arguments.workers > 1:
            return asyncio.run(_supervise(arguments, configuration))
        if worker is not None:
            count_in_slot(worker.slot)
        asyncio.run(_serve(configuration, worker))
    except RelproxyError as failure:
        print(failure.sentence, file=sys.stderr)
        return os.EX_CONFIG
    return 0


async def _serve(configuration: Configuration, worker: Worker | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    tasks = TaskSet()
    async with running(configuration, worker.sockets() if worker else None):
        if worker is not None:
            tasks.start(worker.attend(stopped), name="line to the supervisor")
        if worker is None or worker.slot == 0:
            for warning in warnings(configuration):
                _LOG.warning("configuration", extra={"reason": warning})
        await stopped.wait()
        await tasks.cancel()


async def _supervise(arguments: argparse.Namespace, configuration: Configuration) -> int:
    return await supervise(
        # As this process was started itself, whichever way that was.
        [sys.executable, *sys.orig_argv[1:]],
        bind_all(configuration),
        arguments.config.read_bytes(),
        count=arguments.workers,
        drain_s=2 * configuration.timeouts.shutdown_s + _DRAIN_MARGIN_S,
    )


def _worker_count(text: str) -> int:
    count = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= count <= _MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"should be a number from 1 to {_MAX_WORKERS}")
    return count
