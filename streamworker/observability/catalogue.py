"""All metrics, each declared once: name, kind, unit, labels, meaning.

What exports them and the page of the documentation are both made from here. Labels take their values
from closed or bounded sets: never a key, an offset or a message.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "streamworker_"

# 0.8 is a bound of its own, so that "p99 above 800 ms" is decided without interpolation.
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.8, 1.6, 3.2, 10.0, 30.0)
# From a record's timestamp on: what waited in the log for minutes is to be told from what waited for an hour.
LATENCY_BUCKETS = (*SECONDS_BUCKETS, 60.0, 300.0, 900.0, 3600.0)
RECORDS_BUCKETS = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)


class Kind(enum.Enum):
    """How a metric behaves."""

    COUNTER = "counter"  # only grows, and begins at 0 with the process
    GAUGE = "gauge"  # the state now
    HISTOGRAM = "histogram"  # counts of observations at most as large as each bucket
    SUMMARY = "summary"  # quantiles that somebody else has made, and count and sum of all observations


@dataclass(frozen=True, slots=True)
class Declared:
    """A line of the catalogue; `buckets` for histograms only."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as it is exported."""
        return PREFIX + self.name


def _counter(name: str, unit: str, labels: tuple[str, ...], meaning: str) -> Declared:
    return Declared(name, Kind.COUNTER, unit, labels, meaning)


def _gauge(name: str, unit: str, labels: tuple[str, ...], meaning: str) -> Declared:
    return Declared(name, Kind.GAUGE, unit, labels, meaning)


def _seconds(name: str, labels: tuple[str, ...], meaning: str) -> Declared:
    return Declared(name, Kind.HISTOGRAM, "seconds", labels, meaning, SECONDS_BUCKETS)


def _of_client(name: str, meaning: str) -> Declared:
    return _counter(f"kafka_broker_{name}_total", name.rpartition("_")[2], ("broker",), meaning)


