"""Whatever several projects do, each is shown exactly what the model says, and nothing else."""

from __future__ import annotations

import pytest

from relproxy import listing
from tests.model.operations import Story
from tests.model.playing import check_stories
from tests.model.registries import StandInBehind
from tests.model.stage import Stage

STORIES = 40


def test_everyone_sees_exactly_what_the_model_says(
    stage: Stage, seed: int, effort: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(story: Story) -> None:
        assert isinstance(stage.behind, StandInBehind)
        stage.behind.begin(story.knobs)
        monkeypatch.setattr(listing, "_ID_BYTES", story.knobs.ids_bytes)
        monkeypatch.setattr(listing, "_MAX_STREAMS", story.knobs.streams)
        stage.play(story.operations)

    check_stories(play, STORIES * effort, seed=seed, lists=4)
