"""`relproxy store claim`: let a SQLite store belong to this host."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from relproxy.app import claimed
from relproxy.config_file import load_configuration
from relproxy.errors import RelproxyError


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("store", help="look after the store")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    claiming = verbs.add_parser(
        "claim", help="let a SQLite store that was moved or restored belong to this host"
    )
    claiming.add_argument("--config", type=Path, required=True, metavar="FILE")
    claiming.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Claim; 1 if that can't be done. No other host may write the file any more."""
    try:
        identity = asyncio.run(claimed(load_configuration(arguments.config)))
    except RelproxyError as failure:
        print(failure.sentence, file=sys.stderr)
        return 1
    print(f"the store belongs to this host, whose journals are {identity}")
    return 0
