"""The alert rules and the dashboard use metrics, labels and values that exist."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.test_docs import ROOT, metrics, text_of

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load(text_of("config/alerts.yaml"))["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads(text_of("config/grafana-dashboard.json"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]

# Of those that Prometheus adds to everything it scrapes.
TARGET_LABELS = {"instance", "job"}
# Made by Prometheus itself.
OTHERS = {"up": TARGET_LABELS}
_WORDS = {"by", "without", "or", "and", "unless", "offset", "on", "ignoring", "bool"}
_KINDS = {
    name: kind
    for kind, name in re.findall(
        r"(Counter|Gauge|Histogram)\(\s*\"(\w+)\"", text_of("relproxy/metrics.py")
    )
}


def series() -> dict[str, set[str]]:
    """Return every series that can be asked for -> its labels."""
    found: dict[str, set[str]] = {name: {*labels} for name, labels in OTHERS.items()}
    for name, labels in metrics().items():
        of_all = {*labels, *TARGET_LABELS}
        if _KINDS.get(name) == "Histogram":
            found |= {f"{name}_sum": of_all, f"{name}_count": of_all}
            found[f"{name}_bucket"] = {*of_all, "le"}
        else:
            found[name] = of_all
    return found


SERIES = series()


def _expressions() -> Iterator[Any]:
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in PANELS:
        for target in panel.get("targets", ()):
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["definition"])[0]
            yield pytest.param(f"sum by ({label}) ({metric})", id=variable["name"])


each_expression = pytest.mark.parametrize("expression", [*_expressions()])


def parsed(expression: str) -> tuple[list[str], list[tuple[str, str, str]], set[str]]:
    """Return the series, the matchers as (series, label, value), and the labels of groups."""
    plain = re.sub(r"\[[^]]*\]", "", expression)
    matchers = [
        (name, label, value)
        for name, body in re.findall(r"(\w+)\{([^}]*)\}", plain)
        for label, value in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"", body)
    ]
    plain = re.sub(r"\{[^}]*\}", "", plain)
    groups = {
        label.strip()
        for body in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", plain)
        for label in body.split(",")
    }
    plain = re.sub(r"\b(?:by|without)\s*\([^)]*\)", "", plain)
    plain = re.sub(r"\boffset\s+\w+", "", plain)
    names = re.findall(r"(?<![\w.])([A-Za-z_:]\w*)\b(?!\s*\()", plain)
    return [name for name in names if name not in _WORDS], matchers, groups


def test_the_reader_of_expressions_finds_what_is_there() -> None:
    text = 'sum by (le, a) (rate(m_x{b=~"c|d",e="f"}[5m])) / on (a) g unless h offset 15m > 0.5'
    names, matchers, groups = parsed(text.replace(" on (a)", ""))
    assert names == ["m_x", "g", "h"]
    assert matchers == [("m_x", "b", "c|d"), ("m_x", "e", "f")]
    assert groups == {"le", "a"}


@each_expression
def test_an_expression_asks_for_what_exists(expression: str) -> None:
    names, matchers, groups = parsed(expression)
    assert names
    assert set(names) <= set(SERIES)
    for name, label, _ in matchers:
        assert label in SERIES[name], f"{name} has no label {label}"
    for label in groups:
        assert any(label in SERIES[name] for name in names), f"nothing has a label {label}"
    assert expression.count("(") == expression.count(")")


@each_expression
def test_a_value_that_is_asked_for_is_one_that_the_metric_has(expression: str) -> None:
    for name, label, value in parsed(expression)[1]:
        if label in TARGET_LABELS or label == "status":
            continue
        metric = re.sub(r"_(bucket|sum|count)$", "", name)
        (row,) = [r for r in text_of("docs/operations.md").splitlines() if f"| `{metric}`" in r]
        everywhere = row + text_of("relproxy/model.py").replace('"', "`")
        assert [each for each in value.split("|") if f"`{each}`" not in everywhere] == []


@each_expression
def test_counters_are_asked_for_their_rate_and_nothing_else_is(expression: str) -> None:
    """But for those of which any at all is too many."""
    rates = re.findall(r"(?:rate|increase)\(\s*(\w+)", expression)
    counters = {n for n in SERIES if n.endswith(("_total", "_bucket", "_count", "_sum"))}
    assert {*rates} <= counters
    for name in set(parsed(expression)[0]) & counters - {*rates}:
        assert name == "relproxy_journals_broken_total"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_operations_says_for_each_alert_what_to_do(rule: dict[str, Any]) -> None:
    rows = [r for r in text_of("docs/operations.md").splitlines() if f"| `{rule['alert']}` |" in r]
    assert len(rows) == 1
    meaning, what_to_do = rows[0].split("|")[3:5]
    assert len(meaning.split()) > 3
    assert len(what_to_do.split()) > 3
    assert rule["labels"]["severity"] == rows[0].split("|")[2].strip()
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    names, _, groups = parsed(rule["expr"])
    assert used <= (groups or set.intersection(*(SERIES[name] for name in names)))


def test_no_alert_is_told_of_that_does_not_exist() -> None:
    told = re.findall(r"^\| `(Relproxy[A-Z]\w+)` \|", text_of("docs/operations.md"), re.MULTILINE)
    errors = {"RelproxyError"}
    assert sorted(set(told) - errors) == sorted(rule["alert"] for rule in RULES)


def test_panels_have_titles_units_and_places_of_their_own() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    cells: list[tuple[int, int]] = []
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells += itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
    assert len(set(cells)) == len(cells)


def test_the_dashboard_needs_nothing_from_elsewhere() -> None:
    text = (ROOT / "config/grafana-dashboard.json").read_text(encoding="utf-8")
    assert "http" not in text
    sources = {json.dumps(s) for p in PANELS if "datasource" in p for s in [p["datasource"]]}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
