from __future__ import annotations

import re

from streamworker.observability.catalogue import SECONDS_BUCKETS, Kind, Metric, SupervisorMetric, markdown


def test_names_follow_the_conventions() -> None:
    declared = [metric.value for metric in (*Metric, *SupervisorMetric)]

    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", one.name) for one in declared)
    assert all(one.name.endswith("_total") == (one.kind is Kind.COUNTER) for one in declared)
    assert all(one.unit in one.name for one in declared if one.kind is Kind.HISTOGRAM)
    assert len({one.name for one in declared}) == len(declared)


def test_no_label_can_hold_a_key_an_offset_or_a_message() -> None:
    labels = {label for metric in Metric for label in metric.value.labels}

    assert not labels & {"key", "offset", "message", "error", "value", "detail"}


def test_only_lag_is_labelled_by_partition() -> None:
    assert [metric for metric in Metric if "partition" in metric.value.labels] == [Metric.LAG]


def test_only_histograms_have_buckets_and_those_of_seconds_contain_eight_hundred_milliseconds() -> None:
    assert all(bool(metric.value.buckets) == (metric.value.kind is Kind.HISTOGRAM) for metric in Metric)
    assert 0.8 in SECONDS_BUCKETS


def test_the_page_has_one_row_per_metric() -> None:
    rows = markdown().splitlines()[2:]

    assert len(rows) == len(Metric)
    assert all(row.count("|") == 6 for row in rows)
    assert rows[0].startswith("| `streamworker_records_consumed_total` | counter | records | `topic`, `group` |")
