"""The metrics of several workers on one page: nothing is lost, and it is still a page that can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from streamworker import Ending, Handler, Record, TopicPartition
from streamworker.declaration import declaration
from streamworker.observability.catalogue import Metric, SupervisorMetric
from streamworker.observability.merged_metrics import ACCEPT, families, merged, render
from streamworker.observability.metrics import Metrics, counter
from streamworker.observability.status import Board, LifeState, WorkerStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric as Family
    from prometheus_client.samples import Sample

# What must be escaped in a label's value, and what looks like the end of one.
ODD = 'a "quoted" \\ back\\nslash\nand a line, worker="7"} 1'
FORMATS = ("text/plain", "application/openmetrics-text")
Samples = set[tuple[str, tuple[tuple[str, str], ...], float]]


class StoreOrder(Handler[bytes]):
    topics = ("orders",)

    def handle(self, record: Record[bytes]) -> None: ...


class StillClock:
    def monotonic_s(self) -> float:
        return 1_000.0

    def wall_ms(self) -> int:
        return 1_700_000_000_000


def worker(records: int, group: str = "shop") -> Metrics:
    """The metrics of a worker that has handled so many records."""
    status = WorkerStatus(
        state=LifeState.RUNNING,
        group=group,
        handlers=("StoreOrder",),
        protocol="classic",
        started_s=0.0,
        now_s=1_000.0,
        last_poll_s=999.0,
        breakers={ODD: "open"},
    )
    metrics = Metrics(Board(status), StillClock(), [declaration(StoreOrder)], version="1.2.3")
    for _ in range(records):
        metrics.ended("StoreOrder", TopicPartition("orders", 0), Ending.HANDLED, 1, 0.3)
    metrics.commit_answered(1, None, 0.02)
    return metrics


def page(metrics: Metrics) -> bytes:
    return metrics.render(ACCEPT)[0]


def samples(found: Iterable[Family], *, without: str = "") -> Samples:
    """Without the figures of the process, which change between two looks."""
    kept: list[Sample] = [one for family in found for one in family.samples if not one.name.startswith("process_")]
    return {
        (one.name, tuple(sorted((name, value) for name, value in one.labels.items() if name != without)), one.value)
        for one in kept
    }


def both_formats(body_of: dict[str, bytes]) -> list[list[Family]]:
    return [
        list(text_string_to_metric_families(body_of["text/plain"].decode())),
        list(openmetrics.text_string_to_metric_families(body_of["application/openmetrics-text"].decode())),
    ]


def rendered(whole: list[Family]) -> dict[str, bytes]:
    return {accept: render(whole, accept)[0] for accept in FORMATS}


def test_of_one_worker_nothing_is_different_but_the_label() -> None:
    metrics = worker(3)

    pages = both_formats(rendered(merged({4: families(page(metrics))}, [])))

    originals = both_formats({accept: metrics.render(accept)[0] for accept in FORMATS})
    for found, told in zip(pages, originals, strict=True):
        assert samples(found, without="worker") == samples(told)
        assert {dict(labels)["worker"] for _, labels, _ in samples(found)} == {"4"}
        assert [(one.name, one.type, one.documentation) for one in found] == [
            (one.name, one.type, one.documentation) for one in told
        ]


def test_each_worker_has_its_own_samples_and_each_family_is_declared_once() -> None:
    body_of = rendered(merged({0: families(page(worker(3))), 1: families(page(worker(5)))}, []))

    for found in both_formats(body_of):
        names = [family.name for family in found]
        processed = {
            one.labels["worker"]: one.value
            for family in found
            for one in family.samples
            if one.name == "streamworker_records_processed_total"
        }
        assert len(names) == len(set(names))
        assert processed == {"0": 3.0, "1": 5.0}


def test_a_histogram_stays_one_for_each_worker() -> None:
    whole = merged({0: families(page(worker(3))), 1: families(page(worker(5)))}, [])

    (found,) = [one for one in both_formats(rendered(whole))[1] if one.name.endswith("process_duration_seconds")]
    counts = {
        one.labels["worker"]: one.value
        for one in found.samples
        if one.name.endswith("_bucket") and one.labels["le"] == "+Inf"
    }
    assert found.type == "histogram"
    assert counts == {"0": 3.0, "1": 5.0}


def test_odd_values_of_labels_come_through() -> None:
    whole = merged({0: families(page(worker(1, group=ODD)))}, [])

    for found in both_formats(rendered(whole)):
        groups = {one.labels["group"] for family in found for one in family.samples if "group" in one.labels}
        assert groups == {ODD}


def test_our_own_families_stand_beside_them() -> None:
    own = counter(SupervisorMetric.RESTARTS.value, {("0",): 2})

    found = both_formats(rendered(merged({}, [own])))

    assert samples(found[0]) == {("streamworker_worker_restarts_total", (("worker", "0"),), 2.0)}


def test_the_format_is_the_one_that_is_asked_for() -> None:
    assert render([], "application/openmetrics-text; version=1.0.0")[1].startswith("application/openmetrics-text")
    assert render([], "")[1].startswith("text/plain")


@pytest.mark.parametrize("body", [b"", b"internal error\n", b"\xff", page(worker(1))[:-9]])
def test_what_is_no_whole_page_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        families(body)


def test_no_metric_of_a_worker_has_the_label_already_and_no_name_is_used_twice() -> None:
    assert not any("worker" in metric.value.labels for metric in Metric)
    assert not {one.value.name for one in Metric} & {one.value.name for one in SupervisorMetric}
