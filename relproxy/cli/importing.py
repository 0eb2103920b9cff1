"""`relproxy import`: record what a registry had before relproxy (docs/operations.md)."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

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
from relproxy.errors import WalkRefusedError
from relproxy.importing import FOR_A_PERSON, Import
from relproxy.model import Tenancy
from relproxy.owner_list import check_all, read_owners
from relproxy.walk_file import WalkFile

_NOT_THERE = "not in registry"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("import", help="record the images that a registry has already")
    add_arguments(parser)
    parser.add_argument(
        "--owners", type=Path, metavar="FILE.csv",
        help="image_id and project, for a registry that has no owners",
    )  # fmt: skip
    parser.set_defaults(run=exiting(_import))


def _import(arguments: argparse.Namespace) -> int:
    configuration, terms = terms_of(arguments, writes=True)
    owners: Path | None = arguments.owners
    if owners is not None and terms.registry.tenancy is Tenancy.REGISTRY:
        raise WalkRefusedError(f"The registry '{arguments.registry}' names owners itself.")
    told = {
        "command": "import",
        "registry": arguments.registry,
        "installation": terms.installation,
        "owners": None if owners is None else _digest(owners),
    }
    with opened_file(arguments, configuration, told) as file:
        if owners is not None and not file.fact("has_owners"):
            _take_owners(file, owners)
        asyncio.run(_imported(configuration, terms, file))
        left = list(dict.fromkeys(file.counts().keys() & set(FOR_A_PERSON)))
        report(arguments, _told(file), file.counts())
        is_unmet = next(file.unmet_owners(), None) is not None
        file.remove()
    return LEFT_OVER if left or is_unmet else 0


def _take_owners(file: WalkFile, owners: Path) -> None:
    try:
        check_all(owners, file.take_owners(read_owners(owners)))
    except WalkRefusedError:
        # Nothing was begun: the list comes again, and is another one then.
        file.remove()
        raise
    file.note((), {"has_owners": True})


def _digest(owners: Path) -> str:
    try:
        with owners.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as failure:
        raise WalkRefusedError(f"{owners} can't be read: {failure.strerror}.") from failure


async def _imported(configuration: Configuration, terms: Terms, file: WalkFile) -> None:
    with progressing() as progress:
        async with walking_beside(configuration, terms) as parts:
            await Import(parts, file, progress).run()


def _told(file: WalkFile) -> Iterator[Told]:
    yield from map(told_of, file.findings(*FOR_A_PERSON))
    for owner in file.unmet_owners():
        yield Told(_NOT_THERE, owner.image_id, f"line {owner.line} of the list of owners")
