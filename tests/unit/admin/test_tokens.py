from __future__ import annotations

import hashlib
import logging
import time
from hmac import compare_digest
from pathlib import Path

import pytest
import yaml

from relproxy.admin import tokens
from relproxy.admin.tokens import TokenFile
from relproxy.errors import ConfigurationError, TokensUnusableError

ONE, OTHER = "1" * 32, "2" * 32


def write(file: Path, **secrets: str) -> None:
    entries = [{"name": n, "token": secret, "scope": "all"} for n, secret in secrets.items()]
    file.write_text(yaml.safe_dump(entries))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.yaml"
    write(path, one=ONE, other=OTHER)
    return path


def name_of(found: TokenFile, secret: str) -> str | None:
    holder = found.holder(f"Bearer {secret}")
    return holder.name if holder else None


def test_a_token_is_that_of_its_entry(file: Path) -> None:
    found = TokenFile(file)
    assert [name_of(found, secret) for secret in (ONE, OTHER)] == ["one", "other"]
    # The name of a scheme has no case (RFC 9110, section 11.1).
    assert found.holder(f"bEARER  {ONE}") is not None


@pytest.mark.parametrize(
    "shown",
    [
        *("", "Bearer", "Bearer ", ONE, f"Basic {ONE}", f"Bearer {ONE[:-1]}", f"Bearer {ONE}1"),
        *(f"Bearer {ONE} ", f"Bearer {ONE},{OTHER}", f" Bearer {ONE}", f"Bearer\t{ONE}"),
        "Bearer " + "\u0661" * 32,
        "Bearer " + "x" * 10_000,
    ],
)
def test_what_is_no_token_is_nobodys(file: Path, shown: str) -> None:
    assert TokenFile(file).holder(shown) is None


def test_the_hash_that_stands_in_the_file_is_no_token(file: Path) -> None:
    (token, *_) = TokenFile(file)._tokens  # noqa: SLF001
    assert token.digest is not None
    assert name_of(TokenFile(file), token.digest.hex()) is None


def test_a_secret_that_can_be_guessed_is_none_though_its_hash_stands_in_the_file(
    file: Path,
) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    file.write_text(yaml.safe_dump([{"name": "one", "token_sha256": digest, "scope": "all"}]))
    assert name_of(TokenFile(file), "x") is None


def test_a_token_is_compared_with_each_in_constant_time(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare_digest(one, other)

    found = TokenFile(file)
    monkeypatch.setattr("hmac.compare_digest", compare)
    assert name_of(found, ONE) == "one"
    assert compared == [(32, 32), (32, 32)]


def test_a_token_that_was_taken_out_is_refused_at_once_and_one_that_was_put_in_is_taken(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_SETTLED_NS", -(10**18))
    found = TokenFile(file)
    assert name_of(found, ONE) == "one"
    write(file, other=OTHER)
    assert (name_of(found, ONE), name_of(found, OTHER)) == (None, "other")
    write(file, one=ONE)
    assert (name_of(found, ONE), name_of(found, OTHER)) == ("one", None)


def test_a_change_that_leaves_size_and_times_as_they_were_is_seen(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock of the file system's ticks some hundred times a second."""
    now = time.time_ns()
    monkeypatch.setattr(tokens, "_stamp_of", lambda _: (now, now, 1, 1, 1))
    found = TokenFile(file)
    write(file, one=ONE, other="3" * 32)
    assert name_of(found, OTHER) is None


def test_a_file_that_has_not_changed_is_not_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_SETTLED_NS", -(10**18))
    found = TokenFile(file)
    monkeypatch.setattr(tokens, "parse_tokens", None)
    assert name_of(found, ONE) == "one"


def test_while_the_file_can_not_be_used_nobody_is_let_in_and_the_log_says_so_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = TokenFile(file)
    whole = file.read_text()
    for broken in (whole[:-20], None, "\0"):
        if broken is None:
            file.unlink()
        else:
            file.write_text(broken)
        for _ in range(3):
            with pytest.raises(TokensUnusableError):
                name_of(found, ONE)
    file.write_text(whole)
    assert name_of(found, ONE) == "one"
    assert [record.message for record in caplog.records] == [
        *["admin tokens can't be used"] * 3,
        "admin tokens can be used again",
    ]
    assert ONE not in str([vars(record) for record in caplog.records])


@pytest.mark.parametrize("what", ["nothing", "a directory", "not UTF-8"])
def test_a_start_without_tokens_to_use_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "tokens"
    if what == "a directory":
        path.mkdir()
    elif what == "not UTF-8":
        path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="can't be read"):
        TokenFile(path)
