from __future__ import annotations

from pathlib import Path

import pytest

from relproxy.__main__ import main

FINE = """\
listeners: [{name: public, bind: "127.0.0.1:9292"}]
store: {path: /var/lib/relproxy/relproxy.db}
registries: [{name: main, tenancy: relproxy, endpoints: ["http://127.0.0.1:9191"]}]
routes:
  - {name: east, path_prefix: /east, registry: main}
  - {name: all, registry: main}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relproxy.yaml"


def test_a_good_configuration_is_said_to_be_fine(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(FINE)

    assert main(["check", "--config", str(file)]) == 0

    printed = capsys.readouterr()
    assert "fine" in printed.out
    assert "2 route" in printed.out
    assert printed.err == ""


def test_every_problem_is_a_line_of_its_own(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(FINE.replace("registry: main", "registry: man") + "lgo: {level: INFO}\n")

    assert main(["check", "--config", str(file)]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{file}:5", f"{file}:6", f"{file}:7"]
    assert "did you mean 'log'?" in lines[2]


def test_a_file_that_is_not_there_is_a_problem(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--config", str(file)]) == 1

    assert capsys.readouterr().out == f"{file}: can't be read: No such file or directory.\n"


def test_a_check_needs_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check"])

    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err
