"""`relproxy generate-installation-uuid`: a name for one Nova that is never used again."""

from __future__ import annotations

import argparse
import uuid


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "generate-installation-uuid", help="make a nova_installation_uuid for the configuration"
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print a new UUID, and the line for relproxy.yaml."""
    made = uuid.uuid4()
    print(made)
    print()
    print("In relproxy.yaml, below installations (the name is yours to choose):")
    print(f"  - {{name: nova, uuid: {made}}}")
    return 0
