from __future__ import annotations

import os
from pathlib import Path

import pytest

from relproxy import __version__
from relproxy.__main__ import main


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"relproxy {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["chekc"], ["check", "--confg", "x"]])
def test_a_command_that_is_none_is_refused_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage: relproxy" in capsys.readouterr().err


def test_serving_a_broken_configuration_tells_its_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "relproxy.yaml"
    file.write_text("listners: []\n")

    assert main(["serve", "--config", str(file)]) == os.EX_CONFIG

    assert "did you mean 'listeners'?" in capsys.readouterr().err
