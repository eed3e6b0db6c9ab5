from __future__ import annotations

import re
import shutil
import subprocess

from missing import unavailable

from streamworker.clock import SystemClock
from streamworker.observability.catalogue import (
    SECONDS_BUCKETS,
    Kind,
    Metric,
    ObserverMetric,
    SupervisorMetric,
    markdown,
)
from streamworker.observability.merged_metrics import ACCEPT, families, merged, render
from streamworker.observability.metrics import Figures, Metrics, counter, gauge
from streamworker.observability.series import Distribution, Summary
from streamworker.observability.status import Board, LifeState, WorkerStatus


def test_names_follow_the_conventions() -> None:
    declared = [metric.value for metric in (*Metric, *SupervisorMetric, *ObserverMetric)]

    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", one.name) for one in declared)
    assert all(one.name.endswith("_total") == (one.kind is Kind.COUNTER) for one in declared)
    assert all(one.unit in one.name for one in declared if one.kind is Kind.HISTOGRAM)
    assert len({one.name for one in declared}) == len(declared)


def test_no_label_can_hold_a_key_an_offset_or_a_message() -> None:
    labels = {label for metric in (*Metric, *ObserverMetric) for label in metric.value.labels}

    assert not labels & {"key", "offset", "message", "error", "value", "detail"}


def test_only_lag_is_labelled_by_partition() -> None:
    assert [metric for metric in Metric if "partition" in metric.value.labels] == [Metric.LAG, Metric.LAG_SECONDS]


def test_only_histograms_have_buckets_and_those_of_seconds_contain_eight_hundred_milliseconds() -> None:
    assert all(bool(metric.value.buckets) == (metric.value.kind is Kind.HISTOGRAM) for metric in Metric)
    assert 0.8 in SECONDS_BUCKETS


def test_the_page_has_one_row_per_metric() -> None:
    rows = markdown().splitlines()[2:]

    assert len(rows) == len(Metric)
    assert all(row.count("|") == 6 for row in rows)
    assert rows[0].startswith("| `streamworker_records_consumed_total` | counter | records | `topic`, `group` |")


def test_promtool_finds_nothing_to_mend_in_a_page_with_every_metric() -> None:
    if shutil.which("promtool") is None:
        unavailable("promtool is missing; `make packages` installs it")

    found = subprocess.run(["promtool", "check", "metrics"], input=whole_page(), capture_output=True, check=False)

    assert (found.returncode, found.stdout.decode(), found.stderr.decode()) == (0, "", "")


def whole_page() -> bytes:
    """One series of each metric, as a supervisor of one worker shows them."""
    labels = {metric: ("x",) * len(metric.value.labels) for metric in Metric}
    by_kind = {kind: [metric for metric in Metric if metric.value.kind is kind] for kind in Kind}
    figures = Figures(
        {metric: {labels[metric]: 1} for metric in (*by_kind[Kind.COUNTER], *by_kind[Kind.GAUGE])},
        {metric: {labels[metric]: Distribution(metric.value.buckets)} for metric in by_kind[Kind.HISTOGRAM]},
        {metric: {labels[metric][:-1]: Summary(1, 0.1, {"0.5": 0.1})} for metric in by_kind[Kind.SUMMARY]},
    )
    status = WorkerStatus(
        state=LifeState.RUNNING, group="shop", handlers=(), protocol="classic", started_s=0.0, now_s=1.0
    )
    page, _ = Metrics(Board(status), SystemClock(), [], version="1", counted=lambda: figures).render(ACCEPT)
    own = [(counter if one.value.kind is Kind.COUNTER else gauge)(one.value, {("x",): 1}) for one in SupervisorMetric]
    return render(merged({0: families(page)}, own), "")[0]