class Metric(enum.Enum):
    """The catalogue of a worker."""

    RECORDS_CONSUMED = _counter(
        "records_consumed_total", "records", ("topic", "group"), "Records that fetches brought."
    )
    BYTES_CONSUMED = _counter("bytes_consumed_total", "bytes", ("topic", "group"), "Bytes of their values.")
    RECORDS_PROCESSED = _counter(
        "records_processed_total",
        "records",
        ("handler", "topic", "group", "outcome"),
        "Records by how they ended: `ok`, `retried` (they come again), `deferred` (they come again from a retry"
        " topic), `dlq`, `skipped`, `expired` (too old for a call), `not_addressed` (a replay for another group), or"
        " `error` (the partition or the worker stops).",
    )
    ERRORS = _counter(
        "errors_total",
        "errors",
        ("handler", "stage", "error_type", "category"),
        "Failed calls. `stage` is `decode` or `handle`; `error_type` the class of the error, `_OTHER` after the first"
        " 50; `category` is `transient` (tried again), `poison` (the record is at fault) or `permanent`.",
    )
    RETRIES = _counter(
        "retries_total",
        "calls",
        ("handler", "attempt_bucket"),
        "Failed calls that are tried again, by the attempt that failed: `1`, `2`, `3-5` or `6+`.",
    )
    DEFERRED = _counter(
        "deferred_records_total",
        "records",
        ("retry_topic", "reason"),
        "Records that a retry topic acknowledged, by `sw-reason`.",
    )
    DLQ_RECORDS = _counter(
        "dlq_records_total",
        "records",
        ("dlq_topic", "reason"),
        "Records that a dead-letter topic acknowledged, by `sw-reason`.",
    )
    DLQ_PRODUCE_FAILURES = _counter(
        "dlq_produce_failures_total",
        "records",
        ("dlq_topic",),
        "Dead letters that the topic did not take; their partition is stopped until it does.",
    )
    COMMITS = _counter(
        "commits_total",
        "answers",
        ("outcome",),
        "Answers to commits: `ok`, `refused`, or `unanswered` within the commit timeout.",
    )
    REBALANCES = _counter(
        "rebalances_total", "changes", ("kind",), "Changes of the assignment: `assign`, `revoke` or `lost`."
    )
    BACKPRESSURE = _counter(
        "backpressure_seconds_total",
        "seconds",
        ("reason",),
        "Time that partitions were paused, by reason; added up when a pause ends.",
    )
    STOPS = _counter("stops_total", "stops", ("reason",), "Times that a partition was stopped.")
    FOREIGN_OFFSETS = _counter(
        "offsets_foreign_total",
        "offsets",
        ("topic",),
        "Offsets of the group that were not written by streamworker, and were accepted.",
    )
    REMEMBERED = _counter(
        "records_remembered_total",
        "records",
        ("topic",),
        "Records that were fetched again and not handled again: an earlier owner had done them beyond its offset.",
    )
    QUARANTINES = _counter(
        "quarantines_total",
        "partitions",
        ("topic",),
        "Partitions taken over from an owner that did not give them back: what it had in work goes in small groups.",
    )
    PROGRESS_CUT = _counter(
        "commit_progress_cut_total",
        "commits",
        ("topic",),
        "Commits beside which not all fits that is done beyond their offset; after a crash it is handled again.",
    )
    LATE_OUTCOMES = _counter(
        "late_outcomes_total",
        "records",
        ("handler",),
        "Records that came back from a handler after their partition had gone; its new owner handles them again.",
    )
    THROTTLED = _counter(
        "throttled_seconds_total",
        "seconds",
        ("handler",),
        "Time that records waited for the handler's `rate`; with `per_key` the sum over keys.",
    )
    RETRIES_POSTPONED = _counter(
        "retries_postponed_total",
        "times",
        ("handler",),
        "Times that a retry was due and had to wait on because the handler's `retry_budget` was spent.",
    )
    WRITTEN_OFF = _counter(
        "calls_written_off_total",
        "calls",
        ("handler",),
        "Calls that ran for longer than their handler's `timeout_s`: they have failed, and a thread was added.",
    )
    CAME_BACK_LATE = _counter(
        "late_calls_total", "calls", ("handler",), "Calls that were written off and have ended; nothing comes of them."
    )
    OLD_HEADS = _counter(
        "old_heads_total",
        "records",
        ("topic",),
        "Records that were the lowest open one of a partition for longer than `lifecycle.max_head_age_s`.",
    )
    BREAKER_CHANGES = _counter(
        "breaker_transitions_total", "changes", ("name", "from", "to"), "Changes of the state of breakers."
    )
    BULKHEAD_FULL = _counter(
        "bulkhead_full_total",
        "calls",
        ("name",),
        "Guarded calls of a dependency that were not made because as many as may be were in progress.",
    )
    DEGRADED_READS = _counter(
        "degraded_total",
        "reads",
        ("operation", "mode"),
        "Reads that were given what stands in for an answer: `cached`, `default` or `skip`, or put their record aside:"
        " `defer`.",
    )
    STALLS = _counter(
        "stalls_total",
        "stalls",
        ("what",),
        "Things found not to move: `client`, `handler`, `handler_timeout`, `loop`, `event_loop`.",
    )
    CACHE_REQUESTS = _counter(
        "cache_requests_total",
        "keys",
        ("cache", "level", "result"),
        "Keys that a cache was asked for. `level` is `l1` (this process), `l2` (Redis) or `loader`; `result` is `hit`,"
        " `miss`, `negative` (known not to exist), `unreadable` (another schema, or nonsense) or `error`.",
    )
    CLAIMS = _counter(
        "claims_total",
        "records",
        ("handler", "result"),
        "What became of claims in Redis, in this process: `granted`, `done` (it had its effect before), `busy` (another"
        " has it), `unavailable` (Redis was not asked, or did not answer), `incomplete` (done, but not noted)"
        " or `lost` (another may have handled it, too).",
    )
    CACHE_LEASES = _counter(
        "cache_leases_total",
        "keys",
        ("cache", "result"),
        "Asking Redis for leave to fill: `granted`, `refused` (another process loads), `full` (Redis takes no more), or"
        " `lost` (a write came first, or the load took longer than `lease_s`).",
    )
    CACHE_REJECTED = _counter(
        "cache_puts_rejected_total",
        "values",
        ("cache", "reason"),
        "Values that this process did not keep, since they came late: the `guard` was broken by an invalidation, or a"
        " newer `version` is there.",
    )
    CACHE_REMOVALS = _counter(
        "cache_removals_total",
        "values",
        ("cache", "cause"),
        "Values that this process dropped: `size`, `expired`, `explicit` (invalidated), `replaced`, `flushed` or"
        " `scope` (their partition went).",
    )
    CACHE_INVALIDATIONS = _counter(
        "cache_invalidations_total", "keys", ("cache", "direction"), "Keys that were told of: `sent` or `received`."
    )
    CACHE_FLUSHES = _counter(
        "cache_flushes_total",
        "flushes",
        ("cache", "reason"),
        "Times that this process dropped all of a cache: `asked`, `epoch` (another process did), `linked` and"
        " `unlinked` (the connection that hears of changes), `server` (Redis was started anew, or another took over) or"
        " `unreadable` (nonsense on the channel).",
    )
    CACHE_FAILURES = _counter(
        "cache_redis_failures_total", "calls", ("cache", "operation"), "Calls of Redis that failed or came too late."
    )
    CACHE_SKIPPED = _counter(
        "cache_redis_skipped_total",
        "calls",
        ("cache",),
        "Calls of Redis that were not made: its breaker was open, or `cache.timeout_s` was spent.",
    )
    FAULTS = _counter("client_faults_total", "events", ("kind",), "Error events of the Kafka client.")
    SERIES_DROPPED = _counter(
        "series_dropped_total",
        "updates",
        ("metric",),
        "Updates that were left out because the metric has its 2000 series.",
    )
    LOG_MESSAGES = _counter(
        "log_messages_total",
        "lines",
        ("level",),
        "Lines that this process logged, by level, what `log.level` leaves out not among them: `DEBUG`, `INFO`,"
        " `WARNING`, `ERROR` or `CRITICAL`.",
    )
    KAFKA_DISCONNECTS = _of_client(
        "disconnects", "Connections of the consumer to a broker that ended, whoever ended them."
    )
    KAFKA_TX_ERRORS = _of_client("tx_errors", "Requests of the consumer that could not be sent to a broker.")
    KAFKA_RX_ERRORS = _of_client("rx_errors", "Answers of a broker that the consumer could not read.")
    KAFKA_TIMEOUTS = _of_client("request_timeouts", "Requests of the consumer that a broker did not answer in time.")
    KAFKA_REBALANCES = _counter(
        "kafka_group_rebalances_total",
        "rebalances",
        (),
        "Rebalances of the group that the client took part in, also those that changed nothing here.",
    )

    PROCESS_DURATION = _seconds(
        "process_duration_seconds",
        ("handler", "outcome"),
        "Time in the handler: of a batch, or of a record (the mean of the slice that it was handed over in). Without"
        " records whose end is decided elsewhere, as by a dead letter's acknowledgement.",
    )
    BATCH_SIZE = Declared(
        "batch_size_records",
        Kind.HISTOGRAM,
        "records",
        ("handler",),
        "Records of a batch that ended in one way.",
        RECORDS_BUCKETS,
    )
    REBALANCE_DURATION = _seconds(
        "rebalance_duration_seconds", ("protocol",), "Time to finish and commit what is in hand when partitions go."
    )
    COMMIT_DURATION = _seconds("commit_duration_seconds", (), "Time from a commit to its answer.")

    LATENCY = Declared(
        "end_to_end_latency_seconds",
        Kind.HISTOGRAM,
        "seconds",
        ("topic",),
        "Time from a record's timestamp to its end (handled, skipped, or its dead letter acknowledged), by the topic"
        " that it was first in. One record is observed of all those that end in one step of the loop, the lowest of its"
        " slice or batch: a sample, in which each step counts as one. Without records that have no timestamp or were"
        " sent again by a person.",
        LATENCY_BUCKETS,
    )
    KAFKA_RTT = Declared(
        "kafka_broker_rtt_seconds",
        Kind.SUMMARY,
        "seconds",
        ("broker", "quantile"),
        "Time from a request of the consumer to a broker's answer; a fetch that waits for records is among them with"
        " its wait. Quantiles 0.5, 0.95 and 0.99 of the last second in which there were answers. `broker` is its"
        " number, or `coordinator` for the connection over which offsets are committed.",
    )

    CACHE_LOADS = _seconds("cache_load_seconds", ("cache",), "Time of a call of a cache's loader, for one key or many.")

    LAG = _gauge(
        "consumer_lag_records",
        "records",
        ("topic", "partition", "group"),
        "Records from the lowest that is not done to the end of the log, also while paused; no sample while unknown.",
    )
    LAG_SECONDS = _gauge(
        "consumer_lag_seconds",
        "seconds",
        ("topic", "partition", "group"),
        "Age of the lowest record that is not done, by the timestamps of the log, also while paused; 0 if all is done,"
        " no sample while unknown. Rather too high than too low; of a retry topic since the record was due.",
    )
    ASSIGNED = _gauge("assigned_partitions", "partitions", (), "Partitions that this worker owns.")
    PAUSED = _gauge(
        "paused_partitions", "partitions", ("reason",), "Partitions that are not fetched, once for each reason."
    )
    STOPPED = _gauge(
        "stopped_partitions",
        "partitions",
        ("reason", "mends_itself"),
        "Partitions that are stopped; with `mends_itself` false they wait for a person.",
    )
    INFLIGHT_RECORDS = _gauge("inflight_records", "records", (), "Records fetched and not settled.")
    INFLIGHT_BYTES = _gauge("inflight_bytes", "bytes", (), "Bytes of their values.")
    HELD = _gauge("held_records", "records", (), "Records that wait for their retry.")
    PARKED_KEYS = _gauge(
        "parked_keys",
        "keys",
        ("topic",),
        "Keys of owned partitions whose records follow a dead letter, until they are released.",
    )
    OLDEST_HEAD = _gauge(
        "oldest_head_seconds",
        "seconds",
        ("topic",),
        "For how long a record has been the lowest open one of its partition, at most; /status says which.",
    )
    BEHIND_HEADS = _gauge(
        "records_behind_heads",
        "records",
        ("topic",),
        "Records done that cannot be committed because a lower one is open.",
    )
    EVENT_LOOP_LAG = _gauge(
        "event_loop_lag_seconds",
        "seconds",
        ("handler",),
        "For how long the event loop of an async handler has not come round; near 0 unless a call blocks it.",
    )
    RUNNING = _gauge("running_calls", "calls", ("handler",), "Calls of the handler in progress.")
    BUSY = _gauge(
        "busy_ratio",
        "0 to 1",
        ("handler",),
        "Of the calls of the handler that may be in progress at once, the share that was, on the mean of the last half"
        " minute; a slice that waits for its thread counts as one, and of batches each is a call. Near 1 records wait"
        " for the handler.",
    )
    CALLS_LIMIT = _gauge(
        "calls_limit", "calls", ("handler",), "How many calls at once are made of a handler that is `adaptive`."
    )
    OLDEST_CALL = _gauge("oldest_call_seconds", "seconds", ("handler",), "Age of the oldest call in progress.")
    JOINED = _gauge("group_joined", "boolean", ("group",), "1 while this worker is a member in a settled group.")
    BREAKER = _gauge(
        "breaker_state",
        "0 or 1",
        ("name", "kind", "state"),
        "1 for the state that the breaker of a dependency is in: `closed`, `open` or `half_open`. `kind` is `sink`:"
        " while it is open the partitions of its handlers are paused; or `call`: the records that need it wait.",
    )
    DEGRADED = _gauge(
        "degraded_parts", "parts", (), "What is impaired without keeping records from being handled; /status names it."
    )
    CACHE_ENTRIES = _gauge("cache_entries", "values", ("cache",), "Values of a cache in this process.")
    CACHE_DIRTY = _gauge(
        "cache_dirty_keys",
        "keys",
        ("cache",),
        "Keys that Redis may have out of date, since it was away when they were written; nothing is read from it until"
        " it is told.",
    )
    CACHE_LINKED = _gauge(
        "cache_invalidation_link_up",
        "0 or 1",
        ("cache",),
        "1 while changes by other processes are heard; else values are kept for `cache.degraded_ttl_s` only.",
    )
    LAST_POLL = _gauge("last_poll_timestamp_seconds", "seconds", (), "Unix time of the last poll.")
    LAST_COMMIT = _gauge("last_commit_timestamp_seconds", "seconds", (), "Unix time of the last acknowledged commit.")
    RESIDENT = _gauge("resident_memory_bytes", "bytes", (), "Resident memory of this process; on Linux only.")
    KAFKA_THROTTLE = _gauge(
        "kafka_broker_throttle_seconds",
        "seconds",
        ("broker",),
        "The longest time in about the last minute for which a broker held an answer to the consumer back because of a"
        " quota; 0 without.",
    )
    KAFKA_FETCH_QUEUE_RECORDS = _gauge(
        "kafka_fetch_queue_records", "records", (), "Records that the client has fetched ahead of the worker."
    )
    KAFKA_FETCH_QUEUE_BYTES = _gauge("kafka_fetch_queue_bytes", "bytes", (), "Bytes that these take.")
    KAFKA_REPLY_QUEUE = _gauge(
        "kafka_reply_queue_ops", "events", (), "Events of the client that wait for the worker's next poll."
    )
    KAFKA_PRODUCER_QUEUE_RECORDS = _gauge(
        "kafka_producer_queue_records",
        "records",
        (),
        "Dead letters, and records for retry topics, that the client has and the brokers have not acknowledged. What"
        " sinks write is waited for by the calls that bring it.",
    )
    KAFKA_PRODUCER_QUEUE_BYTES = _gauge("kafka_producer_queue_bytes", "bytes", (), "Bytes that these take.")
    KAFKA_JOIN_STATE = _gauge(
        "kafka_group_join_state",
        "boolean",
        ("state",),
        "1 for the state that the client is in as a member, by its own name for it: `steady` once it has joined.",
    )
    BUILD = _gauge(
        "build_info",
        "boolean",
        ("version", "track", "protocol", "group"),
        "Always 1. `track` is `deployment.track` of the configuration.",
    )
    CONFIG = _gauge(
        "config_info",
        "boolean",
        ("hash",),
        "Always 1. Workers with the same `hash` have the same configuration, but for secrets and for what tells them"
        " apart: their address, `group.instance.id` and the table `deployment`.",
    )


