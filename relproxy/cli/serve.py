"""`relproxy serve`: the proxy listeners and the admin listener, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from relproxy.app import running
from relproxy.config import Configuration
from relproxy.config_file import load_configuration, warnings
from relproxy.errors import RelproxyError
from relproxy.logs import write_log

_LOG = logging.getLogger(__name__)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("serve", help="serve, as the configuration says")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; 1 if it can't start."""
    try:
        configuration = load_configuration(arguments.config)
        write_log(configuration.log.level)
        asyncio.run(_serve(configuration))
    except RelproxyError as failure:
        print(failure.sentence, file=sys.stderr)
        return 1
    return 0


async def _serve(configuration: Configuration) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with running(configuration):
        for warning in warnings(configuration):
            _LOG.warning("configuration", extra={"reason": warning})
        await stopped.wait()
