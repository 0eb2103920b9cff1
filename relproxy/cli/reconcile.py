"""`relproxy reconcile`: where a registry and its records differ (docs/operations.md)."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence

from relproxy.app import walking_beside
from relproxy.app_walks import Terms
from relproxy.cli.walk import (
    LEFT_OVER,
    Told,
    add_arguments,
    exiting,
    opened_file,
    progressing,
    report,
    terms_of,
    told_of,
)
from relproxy.config import Configuration
from relproxy.reconciling import DIFFERENCES, FOR_A_PERSON, Reconciliation
from relproxy.store.journal_row import Row
from relproxy.walk_file import WalkFile


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("reconcile", help="compare a registry with its records")
    add_arguments(parser)
    parser.add_argument("--apply", action="store_true", help="change the records accordingly")
    parser.add_argument(
        "--bury-most", action="store_true",
        help="apply even where the registry lacks most images that have a record",
    )  # fmt: skip
    parser.set_defaults(run=exiting(_reconcile))


def _reconcile(arguments: argparse.Namespace) -> int:
    applies: bool = arguments.apply
    configuration, terms = terms_of(arguments, writes=applies)
    told = {
        "command": "reconcile",
        "registry": arguments.registry,
        "installation": terms.installation,
        "apply": applies,
    }
    with opened_file(arguments, configuration, told) as file:
        doubtful = asyncio.run(_reconciled(configuration, terms, file, arguments))
        report(arguments, _told(file, doubtful), file.counts())
        left = set(FOR_A_PERSON) | (set() if applies else set(DIFFERENCES))
        is_left = bool(left.intersection(file.counts())) or bool(doubtful)
        file.remove()
    return LEFT_OVER if is_left else 0


async def _reconciled(
    configuration: Configuration, terms: Terms, file: WalkFile, arguments: argparse.Namespace
) -> Sequence[Row]:
    with progressing() as progress:
        async with walking_beside(configuration, terms) as parts:
            found = Reconciliation(parts, file, progress, applies=arguments.apply)
            await found.run(may_bury_most=arguments.bury_most)
            return await found.in_doubt()


def _told(file: WalkFile, doubtful: Sequence[Row]) -> Iterator[Told]:
    yield from map(told_of, file.findings(*DIFFERENCES, *FOR_A_PERSON))
    for row in doubtful:
        yield Told("in doubt", row.image_id or "-", f"entry {row.id}: {row.reason or '-'}")
