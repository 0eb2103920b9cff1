"""What Prometheus' naming conventions ask of a metric, asked of every one."""

from __future__ import annotations

import re

import pytest
from prometheus_client import Metric

from relproxy.metrics import Metrics
from tests.test_docs import metrics as metrics_in_the_source

FAMILIES = {family.name: family for family in Metrics().collectors.collect()}

# Each has values that the configuration or the code names. Never a project, an image, an instance,
# a path, an address of a client.
LABELS = {
    *("route", "registry", "endpoint", "listener"),
    *("treatment", "status", "grade", "result", "reason", "verdict", "by", "limit", "kind"),
    "version",
}
# Units that aren't base units (prometheus.io/docs/practices/naming), and how they are abbreviated.
NO_UNITS = re.compile(
    r"_(ms|us|ns|s|sec|msec|milliseconds|microseconds|minutes|hours|days|kb|mb|kib|mib|kilobytes"
    r"|bits|percent)(_|$)"
)
MEASURES_TIME = re.compile(r"\b([Tt]ime|[Aa]ge|[Dd]uration|[Ss]econds)\b")


each = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@each
def test_a_name_begins_with_relproxy_and_is_of_one_style(family: Metric) -> None:
    assert re.fullmatch(r"relproxy(_[a-z]+)+", family.name)


@each
def test_a_name_has_base_units_at_its_end(family: Metric) -> None:
    assert not NO_UNITS.search(family.name)
    for unit in ("seconds", "bytes"):
        assert unit not in family.name or family.name.endswith(f"_{unit}")
    if MEASURES_TIME.search(family.documentation):
        assert family.name.endswith("_seconds")
    if family.documentation.startswith("Bytes"):
        assert family.name.endswith("_bytes")


@each
def test_a_name_says_what_kind_a_metric_is_by_its_end_alone(family: Metric) -> None:
    parts = set(family.name.split("_"))
    assert not parts & {"total", "count", "sum", "bucket", "created", "counter", "gauge"}
    assert not parts & {"histogram", "summary"}
    if family.type == "histogram":
        assert family.name.endswith(("_seconds", "_bytes"))
    assert family.type in {"counter", "gauge", "histogram"}
    assert (family.name.endswith("_info")) == (family.name == "relproxy_build_info")


@each
def test_a_metric_is_described_in_a_sentence(family: Metric) -> None:
    assert re.fullmatch(r"[A-Z0-9].{10,}\.", family.documentation)


@pytest.mark.parametrize(("name", "labels"), metrics_in_the_source().items())
def test_labels_are_of_a_closed_set(name: str, labels: tuple[str, ...]) -> None:
    assert set(labels) <= LABELS
    assert len(labels) <= 3, name


def test_what_should_never_be_counted_is_shown_before_it_is() -> None:
    metrics = Metrics()
    metrics.begin_at_zero(["glance"])
    value = metrics.collectors.get_sample_value
    assert value("relproxy_records_total", {"registry": "glance", "result": "unrecorded"}) == 0
    assert value("relproxy_upstream_errors_total", {"registry": "glance", "reason": "timeout"}) == 0
    assert value("relproxy_admin_refusals_total", {"reason": "unusable"}) == 0
