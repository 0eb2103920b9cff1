from __future__ import annotations

import pytest
import yaml

from relproxy.cli.relproxy_yaml import with_installation
from relproxy.errors import ConfigurationError

EAST = "6f1c2f43-9d1b-4f7e-8e0f-0c3d1d6d1a01"
WEST = "0a4ef62f-40a4-4d3a-9d7e-5a0d8a1f2b02"
ITEM = f"{{name: east, uuid: {EAST}}}"
OTHER = f"{{name: west, uuid: {WEST}}}"


def changed(text: str, *, name: str = "east", replaces: bool = False) -> str:
    asked = {"name": name, "uuid": EAST}
    return with_installation(text, asked, file="relproxy.yaml", replaces=replaces)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("", f"installations:\n  - {ITEM}\n", id="an empty file"),
        pytest.param(
            "# Only a remark.\n", f"# Only a remark.\ninstallations:\n  - {ITEM}\n", id="a comment"
        ),
        pytest.param(
            "log: {level: INFO}  # Loud.",
            f"log: {{level: INFO}}  # Loud.\ninstallations:\n  - {ITEM}\n",
            id="no installations, no last line end",
        ),
        pytest.param(
            "installations:\n# Later.\nlog: {}\n",
            f"installations:\n  - {ITEM}\n# Later.\nlog: {{}}\n",
            id="a key alone",
        ),
        pytest.param(
            "installations: []  # None.\n",
            f"installations: [{ITEM}]  # None.\n",
            id="an empty list",
        ),
        pytest.param(
            f"installations: [{OTHER}]\n", f"installations: [{OTHER}, {ITEM}]\n", id="one line"
        ),
        pytest.param(
            f"installations:\n# The old one.\n- {OTHER}  # 2024\n\n# Where to.\nroutes: []\n",
            f"installations:\n# The old one.\n- {OTHER}  # 2024\n- {ITEM}\n\n"
            "# Where to.\nroutes: []\n",
            id="a list without indentation",
        ),
        pytest.param(
            f"installations:\n    - name: west\n      uuid: {WEST}\n\n\n# Where to.\nroutes: []\n",
            f"installations:\n    - name: west\n      uuid: {WEST}\n    - {ITEM}\n\n\n"
            "# Where to.\nroutes: []\n",
            id="mappings over lines",
        ),
        pytest.param(
            f"installations:\n  - {OTHER}",
            f"installations:\n  - {OTHER}\n  - {ITEM}\n",
            id="the end",
        ),
        pytest.param(
            f"installations:\r\n  - {OTHER}\r\nlog: {{}}\r\n",
            f"installations:\r\n  - {OTHER}\r\n  - {ITEM}\r\nlog: {{}}\r\n",
            id="line ends of another system",
        ),
        pytest.param(
            f"installations:\n  - uuid: '{WEST}'\n    name: 'wést'\nlog: {{}}\n",
            f"installations:\n  - uuid: '{WEST}'\n    name: 'wést'\n  - {ITEM}\nlog: {{}}\n",
            id="quoted",
        ),
    ],
)
def test_an_item_is_added_and_nothing_else_is_changed(before: str, after: str) -> None:
    assert changed(before) == after
    assert changed(after) == after


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_another_uuid_of_its_name_is_replaced_only_where_that_is_meant(quote: str) -> None:
    text = (
        f"installations:\n  - {OTHER}\n  # Ours.\n  - name: east\n    uuid: {quote}1{quote}  # b\n"
    )
    with pytest.raises(ConfigurationError, match="'east' has another uuid; --force"):
        changed(text)
    assert changed(text, replaces=True) == (
        f"installations:\n  - {OTHER}\n  # Ours.\n  - name: east\n    uuid: {EAST}  # b\n"
    )


@pytest.mark.parametrize("name", ["123", "null", "no", "1.5", "0x1", "2026-11-28"])
def test_a_name_that_yaml_takes_for_something_else_is_quoted(name: str) -> None:
    (item,) = yaml.safe_load(changed("", name=name))["installations"]
    assert item == {"name": name, "uuid": EAST}


def test_the_same_one_in_another_spelling_stays_as_it_is() -> None:
    text = f"installations: [{{name: east, uuid: {EAST.upper()}}}]\n"
    assert changed(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"installations: [{{name: old, uuid: {EAST}}}]", "this uuid is that of .*'old'"),
        ("installations: {east: 1}", "should be a list"),
        ("installations: [east]", "should be a list"),
        ("installations: [a", "can't be read as YAML"),
        ("- 1", "should be a mapping"),
        ("{log: {}}", "by hand"),
        ("log: {}\n...\n", "by hand"),
        (f"a: &a [{OTHER}]\ninstallations: *a\n", "by hand"),
        (f"installations: []\ninstallations: [{OTHER}]\n---\n", "can't be read as YAML"),
    ],
)
def test_what_cannot_be_changed_surely_is_left_to_a_person(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        changed(text, replaces=True)
