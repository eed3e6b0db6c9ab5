"""The boards: which panels, in which order. What a panel says of a metric is in the catalogue.

A limit is that of the alert about the same thing. Links lead to the console, to what a series is about.
"""

from __future__ import annotations

from dataclasses import replace

from boards.panels import (
    Board,
    Link,
    Panel,
    Query,
    Row,
    Shape,
    age,
    counts,
    declared,
    heat,
    in_group,
    level,
    levels,
    number,
    quantile,
    quantiles,
    rate,
    rates,
    series,
    share,
)

_GROUPS = Link("Its group in the console", "/groups")
_TOPICS = Link("Dead letters in the console", "/")
_LETTERS = Link("Its dead letters in the console", "/topics/{dlq_topic}", "state:pending")
_BY_REASON = Link("These dead letters in the console", "/topics/{dlq_topic}", 'state:pending reason:"{reason}"')
_OPERATIONS = Link("Replays in the console", "/operations")
_AUDIT = Link("What people did, in the console", "/audit")

_OF_TOPIC = ("namespace", "group", "topic")
_WORKERS_LAG = level("max", "consumer_lag_records", *_OF_TOPIC, "partition")
_WORKERS_LAG_S = level("max", "consumer_lag_seconds", *_OF_TOPIC)
# The observer knows of groups without workers, too; where there is none the workers are asked.
_LAG = f"{level('max', 'group_lag_records', *_OF_TOPIC)} or sum by ({', '.join(_OF_TOPIC)}) ({_WORKERS_LAG})"
_LAG_S = f"{level('max', 'group_lag_seconds', *_OF_TOPIC)} or {_WORKERS_LAG_S}"

_FAILED = "retried|deferred|dlq|error"


def _failed_share(*by: str) -> Panel:
    part = rate("records_processed_total", *by, outcome=_FAILED)
    whole = rate("records_processed_total", *by)
    panel = share("Failed calls", "records_processed_total", part, whole, *by)
    return replace(panel, hint="Shown is the share that failed: `retried`, `deferred`, `dlq` and `error`.", limit=0.05)


def _hit_share() -> Panel:
    part = rate("cache_requests_total", "cache", "level", result="hit|negative")
    whole = rate("cache_requests_total", "cache", "level")
    return share("Cache hits", "cache_requests_total", part, whole, "cache", "level")


def _not_closed(*by: str) -> str:
    return level("max", "breaker_state", *by, state="open|half_open")


_OPEN = level("max", "breaker_state", "group", "name", state="open")
_HALF_OPEN = level("max", "breaker_state", "group", "name", state="half_open")
_BREAKERS = Panel(
    declared("breaker_state"),
    (Query(f"clamp_max(2 * {_OPEN} + {_HALF_OPEN}, 2)", "{{group}} {{name}}"),),
    "none",
    "Breakers",
    "Shown is the worst of all workers.",
    Shape.STATES,
    words=((0, "closed", "green"), (1, "half open", "orange"), (2, "open", "red")),
)

_NEW_LETTERS = replace(
    rates("dlq_records_total", "dlq_topic", "reason"), title="Dead letters", stacked=True, links=(_BY_REASON, _LETTERS)
)

