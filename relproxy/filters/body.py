"""Content codings of bodies that have to be read: undone within a cap, or refused."""

from __future__ import annotations

import zlib

from relproxy.errors import AnswerTooLargeError, RegistryGarbageError

# zlib: 16 + 15 reads a gzip header, 15 a zlib one (RFC 9110, section 8.4.1).
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def decoded(body: bytes, codings: tuple[str, ...], *, max_bytes: int) -> bytes:
    """Return the body without its content codings (values of Content-Encoding, in their order).

    Raises `RegistryGarbageError` for an unknown coding, a broken body, or one over `max_bytes`.
    """
    names = [name.strip().lower() for value in codings for name in value.split(",")]
    for name in reversed(names):
        if name not in {"identity", ""}:
            body = _inflated(body, name, max_bytes)
    return body


def _inflated(body: bytes, coding: str, max_bytes: int) -> bytes:
    if coding not in _WINDOW_BITS:
        raise RegistryGarbageError("The registry answered in a content coding that is not known.")
    inflater = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        plain = inflater.decompress(body, max_bytes + 1)
    except zlib.error as failure:
        raise RegistryGarbageError("The registry's compressed answer is broken.") from failure
    if len(plain) > max_bytes:
        raise AnswerTooLargeError("The registry's answer is over the configured size.")
    if not inflater.eof or inflater.unused_data:
        raise RegistryGarbageError("The registry's compressed answer is broken.")
    return plain
