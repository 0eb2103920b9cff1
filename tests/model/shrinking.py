"""Makes a failing story short: takes operations away, then makes plain what stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

from tests.model.operations import Knobs, Operation, Story

Fails = Callable[[Story], bool]


def shortest(story: Story, fails: Fails) -> Story:
    """Return a story that fails too, and from which no single thing can be taken."""
    before = None
    while before != story:
        before = story
        story = _plainer(_plainer_knobs(_fewer(story, fails), fails), fails)
    return story


def _fewer(story: Story, fails: Fails) -> Story:
    """Take away halves, then quarters, at last single operations; from the end."""
    size = len(story.operations)
    while size:
        end = len(story.operations)
        while end > 0:
            start = max(0, end - size)
            kept = (*story.operations[:start], *story.operations[end:])
            shorter = replace(story, operations=kept)
            if fails(shorter):
                story = shorter
            end = start
        size //= 2
    return story


def _plainer(story: Story, fails: Fails) -> Story:
    for place in range(len(story.operations)):
        for change in list(_changes(story.operations[place])):
            operations = list(story.operations)
            operations[place] = _replaced(operations[place], change)
            plainer = replace(story, operations=tuple(operations))
            if plainer != story and fails(plainer):
                story = plainer
    return story


def _replaced(value: Any, change: Mapping[str, Any]) -> Any:
    return replace(value, **change)


def _changes(operation: Operation) -> Iterator[Mapping[str, Any]]:
    """Yield what may be plainer: what is said by default, the first image, one filter less."""
    for field in fields(operation):
        value = getattr(operation, field.name)
        if field.default is not MISSING:
            yield {field.name: field.default}
        if field.name in {"image", "marker", "again"} and isinstance(value, int):
            yield from ({field.name: number} for number in range(min(3, value)))
        if isinstance(value, tuple):
            yield from ({field.name: value[:i] + value[i + 1 :]} for i in range(len(value)))


def _plainer_knobs(story: Story, fails: Fails) -> Story:
    for field in fields(Knobs):
        knobs = _replaced(story.knobs, {field.name: field.default})
        if knobs != story.knobs and fails(replace(story, knobs=knobs)):
            story = replace(story, knobs=knobs)
    return story