OVERVIEW = Board(
    "overview",
    "Streamworker: overview",
    "Whether records are handled, and how far the groups are behind.",
    (
        Row(
            "Now",
            (
                number("Lag", "group_lag_records", f"sum({_LAG})", limit=10_000, links=(_GROUPS,)),
                number("Oldest waiting record", "group_lag_seconds", f"max({_LAG_S})", limit=300, links=(_GROUPS,)),
                number(
                    "Partitions without an owner",
                    "group_unowned_partitions",
                    f"sum({level('max', 'group_unowned_partitions', *_OF_TOPIC)})",
                    limit=1,
                    links=(_GROUPS,),
                ),
                number(
                    "Stopped partitions",
                    "stopped_partitions",
                    f"sum({in_group('stopped_partitions', series('stopped_partitions'))}) or vector(0)",
                    limit=1,
                    links=(_GROUPS,),
                ),
                number("Breakers that are not closed", "breaker_state", f"sum({_not_closed('name')})", limit=1),
                number(
                    "Pending dead letters",
                    "dlq_pending_records",
                    f"sum({level('max', 'dlq_pending_records', 'dlq_topic')})",
                    links=(_TOPICS,),
                ),
            ),
        ),
        Row(
            "Records",
            (
                replace(rates("records_consumed_total", "group", "topic"), stacked=True),
                replace(rates("records_processed_total", "outcome"), stacked=True, title="Records by how they ended"),
                replace(_failed_share("group", "handler"), links=(_TOPICS,)),
                replace(
                    levels("group_lag_records", "group", "topic", how="max"),
                    title="Lag by topic",
                    queries=(Query(_LAG, "{{group}} {{topic}}"),),
                    limit=10_000,
                    links=(_GROUPS,),
                ),
                replace(
                    levels("group_lag_seconds", "group", "topic", how="max"),
                    title="Oldest waiting record by topic",
                    queries=(Query(_LAG_S, "{{group}} {{topic}}"),),
                    limit=300,
                    links=(_GROUPS,),
                ),
                replace(
                    levels("consumer_lag_state", "group", "topic", "state"),
                    title="Partitions by the state of their lag",
                    queries=(
                        Query(
                            "count by (group, topic, state) ("
                            f"{level('max', 'consumer_lag_state', *_OF_TOPIC, 'partition', 'state')})",
                            "{{group}} {{topic}} {{state}}",
                        ),
                    ),
                    stacked=True,
                    links=(_GROUPS,),
                ),
            ),
        ),
        Row(
            "Handling",
            (
                replace(
                    quantiles("process_duration_seconds", "group", "handler"),
                    title="Time in handlers, 99 of 100 calls",
                    queries=(
                        Query(quantile(0.99, "process_duration_seconds", "group", "handler"), "{{group}} {{handler}}"),
                    ),
                    limit=0.8,
                ),
                _NEW_LETTERS,
                _BREAKERS,
            ),
        ),
        Row(
            "Workers",
            (
                Panel(
                    declared("build_info"),
                    (Query(f"sum by (group, version, track, protocol) ({series('build_info')})", ""),),
                    "none",
                    "Worker processes by version",
                    "Shown is how many processes run it.",
                    Shape.TABLE,
                ),
                replace(
                    levels("assigned_partitions", "group", "instance", "worker"),
                    queries=(
                        Query(
                            level("sum", "assigned_partitions", "group", "instance", "worker"),
                            "{{group}} {{instance}} {{worker}}",
                        ),
                    ),
                    stacked=True,
                ),
                replace(levels("busy_ratio", "group", "handler", how="avg"), unit="percentunit"),
                replace(
                    levels("resident_memory_bytes", "group", "instance", "worker", how="max"), title="Resident memory"
                ),
                replace(rates("log_messages_total", "group", "level"), stacked=True),
                levels("degraded_parts", "group"),
                Panel(
                    declared("config_info"),
                    (Query(level("sum", "config_info", "group", "hash"), ""),),
                    "none",
                    "Worker processes by configuration",
                    "Shown is how many processes have it.",
                    Shape.TABLE,
                ),
                replace(levels("worker_processes", "instance", "state"), stacked=True),
                counts("worker_restarts_total", "instance", "worker"),
            ),
        ),
    ),
)

