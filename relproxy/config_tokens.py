"""The file of the admin listener's tokens: each has a name, the secret or its hash, and a scope.

No problem that is found with it says what stands there: that may be a secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from relproxy.config_tls import CertificateName
from relproxy.config_types import InstallationUUID, Name, Section
from relproxy.errors import ConfigurationError

# The signs of RFC 6750, section 2.1; so many that nobody guesses it, so that one hash is enough.
_Secret = Annotated[str, Field(pattern=r"^[A-Za-z0-9._~+/-]{32,256}=*$")]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Project = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")]


class Token(Section):
    """Who may ask the admin listener, and for what: for all, or for a part of the records."""

    name: Name
    token: _Secret | None = None
    token_sha256: _Digest | None = None
    certificate: CertificateName | None = None
    scope: Literal["all", "metrics"] | None = None
    projects: tuple[_Project, ...] | None = Field(default=None, min_length=1)
    installations: tuple[InstallationUUID, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        proofs = (self.token, self.token_sha256, self.certificate)
        if sum(proof is not None for proof in proofs) != 1:
            raise ValueError("should have one of token, token_sha256 and certificate")
        scopes = (self.scope, self.projects, self.installations)
        if sum(scope is not None for scope in scopes) != 1:
            raise ValueError("should have one of scope, projects and installations")
        return self

    @property
    def digest(self) -> bytes | None:
        """Return the hash of the secret; None where a certificate is shown instead."""
        if self.certificate is not None:
            return None
        if self.token_sha256 is not None:
            return bytes.fromhex(self.token_sha256)
        return digest_of(self.token or "")


def digest_of(secret: str) -> bytes:
    """Return what is kept, and compared, instead of a secret."""
    return hashlib.sha256(secret.encode("ascii")).digest()


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML would take the last one."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    if len(set(keys)) != len(keys):
        raise yaml.constructor.ConstructorError(None, None, "a key is given twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_TOKENS = TypeAdapter(tuple[Token, ...])


def parse_tokens(text: str, name: str) -> tuple[Token, ...]:
    """Read the text of a file of that name.

    Raises `ConfigurationError` with one line for each problem.
    """
    try:
        tokens = _TOKENS.validate_python(yaml.load(text, Loader=_Loader))  # noqa: S506 - it is safe
    except (yaml.YAMLError, ValueError, RecursionError) as failure:
        problems = [f"{name}: {problem}." for problem in _problems(failure)]
        # Without its cause, which quotes what stands there.
        raise ConfigurationError(tuple(problems)) from None
    if repeated := [*_repeated(tokens)]:
        raise ConfigurationError(tuple(f"{name}: {problem}." for problem in repeated))
    return tokens


def _problems(failure: Exception) -> Iterator[str]:
    if not isinstance(failure, ValidationError):
        mark = getattr(failure, "problem_mark", None)
        yield f"line {mark.line + 1} is not YAML" if mark else "is not YAML"
        return
    for detail in failure.errors(include_url=False, include_input=False):
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in detail["loc"])
        sentence = detail["msg"].removeprefix("Value error, ")
        yield f"{where or '(file)'}: {sentence[0].lower()}{sentence[1:]}"


def _repeated(tokens: Sequence[Token]) -> Iterator[str]:
    for index, token in enumerate(tokens):
        if any(token.name == other.name for other in tokens[:index]):
            yield f"[{index}].name: another token has this name"
        proof = token.digest or token.certificate
        if any(proof == (other.digest or other.certificate) for other in tokens[:index]):
            yield f"[{index}]: another entry is the same token or certificate"
