"""What every command that does one thing and ends has in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from relproxy.errors import RelproxyError


def ending(verb: Callable[[argparse.Namespace], str]) -> Callable[[argparse.Namespace], int]:
    """Return what argparse is to call: it prints what `verb` returns, if that is anything.

    Its exit status is 1, with a sentence on standard error, where the verb raises a
    `RelproxyError`.
    """

    def run(arguments: argparse.Namespace) -> int:
        try:
            if said := verb(arguments):
                print(said)
        except RelproxyError as failure:
            print(failure.sentence, file=sys.stderr)
            return 1
        return 0

    return run
