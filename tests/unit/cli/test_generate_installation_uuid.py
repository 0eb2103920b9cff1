from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import yaml

from relproxy.__main__ import main
from relproxy.config import Installation

OTHER = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"


def ran(
    capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0
) -> tuple[list[str], str]:
    """Return the lines that were printed, and what was said on standard error."""
    assert main(["generate-installation-uuid", *map(str, arguments)]) == status
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err


def generated(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines, said = ran(capsys)
    assert said == ""
    return lines


@pytest.fixture
def nova_conf(tmp_path: Path) -> Path:
    file = tmp_path / "nova.conf"
    file.write_text("[DEFAULT]\n# Kept.\nhost = a\n")
    return file


@pytest.fixture
def relproxy_yaml(tmp_path: Path) -> Path:
    file = tmp_path / "relproxy.yaml"
    file.write_text("# Kept.\nlog: {level: INFO}\n")
    return file


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


def test_the_blueprints_flag_and_the_lines_for_nova_conf_are_printed_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = generated(capsys)
    assert f"--nova_installation_uuid={lines[0]}" in lines
    place = lines.index("[relproxy]")
    assert lines[place + 1] == f"nova_installation_uuid = {lines[0]}"


def test_both_files_get_the_same_one_and_keep_what_they_had(
    nova_conf: Path, relproxy_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, _ = ran(capsys, "--write", nova_conf, "--write", relproxy_yaml, "--name", "east")
    assert lines == [lines[0], f"{nova_conf}: written.", f"{relproxy_yaml}: written."]
    assert nova_conf.read_text() == (
        f"[DEFAULT]\n# Kept.\nhost = a\n\n[relproxy]\nnova_installation_uuid = {lines[0]}\n"
    )
    assert relproxy_yaml.read_text() == (
        f"# Kept.\nlog: {{level: INFO}}\ninstallations:\n  - {{name: east, uuid: {lines[0]}}}\n"
    )


def test_another_one_is_replaced_by_force_alone(
    nova_conf: Path, relproxy_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(capsys, "--write", nova_conf, "--uuid", OTHER)
    before = nova_conf.read_text(), relproxy_yaml.read_text()
    lines, said = ran(capsys, "--write", relproxy_yaml, "--write", nova_conf, status=1)
    assert "--force" in said
    # Neither: the two would name the installation differently.
    assert (lines, nova_conf.read_text(), relproxy_yaml.read_text()) == ([], *before)
    lines, _ = ran(capsys, "--write", relproxy_yaml, "--write", nova_conf, "--force")
    assert lines[0] in nova_conf.read_text()
    assert lines[0] in relproxy_yaml.read_text()
    assert OTHER not in nova_conf.read_text()


def test_one_that_is_there_already_is_written_again_by_nobody(
    nova_conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(capsys, "--write", nova_conf, "--uuid", OTHER)
    was = nova_conf.stat()
    lines, _ = ran(capsys, "--write", nova_conf, "--uuid", OTHER.upper())
    assert lines == [OTHER, f"{nova_conf}: has it already."]
    assert nova_conf.stat().st_ino == was.st_ino


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--uuid", "123"], "--uuid: "),
        (["--name", "East Side"], "--name: "),
        (["--write", "nova.txt"], "can't be read"),
    ],
)
def test_a_typo_is_a_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, told = ran(capsys, *arguments, status=1)
    assert lines == []
    assert told.startswith(said) or said in told


def test_a_file_of_another_kind_is_not_touched(
    tmp_path: Path, nova_conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "nova.txt"
    other.write_text("")
    _, said = ran(capsys, "--write", nova_conf, "--write", other, status=1)
    assert "is neither a nova.conf" in said
    assert "relproxy" not in nova_conf.read_text()
