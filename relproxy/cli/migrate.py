"""`relproxy migrate`: bring the store's schema up to the version that this relproxy knows."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from relproxy.cli.verbs import ending
from relproxy.config_file import load_configuration
from relproxy.stores import migrated


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("migrate", help="bring the store's schema up to date")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.set_defaults(run=ending(_migrate))


def _migrate(arguments: argparse.Namespace) -> str:
    return asyncio.run(migrated(load_configuration(arguments.config).store))