PIPELINE = Board(
    "pipeline",
    "Streamworker: pipeline and latency",
    "Where the time of a record goes, from its fetch to its end, and what records wait for.",
    (
        Row(
            "Time",
            (
                quantiles("end_to_end_latency_seconds", "topic"),
                quantiles("process_duration_seconds", "group", "handler"),
                replace(heat("process_duration_seconds"), title="Process duration, all calls"),
                levels("oldest_call_seconds", "group", "handler", how="max"),
                levels("oldest_head_seconds", "group", "topic", how="max"),
                levels("event_loop_lag_seconds", "group", "handler", how="max"),
            ),
        ),
        Row(
            "What comes in, and what is in hand",
            (
                rates("records_consumed_total", "group", "topic"),
                rates("bytes_consumed_total", "group", "topic"),
                levels("inflight_records", "group"),
                levels("inflight_bytes", "group"),
                levels("running_calls", "group", "handler"),
                levels("calls_limit", "group", "handler"),
                replace(levels("busy_ratio", "group", "handler", how="avg"), unit="percentunit"),
                quantiles("batch_size_records", "group", "handler"),
                levels("records_behind_heads", "group", "topic"),
            ),
        ),
        Row(
            "What goes wrong",
            (
                replace(_failed_share("group", "handler"), links=(_TOPICS,)),
                replace(rates("errors_total", "group", "handler", "error_type", "category"), links=(_TOPICS,)),
                rates("retries_total", "group", "handler", "attempt_bucket"),
                levels("held_records", "group"),
                counts("retries_postponed_total", "group", "handler"),
                counts("calls_written_off_total", "group", "handler"),
            ),
        ),
        Row(
            "What records wait for",
            (
                levels("paused_partitions", "group", "reason"),
                replace(levels("stopped_partitions", "group", "reason", "mends_itself"), links=(_GROUPS,)),
                rates("backpressure_seconds_total", "group", "reason"),
                _BREAKERS,
                counts("breaker_transitions_total", "group", "name", "to"),
                counts("bulkhead_full_total", "group", "name"),
                rates("throttled_seconds_total", "group", "handler"),
                rates("degraded_total", "group", "operation", "mode"),
                rates("claims_total", "group", "handler", "result"),
            ),
        ),
        Row(
            "Caches",
            (
                _hit_share(),
                quantiles("cache_load_seconds", "group", "cache"),
                levels("cache_entries", "group", "cache"),
                levels("cache_dirty_keys", "group", "cache"),
                counts("cache_redis_failures_total", "group", "cache", "operation"),
                rates("cache_removals_total", "group", "cache", "cause"),
            ),
        ),
    ),
)

DEAD_LETTERS = Board(
    "dead-letters",
    "Streamworker: dead letters and interventions",
    "What was given up, what waits for somebody, and what people and other processes changed.",
    (
        Row(
            "What waits for somebody",
            (
                replace(
                    levels("dlq_pending_records", "dlq_topic", how="max"),
                    title="Pending dead letters",
                    links=(_LETTERS,),
                ),
                replace(
                    levels("dlq_oldest_pending_age_seconds", "dlq_topic", how="max"),
                    title="The oldest of them",
                    limit=86_400,
                    links=(_LETTERS,),
                ),
                replace(
                    levels("dlq_expiring_records", "dlq_topic", "window", how="max"),
                    title="Those that are soon deleted",
                    limit=1,
                    links=(_LETTERS,),
                ),
            ),
        ),
        Row(
            "What is given up",
            (
                _NEW_LETTERS,
                replace(
                    rates("dlq_records_total", "dlq_topic", "reason"),
                    title="Dead letters in the time shown",
                    queries=(
                        Query(
                            "sum by (dlq_topic, reason) ("
                            + in_group("dlq_records_total", f"increase({series('dlq_records_total')}[$__range])")
                            + ")",
                            "",
                        ),
                    ),
                    unit="count:records",
                    shape=Shape.TABLE,
                    links=(_BY_REASON, _LETTERS),
                ),
                replace(
                    counts("dlq_produce_failures_total", "dlq_topic"),
                    title="Dead letters that were refused",
                    links=(_LETTERS,),
                ),
                replace(
                    rates("records_processed_total", "group", "handler", outcome="dlq|skipped|expired|error"),
                    title="Records that were not handled",
                    links=(_TOPICS,),
                ),
                counts("deferred_records_total", "retry_topic", "reason"),
                levels("parked_keys", "group", "topic"),
            ),
        ),
        Row(
            "Interventions",
            (
                replace(
                    rates("records_consumed_total", "group", "topic", topic=".+[.]replay([.].+)?"),
                    title="Replayed records that come back",
                    hint="Shown are those of topics for replays.",
                    links=(_OPERATIONS, _AUDIT),
                ),
                replace(
                    rates("records_processed_total", "group", "handler", outcome="not_addressed"),
                    title="Replays for other groups",
                    links=(_OPERATIONS,),
                ),
                counts("offsets_foreign_total", "group", "topic"),
                counts("records_remembered_total", "group", "topic"),
                counts("quarantines_total", "group", "topic"),
                counts("old_heads_total", "group", "topic"),
            ),
        ),
    ),
)

