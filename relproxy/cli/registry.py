"""`relproxy registry rename | free`: let records name a registry as the configuration now does.

What is put under the old name, by a journal that has it still, is the renamed registry's until the
name is free again.
"""

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
    freeing = verbs.add_parser("free", help="let a registry's old name be another registry's")
    freeing.add_argument("old", metavar="OLD")
    freeing.add_argument("--config", type=Path, required=True, metavar="FILE")
    freeing.set_defaults(run=ending(_free))


def _rename(arguments: argparse.Namespace) -> str:
    asyncio.run(_renamed(arguments))
    return f"records of '{arguments.old}' now name '{arguments.new}'"


async def _renamed(arguments: argparse.Namespace) -> None:
    async with opened_store(load_configuration(arguments.config).store) as store:
        await store.rename_registry(arguments.old, arguments.new)


def _free(arguments: argparse.Namespace) -> str:
    asyncio.run(_freed(arguments))
    return f"'{arguments.old}' is free"


async def _freed(arguments: argparse.Namespace) -> None:
    async with opened_store(load_configuration(arguments.config).store) as store:
        await store.free_name(arguments.old)
