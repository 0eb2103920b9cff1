"""What `relproxy import` and `relproxy reconcile` have in common: arguments, report, exit."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from relproxy.app_walks import Terms, installation_of, walked_registry
from relproxy.cli.progress import ProgressLine
from relproxy.config import Configuration
from relproxy.config_file import load_configuration
from relproxy.errors import RelproxyError
from relproxy.filters.capture import canonical_installation
from relproxy.logs import write_log
from relproxy.walk_file import Finding, WalkFile
from relproxy.walking import counted

# Something is left to a person: neither success nor the failure of a walk that wasn't finished.
LEFT_OVER = 3
# 250 of Glance's images take 300 ms: a third of one of its workers, and 100,000 in seven minutes.
_PAGE_SIZE = 250
_PER_S = 1.0
_LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Told:
    """A line of the report."""

    what: str
    image_id: str
    detail: str

    def line(self) -> str:
        """Return it for a person; what a registry says may be anything."""
        text = f"{self.what:<18} {self.image_id:<36} {self.detail}".rstrip()
        return text if text.isprintable() else ascii(text)[1:-1]

    def document(self) -> str:
        """Return it for a program."""
        return json.dumps(
            {"finding": self.what, "image_id": self.image_id, "detail": self.detail or None}
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of both."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--registry", required=True, metavar="R", help="which registry")
    parser.add_argument(
        "--installation", metavar="UUID",
        help="whose the instances are that images name (default: that of all routes to it)",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=_rate, default=_PER_S, metavar="N",
        help="pages asked for in a second, or ten times as many single images (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=_page_size, default=_PAGE_SIZE, metavar="N",
        help=f"images of a page (default: {_PAGE_SIZE})",
    )  # fmt: skip
    parser.add_argument(
        "--anew", action="store_true", help="don't go on with a walk that was broken off"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON document a line, the last with the counts"
    )


def exiting(verb: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return what argparse is to call: 1, and a sentence, where `verb` raises."""

    def run(arguments: argparse.Namespace) -> int:
        # What holds a walk up, as it happens.
        write_log("WARNING")
        try:
            return verb(arguments)
        except RelproxyError as failure:
            print(failure.sentence, file=sys.stderr)
            return 1

    return run


def terms_of(arguments: argparse.Namespace, *, writes: bool) -> tuple[Configuration, Terms]:
    """Read the configuration, and on what terms its registry is walked."""
    configuration = load_configuration(arguments.config)
    registry = walked_registry(configuration, arguments.registry)
    installation = installation_of(configuration, registry)
    if arguments.installation is not None:
        installation = canonical_installation(arguments.installation, "--installation")
    return configuration, Terms(registry, installation, arguments.page, arguments.rate, writes)


@contextmanager
def opened_file(
    arguments: argparse.Namespace, configuration: Configuration, terms: Mapping[str, object]
) -> Iterator[WalkFile]:
    """Lend the file of a walk, and say so if one is gone on with."""
    name = f"{terms['command']}-{arguments.registry}.db"
    path = configuration.journal.directory / "walks" / name
    with closing(WalkFile(path, terms, is_anew=arguments.anew)) as file:
        if file.was_begun:
            done = sum(file.counts().values())
            print(
                f"going on with what was begun at {file.begun_at:%Y-%m-%dT%H:%M:%SZ}, "
                f"{done} images done",
                file=sys.stderr,
            )
        yield file


@contextmanager
def progressing() -> Iterator[ProgressLine]:
    """Lend what shows progress."""
    with closing(ProgressLine()) as line:
        yield line


def report(arguments: argparse.Namespace, told: Iterator[Told], counts: Mapping[str, int]) -> None:
    """Print each line as it comes, and then the counts."""
    for each in told:
        print(each.document() if arguments.json else each.line())
    if arguments.json:
        print(json.dumps({"counts": dict(counts), "images": sum(counts.values())}))
    else:
        print(counted(counts))


def told_of(finding: Finding) -> Told:
    """Return the line of a finding."""
    return Told(finding.outcome, finding.image_id, finding.detail)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError("should be a number above 0")
    return rate


def _page_size(text: str) -> int:
    size = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= size <= _LARGEST_PAGE:
        raise argparse.ArgumentTypeError(f"should be a number from 1 to {_LARGEST_PAGE}")
    return size
