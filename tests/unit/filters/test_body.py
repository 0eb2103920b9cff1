from __future__ import annotations

import gzip
import zlib

import pytest

from relproxy.errors import RegistryGarbageError
from relproxy.filters.body import decoded

PLAIN = b'{"images": []}'


@pytest.mark.parametrize(
    ("body", "codings"),
    [
        pytest.param(PLAIN, (), id="no coding"),
        pytest.param(PLAIN, ("identity",), id="identity"),
        pytest.param(PLAIN, ("",), id="an empty field"),
        pytest.param(gzip.compress(PLAIN), ("gzip",), id="gzip"),
        pytest.param(gzip.compress(PLAIN), ("x-gzip",), id="the old name of gzip"),
        pytest.param(gzip.compress(PLAIN), (" GZip ",), id="another spelling of gzip"),
        pytest.param(zlib.compress(PLAIN), ("deflate",), id="deflate"),
        pytest.param(
            gzip.compress(zlib.compress(PLAIN)), ("deflate, gzip",), id="two codings in one field"
        ),
        pytest.param(
            gzip.compress(zlib.compress(PLAIN)), ("deflate", "gzip"), id="two codings in two fields"
        ),
        pytest.param(gzip.compress(gzip.compress(PLAIN)), ("gzip, gzip",), id="one coding twice"),
        pytest.param(gzip.compress(PLAIN), ("identity, gzip",), id="identity and gzip"),
    ],
)
def test_a_body_is_read_without_its_codings(body: bytes, codings: tuple[str, ...]) -> None:
    assert decoded(body, codings, max_bytes=1000) == PLAIN


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip2", "*", "chunked"])
def test_a_coding_that_is_not_known_is_refused(coding: str) -> None:
    with pytest.raises(RegistryGarbageError, match="coding"):
        decoded(PLAIN, (coding,), max_bytes=1000)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(PLAIN, id="not compressed at all"),
        pytest.param(gzip.compress(PLAIN)[:-1], id="a byte short"),
        pytest.param(gzip.compress(PLAIN)[:-8], id="without its checksum"),
        pytest.param(gzip.compress(PLAIN) + b"x", id="garbage behind it"),
        pytest.param(gzip.compress(PLAIN)[:-8] + bytes(8), id="a wrong checksum"),
        pytest.param(zlib.compress(PLAIN), id="another coding"),
    ],
)
def test_a_broken_body_is_refused(body: bytes) -> None:
    with pytest.raises(RegistryGarbageError, match="broken"):
        decoded(body, ("gzip",), max_bytes=1000)


def test_a_body_of_exactly_the_cap_is_read() -> None:
    assert decoded(gzip.compress(b"x" * 1000), ("gzip",), max_bytes=1000) == b"x" * 1000


def test_a_body_one_byte_over_the_cap_is_refused() -> None:
    with pytest.raises(RegistryGarbageError, match="size"):
        decoded(gzip.compress(b"x" * 1001), ("gzip",), max_bytes=1000)


def test_a_bomb_is_refused() -> None:
    bomb = gzip.compress(bytes(50_000_000))

    with pytest.raises(RegistryGarbageError, match="size"):
        decoded(bomb, ("gzip",), max_bytes=1000)


def test_a_bomb_within_a_bomb_is_refused_at_its_first_layer() -> None:
    bomb = gzip.compress(gzip.compress(bytes(50_000_000), compresslevel=1))

    with pytest.raises(RegistryGarbageError, match="size"):
        decoded(bomb, ("gzip", "gzip"), max_bytes=1000)