class SupervisorMetric(enum.Enum):
    """What a supervisor adds to the metrics of its workers, all of which then have the label `worker`."""

    PROCESSES = _gauge(
        "worker_processes",
        "processes",
        ("state",),
        "Worker processes by state: `running`, `waiting` for a new start after a back-off, or `ended` for good.",
    )
    RESTARTS = _counter(
        "worker_restarts_total", "starts", ("worker",), "Starts of a worker process after one that had ended."
    )
    UNANSWERED = _counter(
        "worker_scrapes_unanswered_total",
        "scrapes",
        ("worker",),
        "Scrapes that a running worker did not answer in time, and that are without its metrics.",
    )


class ObserverMetric(enum.Enum):
    """What `streamworker lag --serve` tells of groups and dead letters, whoever runs them, from brokers only."""

    LAG = _gauge(
        "group_lag_records",
        "records",
        ("group", "topic"),
        "Records from the committed offsets to the ends of the partitions, of all partitions together.",
    )
    LAG_SECONDS = _gauge(
        "group_lag_seconds",
        "seconds",
        ("group", "topic"),
        "Age of the oldest record at a committed offset; 0 when caught up, no sample while it is not known.",
    )
    STATE = _gauge(
        "consumer_lag_state",
        "1",
        ("group", "topic", "partition", "state"),
        "1 for the state that a partition is in: `ok`, `warn` (the lag does not shrink), `stall` (somebody has it, and"
        " commits nothing new), `stop` (nobody commits) or `rewind` (it went back). No sample for others, and none"
        " while too little was seen.",
    )
    UNOWNED = _gauge(
        "group_unowned_partitions",
        "partitions",
        ("group", "topic"),
        "Partitions that no member of the group has. No sample amid a rebalance, and for groups without membership.",
    )
    MEMBERS = _gauge("group_members", "members", ("group",), "Members of the group.")
    DATA_LOSS = _gauge(
        "group_data_loss_seconds",
        "seconds",
        ("group", "topic"),
        "Time until a record is deleted that the group has not handled; 0 if that has happened, no sample if it will"
        " not as far as is known.",
    )
    OBSERVED = _gauge(
        "lag_observed_timestamp_seconds", "seconds", (), "Unix time of the last look at the groups that succeeded."
    )
    DLQ_PENDING = _gauge("dlq_pending_records", "records", ("dlq_topic",), "Dead letters that nobody has settled.")
    DLQ_OLDEST = _gauge(
        "dlq_oldest_pending_age_seconds",
        "seconds",
        ("dlq_topic",),
        "Age of the oldest of them; no sample if there is none.",
    )
    DLQ_EXPIRING = _gauge(
        "dlq_expiring_records",
        "records",
        ("dlq_topic", "window"),
        "Those of them that the topic's retention deletes within `window`: `24h`.",
    )


def markdown(catalogue: Iterable[Metric | SupervisorMetric | ObserverMetric] = Metric) -> str:
    """The catalogue as a table in Markdown, in the order of its declaration."""
    lines = ["| Metric | Kind | Unit | Labels | Meaning |", "| --- | --- | --- | --- | --- |"]
    lines += [_row(metric.value) for metric in catalogue]
    return "\n".join(lines) + "\n"


def _row(declared: Declared) -> str:
    labels = ", ".join(f"`{label}`" for label in declared.labels)
    return f"| `{declared.full_name}` | {declared.kind.value} | {declared.unit} | {labels} | {declared.meaning} |"
