"""`relproxy registry rename`: let records name a registry as the configuration now does."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from relproxy.cli.verbs import ending
from relproxy.config_file import load_configuration
from relproxy.stores import opened_store


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("registry", help="look after the registries that records name")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    renaming = verbs.add_parser("rename", help="rename a registry in every record")
    renaming.add_argument("old", metavar="OLD")
    renaming.add_argument("new", metavar="NEW")
    renaming.add_argument("--config", type=Path, required=True, metavar="FILE")
    renaming.set_defaults(run=ending(_rename))


def _rename(arguments: argparse.Namespace) -> str:
    asyncio.run(_renamed(arguments))
    return f"records of '{arguments.old}' now name '{arguments.new}'"


async def _renamed(arguments: argparse.Namespace) -> None:
    async with opened_store(load_configuration(arguments.config).store) as store:
        await store.rename_registry(arguments.old, arguments.new)
