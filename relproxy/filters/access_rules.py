"""What the access rules of an application credential let it ask for.

A rule names a method and a pattern of paths: `*` and `{name}` stand for one segment or a part of
one, `**` for anything. Any user makes rules, and asks for any path: so a pattern is never a regular
expression, which could take for ever. All places of the path that the pattern may have come to are
kept as the bits of one integer, and each sign of the pattern moves them all at once.

Source: Identity API v3, "Application credentials", access_rules; keystonemiddleware, _path_matches;
MatchStar of Cameron et al., "Bitwise data parallelism in regular expression matching" (2014).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from relproxy.model import AccessRule

_PART = re.compile(r"(?P<rest>\*\*)|(?P<segment>\*|\{[^}]*\})|(?P<literal>[^*{]+|\{)")
# More than anybody writes; and each is compared with each request.
_MAX_RULES = 200


def allows(rules: Collection[AccessRule], method: str, path: str) -> bool:
    """Tell whether one of the rules lets its holder ask for this canonical path."""
    if len(rules) > _MAX_RULES:
        return False
    asked = _Path(path)
    return any(rule.method == method and asked.matches(rule.path) for rule in rules)


class _Path:
    """A path to be compared with patterns."""

    def __init__(self, path: str) -> None:
        self._length = len(path)
        # Character -> the places where it stands, as bits.
        self._places: dict[str, int] = {}
        for place, character in enumerate(path):
            self._places[character] = self._places.get(character, 0) | 1 << place
        everywhere = (1 << self._length) - 1
        self._within_segments = everywhere & ~self._places.get("/", 0)
        self._whole = (1 << self._length + 1) - 1

    def matches(self, pattern: str) -> bool:
        """Tell whether the pattern stands for the whole path."""
        reached = 1
        for part in _PART.finditer(pattern):
            if part.lastgroup == "rest":
                # Every place behind the first one: minus a power of two is all bits from it on.
                reached = -(reached & -reached) & self._whole
            elif part.lastgroup == "segment":
                reached = self._behind_segments(reached)
            else:
                for character in part[0]:
                    reached = (reached & self._places.get(character, 0)) << 1
            if not reached:
                return False
        return bool(reached >> self._length & 1)

    def _behind_segments(self, reached: int) -> int:
        """Return the places behind at least one character that is no slash."""
        within = self._within_segments
        behind_one = (reached & within) << 1
        return ((((behind_one & within) + within) ^ within) | behind_one) & self._whole
