"""The gauges, read off a status. Pure.

They are made anew at each scrape, so that what no longer exists (a revoked partition) leaves no series.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from streamworker.observability.catalogue import Metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.interfaces import ClientStatistics
    from streamworker.observability.series import Labels
    from streamworker.observability.status import PartitionStatus, WorkerStatus

Gauges = dict[Metric, "Mapping[Labels, float]"]


def gauges(status: WorkerStatus, *, now_s: float, wall_s: float, build: tuple[str, str]) -> Gauges:
    """All gauges; `wall_s` is the Unix time at the monotonic time `now_s`, and `build` version and track."""
    return {
        **_of_worker(status, wall_s - now_s),
        **_of_partitions(status.partitions, status.group),
        **_of_calls(status),
        **_of_client(status.client),
        Metric.LAG_SECONDS: _lags_s(status, max(0.0, now_s - status.now_s)),
        Metric.KAFKA_JOIN_STATE: {(status.join_state,): 1} if status.join_state else {},
        Metric.BUILD: {(*build, status.protocol, status.group): 1},
    }


def _lags_s(status: WorkerStatus, status_age_s: float) -> Mapping[Labels, float]:
    """A record that is open is so until the next status; of a loop that hangs there is none."""
    return {
        (one.topic, str(one.partition), status.group): one.lag_s + status_age_s if one.lag_s else 0.0
        for one in status.partitions
        if one.lag_s is not None
    }


def _of_client(client: ClientStatistics | None) -> Gauges:
    if client is None:
        return {}
    return {
        Metric.KAFKA_THROTTLE: {(name,): one.throttle_s for name, one in client.brokers.items()},
        Metric.KAFKA_FETCH_QUEUE_RECORDS: {(): client.fetch_queue_records},
        Metric.KAFKA_FETCH_QUEUE_BYTES: {(): client.fetch_queue_bytes},
        Metric.KAFKA_REPLY_QUEUE: {(): client.reply_queue_ops},
    }


def _of_worker(status: WorkerStatus, zero_s: float) -> Gauges:
    return {
        Metric.INFLIGHT_RECORDS: {(): status.inflight_records},
        Metric.INFLIGHT_BYTES: {(): status.inflight_bytes},
        Metric.JOINED: {(status.group,): int(status.joined)},
        Metric.DEGRADED: {(): len(status.degraded)},
        Metric.BREAKER: {
            (name, "call" if name in status.call_breakers else "sink", state): int(state == now)
            for name, now in status.breakers.items()
            for state in ("closed", "open", "half_open")
        },
        Metric.EVENT_LOOP_LAG: {(handler,): seconds for handler, seconds in status.event_loops.items()},
        Metric.BUSY: {(handler,): share for handler, share in status.busy.items()},
        Metric.CALLS_LIMIT: {(handler,): limit for handler, limit in status.limits.items()},
        Metric.LAST_POLL: {} if status.last_poll_s is None else {(): zero_s + status.last_poll_s},
        Metric.LAST_COMMIT: {} if status.last_commit_s is None else {(): zero_s + status.last_commit_s},
    }


def _of_partitions(partitions: tuple[PartitionStatus, ...], group: str) -> Gauges:
    stopped = [one.stopped for one in partitions if one.stopped is not None]
    return {
        Metric.ASSIGNED: {(): len(partitions)},
        Metric.HELD: {(): sum(one.held_records for one in partitions)},
        Metric.PAUSED: Counter((pause.reason,) for one in partitions for pause in one.pauses),
        Metric.STOPPED: Counter((stop.reason, str(stop.mends_itself).lower()) for stop in stopped),
        **_of_topics(partitions),
        Metric.LAG: {
            (one.topic, str(one.partition), group): one.lag_records for one in partitions if one.lag_records is not None
        },
    }


def _of_topics(partitions: tuple[PartitionStatus, ...]) -> Gauges:
    ages_s: dict[Labels, float] = {}
    behind: Counter[Labels] = Counter()
    parked_keys: Counter[Labels] = Counter()
    for one in partitions:
        seconds, records = (0.0, 0) if one.head is None else (one.head.age_s, one.head.records_behind)
        ages_s[one.topic,] = max(seconds, ages_s.get((one.topic,), 0.0))
        behind[one.topic,] += records
        parked_keys[one.topic,] += one.parked_keys
    return {Metric.OLDEST_HEAD: ages_s, Metric.BEHIND_HEADS: behind, Metric.PARKED_KEYS: parked_keys}


def _of_calls(status: WorkerStatus) -> Gauges:
    ages_s: dict[str, list[float]] = {handler: [] for handler in status.handlers}
    for running in status.running:
        ages_s.setdefault(running.handler, []).append(running.seconds)
    return {
        Metric.RUNNING: {(handler,): len(ages) for handler, ages in ages_s.items()},
        Metric.OLDEST_CALL: {(handler,): max(ages, default=0.0) for handler, ages in ages_s.items()},
    }
