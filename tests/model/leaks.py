"""Marks that nobody can guess, and where in an answer's bytes they stand, in whatever spelling."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

_MARK = re.compile(rb"zq[0-9a-f]{12}")
_ID = re.compile(rb"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")
_ESCAPE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+")


def new_mark() -> str:
    """Return a word that stands nowhere else."""
    return f"zq{secrets.token_hex(6)}"


def marks_in(*texts: str | bytes) -> frozenset[str]:
    """Return every mark and every UUID in the texts, plain, percent-encoded or JSON-escaped."""
    return frozenset(_found(texts))


def _found(texts: Iterable[str | bytes]) -> Iterator[str]:
    for text in texts:
        raw = text.encode() if isinstance(text, str) else text
        for spelled in _spellings(raw):
            for mark in _MARK.findall(spelled):
                yield mark.decode()
            for image_id in _ID.findall(spelled):
                yield image_id.decode().replace("-", "")


def _spellings(raw: bytes) -> Iterator[bytes]:
    """Yield the text as it is and decoded, again and again as long as that makes another one."""
    seen: set[bytes] = set()
    left = {raw.lower()}
    while left:
        spelled = left.pop()
        seen.add(spelled)
        yield spelled
        more = {unquote_to_bytes(spelled).lower(), _ESCAPE.sub(_unescaped, spelled).lower()}
        left |= more - seen


def _unescaped(found: re.Match[bytes]) -> bytes:
    text: str = json.loads(b'"' + found[0] + b'"')
    return text.encode(errors="replace")
