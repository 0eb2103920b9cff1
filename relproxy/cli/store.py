"""`relproxy store claim | copy`: let a store belong to this host; copy one to another."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from relproxy.app_recording import claimed
from relproxy.cli.verbs import ending
from relproxy.config_file import load_configuration
from relproxy.store.copying import Digest, compare, copy
from relproxy.stores import opened_store

_SAID_EVERY = 10_000


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("store", help="look after the store")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    claiming = verbs.add_parser(
        "claim", help="let a SQLite store that was moved or restored belong to this host"
    )
    claiming.add_argument("--config", type=Path, required=True, metavar="FILE")
    claiming.set_defaults(run=ending(_claim))
    copying = verbs.add_parser("copy", help="copy every record, and see that both have the same")
    copying.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="FILE",
        help="the configuration of the store that has the records",
    )  # fmt: skip
    copying.add_argument(
        "--to", dest="target", type=Path, required=True, metavar="FILE",
        help="the configuration of the store that gets them, its schema made",
    )  # fmt: skip
    copying.add_argument("--after", metavar="PLACE", help="go on from a place that was printed")
    copying.set_defaults(run=ending(_copy))


def _claim(arguments: argparse.Namespace) -> str:
    identity = asyncio.run(claimed(load_configuration(arguments.config)))
    return f"the store belongs to this host, whose journals are {identity}"


def _copy(arguments: argparse.Namespace) -> str:
    found = asyncio.run(_copied(arguments))
    return f"both stores hold {found.records} records, checksum {found.checksum}"


async def _copied(arguments: argparse.Namespace) -> Digest:
    said = 0

    def progress(copied: int, place: str) -> None:
        nonlocal said
        if copied - said >= _SAID_EVERY:
            said = copied
            print(f"{copied} records copied; to go on from here: --after {place}", file=sys.stderr)

    ends = [load_configuration(file).store for file in (arguments.source, arguments.target)]
    async with opened_store(ends[0]) as source, opened_store(ends[1]) as target:
        await copy(source, target, after=arguments.after, progress=progress)
        return await compare(source, target)