_JOINED = "min by (group) (" + series("group_joined") + ")"

KAFKA = Board(
    "kafka-client",
    "Streamworker: Kafka client and rebalances",
    "The group as its members see it, commits, and the client's own measurements.",
    (
        Row(
            "Group",
            (
                replace(
                    levels("group_joined", "group"),
                    queries=(Query(_JOINED, "{{group}}"),),
                    hint="Shown is 0 while any worker is not.",
                    shape=Shape.STATES,
                    words=((0, "not joined", "orange"), (1, "joined", "green")),
                ),
                levels("kafka_group_join_state", "group", "state"),
                counts("rebalances_total", "group", "kind"),
                quantiles("rebalance_duration_seconds", "protocol"),
                counts("kafka_group_rebalances_total", "group"),
                counts("late_outcomes_total", "group", "handler"),
                levels("group_members", "group", how="max"),
                replace(levels("group_unowned_partitions", "group", "topic", how="max"), limit=1, links=(_GROUPS,)),
                replace(levels("group_data_loss_seconds", "group", "topic", how="min"), links=(_GROUPS,)),
                replace(
                    age("lag_observed_timestamp_seconds", "namespace", "instance"),
                    title="Since the last look at the groups",
                    limit=300,
                ),
            ),
        ),
        Row(
            "Polls and commits",
            (
                replace(
                    age("last_poll_timestamp_seconds", "group", "instance", "worker"),
                    title="Since the last poll",
                    limit=60,
                ),
                replace(
                    age("last_commit_timestamp_seconds", "group", "instance", "worker"), title="Since the last commit"
                ),
                rates("commits_total", "group", "outcome"),
                quantiles("commit_duration_seconds", "group"),
                counts("stalls_total", "group", "what"),
                counts("stops_total", "group", "reason"),
            ),
        ),
        Row(
            "Brokers",
            (
                levels("kafka_broker_rtt_seconds", "broker", "quantile", how="max"),
                replace(levels("kafka_broker_throttle_seconds", "group", "broker", how="max"), limit=0.1),
                counts("kafka_broker_disconnects_total", "broker"),
                counts("kafka_broker_request_timeouts_total", "broker"),
                counts("kafka_broker_tx_errors_total", "broker"),
                counts("kafka_broker_rx_errors_total", "broker"),
                counts("client_faults_total", "group", "kind"),
            ),
        ),
        Row(
            "Queues of the client",
            (
                levels("kafka_fetch_queue_records", "group"),
                levels("kafka_fetch_queue_bytes", "group"),
                levels("kafka_reply_queue_ops", "group", how="max"),
                levels("kafka_producer_queue_records", "group"),
                levels("kafka_producer_queue_bytes", "group"),
            ),
        ),
    ),
)

BOARDS = (OVERVIEW, PIPELINE, DEAD_LETTERS, KAFKA)
