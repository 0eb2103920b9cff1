"""The machine itself: it has to find what is hidden in bytes, and to make a failing story short."""

from __future__ import annotations

import ast
import random
import uuid
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.model.leaks import marks_in, new_mark
from tests.model.operations import Create, Delete, Knobs, List, Story
from tests.model.shrinking import shortest
from tests.model.writing import Writer


def percent_encoded(text: str) -> str:
    return "".join(f"%{ord(letter):02X}" for letter in text)


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(str, id="plain"),
        pytest.param(str.upper, id="in upper case"),
        pytest.param(percent_encoded, id="percent-encoded"),
        pytest.param(escaped, id="escaped as in JSON"),
        pytest.param(lambda text: quote(percent_encoded(text)), id="encoded twice"),
        pytest.param(lambda text: percent_encoded(escaped(text)), id="escaped and encoded"),
    ],
)
def test_a_mark_and_an_id_are_found_in_every_spelling(spell: object) -> None:
    assert callable(spell)
    mark, image_id = new_mark(), str(uuid.uuid4())
    found = marks_in(f'{{"next": "x={spell(mark)}&y={spell(image_id)}"}}')
    assert found == {mark, image_id.replace("-", "")}


def test_the_shortest_story_is_what_fails_and_nothing_else() -> None:
    culprits = {Create("alice", visibility="shared"), Delete("bob", 0)}

    def fails(story: Story) -> bool:
        visibilities = [o.visibility for o in story.operations if isinstance(o, Create)]
        return "shared" in visibilities and any(isinstance(o, Delete) for o in story.operations)

    written = Writer(random.Random(3)).story()
    whole = (*written.operations, Create("alice", visibility="shared", tag=1), Delete("bob", 2))
    short = shortest(Story(Knobs(max_limit=3), whole), fails)
    assert short.knobs == Knobs()
    assert len(short.operations) == len(culprits)
    assert fails(short)


def test_the_same_seed_writes_the_same_story() -> None:
    one, same, other = (Writer(random.Random(seed)).story() for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert any(isinstance(operation, List) for operation in one.operations)


@pytest.mark.parametrize("module", ["world", "verdicts"])
def test_the_model_is_said_anew(module: str) -> None:
    """What the model took over from relproxy, or from the stand-in, it could not contradict."""
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text())
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    standard = {"__future__", "collections.abc", "dataclasses", "datetime", "typing"}
    assert imported <= {*standard, "tests.model.world"}
