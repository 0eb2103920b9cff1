from __future__ import annotations

import pytest

from relproxy import errors
from relproxy.errors import ConfigurationError, MethodNotAllowedError, RelproxyError

TREE = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, RelproxyError) and value is not RelproxyError
]


@pytest.mark.parametrize("error", TREE)
def test_an_error_has_the_status_of_a_refusal(error: type[RelproxyError]) -> None:
    assert 400 <= error.status < 600


@pytest.mark.parametrize("error", [e for e in TREE if e.retry_after_s is not None])
def test_only_what_may_pass_says_when_to_try_again(error: type[RelproxyError]) -> None:
    assert error.status in {429, 503}


def test_an_error_carries_its_sentence() -> None:
    assert RelproxyError("Why.").sentence == str(RelproxyError("Why.")) == "Why."


def test_a_method_that_is_not_allowed_names_those_that_are() -> None:
    assert MethodNotAllowedError("No.", allowed=("GET",)).allowed == ("GET",)


def test_a_configuration_error_has_a_line_for_each_problem() -> None:
    failure = ConfigurationError(("a", "b"))

    assert failure.problems == ("a", "b")
    assert failure.sentence == "a\nb"
