from __future__ import annotations

import re

import pytest

from relproxy.filters.trace import continued, read_trace
from tests.unit.given import fields

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"


def onward(*pairs: tuple[str, str]) -> list[tuple[str, str]]:
    headers = fields(*pairs)
    found = continued(headers, read_trace(headers))
    return [(name.decode(), value.decode()) for name, value in found.pairs]


@pytest.mark.parametrize(
    ("sent", "flags"),
    [
        pytest.param(VALID, "01", id="sampled"),
        pytest.param(f"00-{TRACE}-{PARENT}-00", "00", id="not sampled"),
        pytest.param(f"00-{TRACE}-{PARENT}-03", "03", id="random"),
        pytest.param(f"00-{TRACE}-{PARENT}-ff", "03", id="flags that nobody knows"),
        pytest.param(f"cc-{TRACE}-{PARENT}-01", "01", id="a later version"),
        pytest.param(f"cc-{TRACE}-{PARENT}-01-what-the-future", "01", id="with more behind it"),
        pytest.param(f" {VALID}\t", "01", id="with blanks around it"),
    ],
)
def test_a_valid_trace_goes_on_with_a_new_parent(sent: str, flags: str) -> None:
    ((name, value),) = onward(("traceparent", sent))
    assert name == "traceparent"
    found = re.fullmatch(f"00-{TRACE}-([0-9a-f]{{16}})-{flags}", value)
    assert found is not None
    assert found[1] not in {PARENT, "0" * 16}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param("", id="empty"),
        pytest.param(VALID.upper(), id="in capital letters"),
        pytest.param(f"ff-{TRACE}-{PARENT}-01", id="the version that is none"),
        pytest.param(f"00-{'0' * 32}-{PARENT}-01", id="a trace of zeros"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="a parent of zeros"),
        pytest.param(f"{VALID}-more", id="version 00 with more behind it"),
        pytest.param(f"{VALID}-", id="a hyphen behind it"),
        pytest.param(f"cc-{TRACE}-{PARENT}-01.more", id="more without a hyphen"),
        pytest.param(VALID[:-1], id="too short"),
        pytest.param(f"0-{TRACE}-{PARENT}-01", id="a version of one digit"),
        pytest.param(VALID.replace("4bf9", "4bg9"), id="not hexadecimal"),
        pytest.param(f"{VALID}, {VALID}", id="a list"),
        pytest.param(VALID + "\u00b2", id="an odd digit"),
    ],
)
def test_an_invalid_trace_is_dropped_with_its_state(sent: str) -> None:
    other = ("Accept", "*/*")
    assert onward(("traceparent", sent), ("tracestate", "a=b"), other) == [other]


def test_two_parents_are_none() -> None:
    assert onward(("traceparent", VALID), ("Traceparent", VALID), ("tracestate", "a=b")) == []


def test_a_state_without_a_parent_is_dropped() -> None:
    assert onward(("tracestate", "a=b")) == []


def test_headers_without_a_trace_are_left_as_they_are() -> None:
    headers = fields(("Accept", "*/*"))
    assert continued(headers, read_trace(headers)) is headers


def test_a_request_of_the_same_parent_gets_a_span_of_its_own() -> None:
    spans = {onward(("traceparent", VALID))[0][1] for _ in range(50)}
    assert len(spans) == 50


@pytest.mark.parametrize(
    "states",
    [
        ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"],
        ["a=b", "c=d"],
        ["a=b, , c=d,"],
        ["fw529a3039@dt=FfFvtAsk; x y"],
        ["a=b:c/d;e"],
        [",".join(f"k{number}=v" for number in range(32))],
        [""],
    ],
)
def test_a_state_goes_on_as_it_came(states: list[str]) -> None:
    sent = [("tracestate", state) for state in states]
    assert onward(("traceparent", VALID), *sent)[1:] == sent


@pytest.mark.parametrize(
    "states",
    [
        ["a"],
        ["A=b"],
        ["a=b=c"],
        ["a=\u00e9"],
        ["a="],
        ["a=b", "a=c"],
        ["a=b,c"],
        [f"{'k' * 257}=v"],
        [f"a={'v' * 257}"],
        [",".join(f"k{number}=v" for number in range(33))],
    ],
)
def test_a_state_that_can_not_be_read_is_dropped_and_the_trace_goes_on(states: list[str]) -> None:
    sent = [("tracestate", state) for state in states]
    ((name, value),) = onward(("traceparent", VALID), *sent)
    assert name == "traceparent"
    assert TRACE in value
