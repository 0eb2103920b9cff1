"""`relproxy registry rename`: let records name a registry as the configuration now does."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from relproxy.app import opened_store
from relproxy.config_file import load_configuration
from relproxy.errors import RelproxyError


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("registry", help="look after the registries that records name")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    renaming = verbs.add_parser("rename", help="rename a registry in every record")
    renaming.add_argument("old", metavar="OLD")
    renaming.add_argument("new", metavar="NEW")
    renaming.add_argument("--config", type=Path, required=True, metavar="FILE")
    renaming.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Rename; 1 if that can't be done. Every relproxy has to be stopped."""
    try:
        asyncio.run(_rename(arguments))
    except RelproxyError as failure:
        print(failure.sentence, file=sys.stderr)
        return 1
    print(f"records of '{arguments.old}' now name '{arguments.new}'")
    return 0


async def _rename(arguments: argparse.Namespace) -> None:
    async with opened_store(load_configuration(arguments.config).store) as store:
        await store.rename_registry(arguments.old, arguments.new)
