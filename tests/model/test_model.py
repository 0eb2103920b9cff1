"""Whatever several projects do, each is shown exactly what the model says, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import cast

import pytest

from relproxy import listing
from tests.model.operations import Story
from tests.model.playing import check_stories
from tests.model.registries import StandInBehind
from tests.model.stage import Stage

STORIES = 40


def play(stage: Stage, story: Story) -> None:
    knobs = story.knobs
    behind = cast(StandInBehind, stage.behind)
    behind.begin(knobs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_ID_BYTES", knobs.ids_bytes)
        patch.setattr(listing, "_MAX_STREAMS", knobs.streams)
        stage.play(story.operations)


def test_everyone_sees_exactly_what_the_model_says(stage: Stage, seed: int, effort: int) -> None:
    check_stories(lambda story: play(stage, story), STORIES * effort, seed=seed, lists=4)


@pytest.mark.parametrize("module", ["world", "verdicts"])
def test_the_model_is_said_anew(module: str) -> None:
    """What the model took over from relproxy, or from the stand-in, it could not contradict."""
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text())
    imported = {
        node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    } | {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not {name for name in imported if name.startswith(("relproxy", "lab"))}
    assert imported <= {"__future__", "collections.abc", "dataclasses", "datetime", "typing",
                        "tests.model.world"}  # fmt: skip
