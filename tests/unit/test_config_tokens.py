from __future__ import annotations

import hashlib
from typing import Any

import pytest
import yaml

from relproxy.config_tokens import parse_tokens
from relproxy.errors import ConfigurationError
from tests.unit.given import UUID

SECRET = "3f1c2a9be0c84f0f9a3b5a6f0e9d7c11"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def entry(**settings: Any) -> dict[str, Any]:
    return {"name": "backups", "token": SECRET, "scope": "all", **settings}


def problems(*entries: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as failure:
        parse_tokens(yaml.safe_dump(list(entries)), "tokens")
    assert failure.value.__cause__ is None
    return failure.value.problems


def test_a_secret_and_its_hash_are_the_same_token() -> None:
    hashed = {"name": "hashed", "token_sha256": DIGEST, "installations": [UUID.upper()]}
    (token,) = parse_tokens(yaml.safe_dump([entry()]), "tokens")
    (other,) = parse_tokens(yaml.safe_dump([hashed]), "tokens")
    assert token.digest == other.digest
    assert other.installations == (UUID,)


def test_a_file_may_say_that_nobody_is_let_in() -> None:
    assert parse_tokens("[]", "tokens") == ()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        pytest.param({"token": SECRET[:-1]}, "[0].token: ", id="short enough to be guessed"),
        pytest.param({"token": SECRET + " "}, "[0].token: ", id="a blank, that no header keeps"),
        pytest.param(
            {"token": None}, "[0]: should have one of token, token_sha256", id="no secret"
        ),
        pytest.param(
            {"token_sha256": DIGEST}, "[0]: should have one of token, token_sha256", id="both"
        ),
        pytest.param({"token_sha256": SECRET}, "[0].token_sha256: ", id="a hash that is none"),
        pytest.param({"scope": None}, "[0]: should have one of scope", id="no scope"),
        pytest.param({"scope": "everything"}, "[0].scope: ", id="an unknown scope"),
        pytest.param({"projects": ["a"]}, "[0]: should have one of scope", id="two scopes"),
        pytest.param({"scope": None, "projects": []}, "[0].projects: ", id="no project"),
        pytest.param({"scope": None, "projects": [""]}, "[0].projects[0]: ", id="an empty project"),
        pytest.param({"scope": None, "installations": ["east"]}, "[0].installations[0]", id="name"),
        pytest.param({"name": "A B"}, "[0].name: ", id="a name that is none"),
        pytest.param({"project": "a"}, "[0].project: ", id="a setting that is none"),
    ],
)
def test_a_mistake_is_told_without_what_stands_there(
    settings: dict[str, Any], problem: str
) -> None:
    found = problems(entry(**settings))
    assert any(each.startswith(f"tokens: {problem}") for each in found), found
    assert not any(SECRET[:8] in each or DIGEST in each for each in found)


def test_two_entries_are_two_tokens_with_two_names() -> None:
    assert problems(entry(), entry(token="x" * 32)) == (
        "tokens: [1].name: another token has this name.",
    )
    assert problems(entry(), entry(name="other")) == (
        "tokens: [1]: another entry is the same token or certificate.",
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty, as while it is being written"),
        pytest.param("tokens: []", id="no list"),
        pytest.param(f"- {{name: a, token: {SECRET}, projects: [a], projects: [b]}}", id="twice"),
        pytest.param(f"- name: a\n  token: '{SECRET}", id="cut off"),
        pytest.param(f"- name: a\n\ttoken: {SECRET}", id="a tab"),
        pytest.param("- !!python/object/apply:os.getcwd []", id="a program"),
        pytest.param("&a [*a]", id="a list in itself"),
    ],
)
def test_what_is_no_list_of_tokens_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        parse_tokens(text, "tokens")
    assert SECRET not in str(failure.value)
