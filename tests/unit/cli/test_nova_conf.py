from __future__ import annotations

import pytest

from relproxy.cli.nova_conf import with_installation
from relproxy.errors import ConfigurationError

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
WEST = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"
LINE = f"nova_installation_uuid = {EAST}\n"


def changed(text: str, *, replaces: bool = False) -> str:
    return with_installation(text, EAST, file="nova.conf", replaces=replaces)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("", f"[relproxy]\n{LINE}", id="an empty file"),
        pytest.param(
            "# Nova.\n[DEFAULT]\nhost = a",
            f"# Nova.\n[DEFAULT]\nhost = a\n\n[relproxy]\n{LINE}",
            id="a file without the section, and without a last line end",
        ),
        pytest.param(
            "[relproxy]\n# Ours.\ninstance_header = A\n[glance]\n",
            f"[relproxy]\n{LINE}# Ours.\ninstance_header = A\n[glance]\n",
            id="a section with something else",
        ),
        pytest.param("[RelProxy]", f"[RelProxy]\n{LINE}", id="a section in another case, alone"),
        pytest.param(
            "[relproxy]\n#nova_installation_uuid = <None>\n",
            f"[relproxy]\n{LINE}#nova_installation_uuid = <None>\n",
            id="a comment is none",
        ),
        pytest.param(
            "[other]\nnova_installation_uuid = 1\n",
            f"[other]\nnova_installation_uuid = 1\n\n[relproxy]\n{LINE}",
            id="another section's is another's",
        ),
        pytest.param(
            "[relproxy]\nnova_installation_uuid =\n[a]\n", f"[relproxy]\n{LINE}[a]\n", id="no value"
        ),
        pytest.param(
            "[a]\r\nb = 1\r\n",
            f"[a]\r\nb = 1\r\n\r\n[relproxy]\r\nnova_installation_uuid = {EAST}\r\n",
            id="line ends of another system",
        ),
        pytest.param(
            "[a]\nb = 1\n  [relproxy]\n",
            f"[a]\nb = 1\n  [relproxy]\n\n[relproxy]\n{LINE}",
            id="what goes on from another line is no section",
        ),
    ],
)
def test_a_line_is_added_and_nothing_else_is_changed(before: str, after: str) -> None:
    assert changed(before) == after
    assert changed(before, replaces=True) == after
    assert changed(after) == after


OTHERS = [
    pytest.param(f"[relproxy]\nnova_installation_uuid = {WEST}\na = 1\n", id="a value"),
    pytest.param(f"[relproxy]\nnova_installation_uuid:{WEST}\na = 1\n", id="with a colon"),
    pytest.param(f"[relproxy]\nnova_installation_uuid = '{WEST}'\na = 1\n", id="quoted"),
    pytest.param("[relproxy]\nnova_installation_uuid = 123\na = 1\n", id="no UUID"),
    pytest.param(f"[relproxy]\nnova_installation_uuid =\n  {WEST}\na = 1\n", id="on two lines"),
    pytest.param(f"[relproxy]\nnova_installation_uuid = {EAST}\n  1\na = 1\n", id="and more"),
]


@pytest.mark.parametrize("text", OTHERS)
def test_another_one_is_replaced_only_where_that_is_meant(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"nova.conf:2: has another .*--force"):
        changed(text)
    assert changed(text, replaces=True) == f"[relproxy]\n{LINE}a = 1\n"


def test_of_several_each_is_replaced_because_novas_reader_takes_the_last() -> None:
    text = f"[relproxy]\n{LINE}[a]\n[relproxy]\nnova_installation_uuid = {WEST}\n"
    with pytest.raises(ConfigurationError, match=r"nova\.conf:5"):
        changed(text)
    assert changed(text, replaces=True) == f"[relproxy]\n{LINE}[a]\n[relproxy]\n{LINE}"


@pytest.mark.parametrize("spelling", [EAST.upper(), EAST.replace("-", ""), f'"{EAST}"'])
def test_the_same_one_in_another_spelling_stays_as_it_is(spelling: str) -> None:
    text = f"[relproxy]\nnova_installation_uuid = {spelling}\n"
    assert changed(text) == text
    assert changed(text, replaces=True) == text
