"""Events to numbers, and numbers to a page.

The loop thread adds to plain ints, once per slice; a labelled counter of the client library costs
twenty times as much. A scrape, on a thread of the HTTP server, copies them and adds the gauges of the
board's latest status.
"""

# ruff: noqa: D102, ARG002 - the events and their arguments are described in events.py

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from streamworker.errors import DecodeError, DependencyUnavailable, PoisonError
from streamworker.events import Listener
from streamworker.observability.catalogue import Declared, Kind, Metric
from streamworker.observability.gauges import gauges
from streamworker.observability.series import BoundedNames, Counts, Distributions, Summary
from streamworker.observability.stall import StallKind
from streamworker.record import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric as Family

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration
    from streamworker.interfaces import ClientStatistics, Fault
    from streamworker.observability.series import Distribution, Labels
    from streamworker.observability.status import Board, WorkerStatus
    from streamworker.record import TopicPartition

# Dashboards rely on these words.
_OUTCOMES = {
    Ending.HANDLED: "ok",
    Ending.RETRIED: "retried",
    Ending.DEFERRED: "deferred",
    Ending.DEAD_LETTERED: "dlq",
    Ending.SKIPPED: "skipped",
    Ending.EXPIRED: "expired",
    Ending.NOT_ADDRESSED: "not_addressed",
    Ending.STOPPED: "error",
}
# Series of closed sets exist from the start: a rate over one that appears at 1 misses the first.
_FROM_THE_START: Mapping[Metric, Sequence[str]] = {
    Metric.COMMITS: ("ok", "refused", "unanswered"),
    Metric.REBALANCES: ("assign", "revoke", "lost"),
    Metric.STALLS: [kind.value for kind in StallKind],
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What somebody else counts, as it is at a scrape."""

    numbers: Mapping[Metric, Mapping[Labels, float]] = field(default_factory=dict)
    distributions: Mapping[Metric, Mapping[Labels, Distribution]] = field(default_factory=dict)
    summaries: Mapping[Metric, Mapping[Labels, Summary]] = field(default_factory=dict)

    def and_those(self, others: Figures) -> Figures:
        """These and others, of other metrics."""
        return Figures(
            {**self.numbers, **others.numbers},
            {**self.distributions, **others.distributions},
            {**self.summaries, **others.summaries},
        )


class Metrics(Listener):
    """Counts what happens. Events come on the loop thread, `render` may be called on any.

    `counted` is asked at each scrape for what is counted elsewhere.
    """

    def __init__(
        self,
        board: Board,
        clock: Clock,
        declarations: Sequence[Declaration],
        *,
        version: str,
        track: str = "stable",
        counted: Callable[[], Figures] = Figures,
    ) -> None:
        self._group = board.latest().group
        self._protocol = board.latest().protocol
        self._batching = {one.name for one in declarations if one.batch is not None}
        self._error_types = BoundedNames()
        self._counts = {one: Counts() for one in Metric if one.value.kind is Kind.COUNTER}
        self._distributions = {
            one: Distributions(one.value.buckets) for one in Metric if one.value.kind is Kind.HISTOGRAM
        }
        # What is touched once per slice is held directly: the hash of an enum's member is a call.
        self._processed = self._counts[Metric.RECORDS_PROCESSED]
        self._durations = self._distributions[Metric.PROCESS_DURATION]
        self._latencies = self._distributions[Metric.LATENCY]
        self._registry = CollectorRegistry()
        self._registry.register(_Exporter(self._counts, self._distributions, board, clock, (version, track), counted))
        ProcessCollector(registry=self._registry)
        for metric, values in _FROM_THE_START.items():
            for value in values:
                self._counts[metric].add((value,), 0)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type, OpenMetrics if the Accept header asks for it. Any thread."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._counts[Metric.REBALANCES].add(("assign",))

    def revoked(self, partitions: Sequence[TopicPartition], seconds: float) -> None:
        self._counts[Metric.REBALANCES].add(("revoke",))
        self._distributions[Metric.REBALANCE_DURATION].observe((self._protocol,), seconds)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._counts[Metric.REBALANCES].add(("lost",))

    def fetched(self, partition: TopicPartition, records: int, size_bytes: int) -> None:
        self._counts[Metric.RECORDS_CONSUMED].add((partition.topic, self._group), records)
        self._counts[Metric.BYTES_CONSUMED].add((partition.topic, self._group), size_bytes)

    def ended(self, handler: str, partition: TopicPartition, ending: Ending, records: int, seconds: float) -> None:
        outcome = _OUTCOMES[ending]
        self._processed.add((handler, partition.topic, self._group, outcome), records)
        if seconds > 0:
            self._observe_call(handler, outcome, records, seconds)

    def _observe_call(self, handler: str, outcome: str, records: int, seconds: float) -> None:
        if handler in self._batching:
            self._durations.observe((handler, outcome), seconds)
            self._distributions[Metric.BATCH_SIZE].observe((handler,), records)
        else:
            self._durations.observe((handler, outcome), seconds / records, records)

    def latency(self, topic: str, seconds: float) -> None:
        self._latencies.observe((topic,), seconds)

    def failed(
        self, handler: str, partition: TopicPartition, offset: int, error: BaseException, attempt: int, ending: Ending
    ) -> None:
        stage = "decode" if isinstance(error, DecodeError | DependencyUnavailable) else "handle"
        error_type = self._error_types.name(type(error).__name__)
        self._counts[Metric.ERRORS].add((handler, stage, error_type, _category(error, ending)))
        if ending is Ending.RETRIED:
            self._counts[Metric.RETRIES].add((handler, _attempt_bucket(attempt)))

    def deferred(self, partition: TopicPartition, topic: str, reason: str) -> None:
        self._counts[Metric.DEFERRED].add((topic, reason))

    def dead_lettered(self, partition: TopicPartition, topic: str, reason: str) -> None:
        self._counts[Metric.DLQ_RECORDS].add((topic, reason))

    def dead_letter_refused(self, partition: TopicPartition, offset: int, topic: str, error: str) -> None:
        self._counts[Metric.DLQ_PRODUCE_FAILURES].add((topic,))

    def stopped(self, partition: TopicPartition, reason: str, detail: str, mends_itself: bool) -> None:
        self._counts[Metric.STOPS].add((reason,))

    def resumed(self, partition: TopicPartition, reason: str, seconds: float) -> None:
        self._counts[Metric.BACKPRESSURE].add((reason,), seconds)

    def head_too_old(
        self, partition: TopicPartition, offset: int, age_s: float, attempts: int, records_behind: int
    ) -> None:
        self._counts[Metric.OLD_HEADS].add((partition.topic,))

    def breaker_changed(self, breaker: str, before: str, after: str, reason: str) -> None:
        self._counts[Metric.BREAKER_CHANGES].add((breaker, before, after))

    def bulkhead_full(self, dependency: str, calls: int) -> None:
        self._counts[Metric.BULKHEAD_FULL].add((dependency,), calls)

    def degraded(self, operation: str, fallback: str, reads: int) -> None:
        self._counts[Metric.DEGRADED_READS].add((operation, fallback), reads)

    def commit_answered(self, partitions: int, error: str | None, seconds: float) -> None:
        self._counts[Metric.COMMITS].add(("ok" if error is None else "refused",))
        self._distributions[Metric.COMMIT_DURATION].observe((), seconds)

    def commit_unanswered(self, partitions: int) -> None:
        self._counts[Metric.COMMITS].add(("unanswered",))

    def foreign_offset(self, partition: TopicPartition, offset: int) -> None:
        self._counts[Metric.FOREIGN_OFFSETS].add((partition.topic,))

    def remembered(self, partition: TopicPartition, records: int) -> None:
        self._counts[Metric.REMEMBERED].add((partition.topic,), records)

    def suspected(self, partition: TopicPartition, deaths: int) -> None:
        self._counts[Metric.QUARANTINES].add((partition.topic,))

    def progress_cut(self, partition: TopicPartition, needed_bytes: int) -> None:
        self._counts[Metric.PROGRESS_CUT].add((partition.topic,))

    def late_outcome(self, handler: str, partition: TopicPartition, records: int) -> None:
        self._counts[Metric.LATE_OUTCOMES].add((handler,), records)

    def throttled(self, handler: str, seconds: float) -> None:
        self._counts[Metric.THROTTLED].add((handler,), seconds)

    def retries_postponed(self, handler: str, retries: int) -> None:
        self._counts[Metric.RETRIES_POSTPONED].add((handler,), retries)

    def written_off(self, handler: str, partition: TopicPartition, offset: int, seconds: float) -> None:
        self._counts[Metric.WRITTEN_OFF].add((handler,))

    def came_back_late(self, handler: str, partition: TopicPartition, seconds: float) -> None:
        self._counts[Metric.CAME_BACK_LATE].add((handler,))

    def fault(self, fault: Fault) -> None:
        self._counts[Metric.FAULTS].add((fault.kind.value,))

    def stalled(self, what: str, detail: str) -> None:
        self._counts[Metric.STALLS].add((what,))


def _category(error: BaseException, ending: Ending) -> str:
    if ending is Ending.RETRIED:
        return "transient"
    return "poison" if isinstance(error, PoisonError | DecodeError) else "permanent"


def _attempt_bucket(attempt: int) -> str:
    if attempt <= 2:
        return str(attempt)
    return "3-5" if attempt <= 5 else "6+"


def _of_client(client: ClientStatistics | None) -> Figures:
    """What the client counts by itself."""
    if client is None:
        return Figures()
    brokers = client.brokers.items()
    return Figures(
        {
            Metric.KAFKA_DISCONNECTS: {(name,): one.disconnects for name, one in brokers},
            Metric.KAFKA_TX_ERRORS: {(name,): one.tx_errors for name, one in brokers},
            Metric.KAFKA_RX_ERRORS: {(name,): one.rx_errors for name, one in brokers},
            Metric.KAFKA_TIMEOUTS: {(name,): one.request_timeouts for name, one in brokers},
            Metric.KAFKA_REBALANCES: {(): client.rebalances},
        },
        summaries={
            Metric.KAFKA_RTT: {(name,): Summary(one.answers, one.answers_s, one.rtt_s) for name, one in brokers}
        },
    )


class _Exporter(Collector):
    def __init__(
        self,
        counts: Mapping[Metric, Counts],
        distributions: Mapping[Metric, Distributions],
        board: Board,
        clock: Clock,
        build: tuple[str, str],
        counted: Callable[[], Figures],
    ) -> None:
        self._counted = counted
        self._counts = counts
        self._distributions = distributions
        self._board = board
        self._clock = clock
        self._build = build

    def collect(self) -> Iterator[Family]:
        status = self._board.latest()
        more = self._counted().and_those(_of_client(status.client))
        for metric, counts in self._counts.items():
            own = self._dropped() if metric is Metric.SERIES_DROPPED else counts.copy()
            yield counter(metric.value, {**own, **more.numbers.get(metric, {})})
        for metric, distributions in self._distributions.items():
            yield _histogram(metric.value, {**distributions.copy(), **more.distributions.get(metric, {})})
        for metric, summaries in more.summaries.items():
            yield _summary(metric.value, summaries)
        others = {metric: values for metric, values in more.numbers.items() if metric.value.kind is Kind.GAUGE}
        for metric, values in {**self._gauges(status), **others}.items():
            yield gauge(metric.value, values)

    def _gauges(self, status: WorkerStatus) -> Mapping[Metric, Mapping[Labels, float]]:
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_ms() / 1000
        return gauges(status, now_s=now_s, wall_s=wall_s, build=self._build)

    def _dropped(self) -> Mapping[Labels, float]:
        dropped = {metric: counts.dropped for metric, counts in self._counts.items()}
        dropped |= {metric: distributions.dropped for metric, distributions in self._distributions.items()}
        return {(metric.value.full_name,): updates for metric, updates in dropped.items() if updates}


def counter(declared: Declared, values: Mapping[Labels, float]) -> Family:
    """A family of samples, by the values of their labels."""
    family = CounterMetricFamily(declared.full_name, declared.meaning, labels=declared.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def gauge(declared: Declared, values: Mapping[Labels, float]) -> Family:
    """A family of samples, by the values of their labels."""
    family = GaugeMetricFamily(declared.full_name, declared.meaning, labels=declared.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(declared: Declared, values: Mapping[Labels, Distribution]) -> Family:
    family = HistogramMetricFamily(declared.full_name, declared.meaning, labels=declared.labels)
    bounds = [*(str(bound) for bound in declared.buckets), "+Inf"]
    for labels, distribution in values.items():
        counts, total = distribution.cumulative()
        family.add_metric(labels, list(zip(bounds, counts, strict=True)), total)
    return family


def _summary(declared: Declared, values: Mapping[Labels, Summary]) -> Family:
    *labels, quantile = declared.labels
    family = SummaryMetricFamily(declared.full_name, declared.meaning, labels=labels)
    for found, summary in values.items():
        family.add_metric(found, summary.count, summary.total)
        for name, value in summary.quantiles.items():
            family.add_sample(declared.full_name, {**dict(zip(labels, found, strict=True)), quantile: name}, value)
    return family
