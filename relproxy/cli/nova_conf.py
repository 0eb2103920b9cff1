"""The text of a nova.conf with an installation in it: a line is added or changed, no more.

A line means what oslo.config's own reader takes it for (oslo_config/iniparser.py): sections in any
case, `=` or `:` after a key, and a line that begins with a blank goes on the one before.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from relproxy.errors import ConfigurationError

_SECTION = "relproxy"
_KEY = "nova_installation_uuid"
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_HEADER = re.compile(r"\[(.*)\]")
_ASSIGNMENT = re.compile(r"([^=:]*?)\s*[=:]\s*(.*)")


@dataclass(frozen=True, slots=True)
class _Setting:
    """One line that names an installation; `ends` is the line after it and what goes on from it."""

    begins: int
    ends: int
    value: str


def with_installation(text: str, installation: str, *, file: str, replaces: bool) -> str:
    """Return the text with the installation in its section [relproxy].

    Raises `ConfigurationError` where there is another one, unless that is to be replaced.
    """
    lines = _LINE.findall(text)
    eol = "\r\n" if "\r\n" in text else "\n"
    new = f"{_KEY} = {installation}{eol}"
    settings = list(_settings(lines))
    if not settings:
        return _added(lines, new, eol)
    for setting in settings:
        if setting.value and not _is(setting.value, installation) and not replaces:
            raise ConfigurationError(
                (f"{file}:{setting.begins + 1}: has another {_KEY}; --force replaces it.",)
            )
    for setting in reversed(settings):
        if not _is(setting.value, installation):
            lines[setting.begins : setting.ends] = [new]
    return "".join(lines)


def _settings(lines: list[str]) -> Iterator[_Setting]:
    section = None
    for number, line in enumerate(lines):
        if header := _HEADER.match(line):
            section = header[1].strip().lower()
        elif section == _SECTION and (found := _ASSIGNMENT.match(line)) and found[1] == _KEY:
            ends = number + 1
            while ends < len(lines) and lines[ends][0] in " \t" and lines[ends].strip():
                ends += 1
            parts = [found[2], *lines[number + 1 : ends]]
            yield _Setting(number, ends, "\n".join(part.strip() for part in parts).strip("\"'"))


def _is(value: str, installation: str) -> bool:
    """Tell whether a value is this installation, in whatever spelling."""
    try:
        return uuid.UUID(value) == uuid.UUID(installation)
    except ValueError:
        return False


def _added(lines: list[str], new: str, eol: str) -> str:
    """Put a setting below the section's header, or a section at the end."""
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += eol
    for number, line in enumerate(lines):
        if (header := _HEADER.match(line)) and header[1].strip().lower() == _SECTION:
            return "".join([*lines[: number + 1], new, *lines[number + 1 :]])
    blank = [eol] if lines and lines[-1].strip() else []
    return "".join([*lines, *blank, f"[{_SECTION}]{eol}", new])
