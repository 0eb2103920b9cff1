"""What the access rules of an application credential let it ask for.

A rule names a method and a pattern of paths: `*` and `{name}` stand for one segment or a part of
one, `**` for anything.

Source: Identity API v3, "Application credentials", access_rules; keystonemiddleware, _path_matches.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from relproxy.model import AccessRule

_PART = re.compile(r"(?P<rest>\*\*)|(?P<segment>\*|\{[^}]*\})|(?P<literal>[^*{]+|\{)")
_STANDS_FOR = {"rest": ".*", "segment": "[^/]+"}


def allows(rules: Iterable[AccessRule], method: str, path: str) -> bool:
    """Tell whether one of the rules lets its holder ask for this canonical path."""
    return any(rule.method == method and _pattern(rule.path).fullmatch(path) for rule in rules)


@functools.lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    # Whatever is in a path pattern but these signs stands for itself.
    parts = (_STANDS_FOR.get(m.lastgroup or "") or re.escape(m[0]) for m in _PART.finditer(text))
    return re.compile("".join(parts))
