"""From arguments to a command."""

from __future__ import annotations

import argparse
import sys

from relproxy import __version__
from relproxy.cli import (
    check,
    explain,
    generate_installation_uuid,
    importing,
    journal,
    migrate,
    reconcile,
    registry,
    serve,
    store,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="relproxy", description=__doc__)
    parser.add_argument("--version", action="version", version=f"relproxy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (
        *(serve, check, explain, migrate, journal, registry, store, importing, reconcile),
        generate_installation_uuid,
    ):
        command.add_to(commands)
    parsed = parser.parse_args(arguments)
    status: int = parsed.run(parsed)
    return status


if __name__ == "__main__":
    sys.exit(main())
