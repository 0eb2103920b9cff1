"""`relproxy migrate`: bring the store's schema up to the version that this relproxy knows."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from relproxy.app import migrated
from relproxy.config_file import load_configuration
from relproxy.errors import RelproxyError


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("migrate", help="bring the store's schema up to date")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Migrate; 1 if that can't be done."""
    try:
        configuration = load_configuration(arguments.config)
        print(asyncio.run(migrated(configuration.store)))
    except RelproxyError as failure:
        print(failure.sentence, file=sys.stderr)
        return 1
    return 0
