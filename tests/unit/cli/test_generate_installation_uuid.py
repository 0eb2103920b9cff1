from __future__ import annotations

import uuid

import pytest
import yaml

from relproxy.__main__ import main
from relproxy.config import Installation


def generated(capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["generate-installation-uuid"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out.splitlines()


def test_the_first_line_is_a_random_uuid_in_canonical_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed = generated(capsys)[0]

    made = uuid.UUID(printed)
    assert made.version == 4
    assert str(made) == printed


def test_no_two_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert generated(capsys)[0] != generated(capsys)[0]


def test_the_last_line_can_be_pasted_into_the_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = generated(capsys)

    (pasted,) = yaml.safe_load(lines[-1])

    assert Installation.model_validate(pasted).uuid == lines[0]
