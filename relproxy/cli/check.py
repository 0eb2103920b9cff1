"""`relproxy check`: every problem of a configuration at once, or that there is none."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from relproxy.certificates import Proof, certificate_warnings, read_proofs
from relproxy.config import Configuration
from relproxy.config_file import load_configuration
from relproxy.config_warnings import warnings
from relproxy.errors import ConfigurationError
from relproxy.sockets import missing_places


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("check", help="check a configuration and print every problem")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the problems, one a line; 1 if there are any."""
    try:
        configuration = load_configuration(arguments.config)
    except ConfigurationError as failure:
        print(*failure.problems, sep="\n")
        return 1
    proofs, problems = _on_this_host(configuration)
    if problems:
        print(*(f"{arguments.config}: {problem}" for problem in problems), sep="\n")
        return 1
    for warning in (*warnings(configuration), *certificate_warnings(proofs)):
        print(f"{arguments.config}: warning: {warning}")
    routes, registries = len(configuration.routes), len(configuration.registries)
    print(f"{arguments.config}: fine: {routes} route(s) to {registries} registry(ies).")
    return 0


def _on_this_host(configuration: Configuration) -> tuple[Mapping[str, Proof], Sequence[str]]:
    """Return what the files of `tls` sections hold, and what this host lacks."""
    missing = list(missing_places(configuration))
    try:
        return read_proofs(configuration), missing
    except ConfigurationError as failure:
        return {}, [*failure.problems, *missing]
