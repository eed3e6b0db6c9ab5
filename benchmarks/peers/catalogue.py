"""Who is measured, in which rows, how each is set, and what it cannot do, as its source says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING, WAITS = "nothing", "waits"  # what rows begin with: the work


@dataclass(frozen=True, slots=True)
class Row:
    """One way of a peer to do one work. `order` is what it keeps of the log: partition, key or none."""

    name: str
    order: str
    how: str

    @property
    def work(self) -> str:
        return self.name.partition(",")[0]


@dataclass(frozen=True, slots=True)
class Peer:
    """`module` is its script here and its requirements; `packages` are those whose versions are told."""

    name: str
    module: str
    packages: Sequence[str]
    rows: Sequence[Row]
    cannot: str


PEERS = (
    Peer(
        "confluent-kafka",
        "confluent",
        ("confluent-kafka",),
        (
            Row(NOTHING, "partition", "`consume(500)`, a commit once a second"),
            Row(WAITS, "key", "by hand: 64 threads, each with a queue; what is done below is committed once a second"),
        ),
        "Nothing is built in: no retry, no dead letters; order and concurrency are what one writes oneself.",
    ),
    Peer(
        "aiokafka",
        "aiokafka",
        ("aiokafka",),
        (
            Row(NOTHING, "partition", "`getmany` of 500, a commit once a second"),
            Row(WAITS, "key", "by hand: 64 tasks, each with a queue; what is done below is committed once a second"),
        ),
        "As confluent-kafka.",
    ),
    Peer(
        "FastStream, confluent",
        "faststream_confluent",
        ("faststream", "confluent-kafka"),
        (
            Row(NOTHING, "partition", "`MANUAL`, `ack` once a second, no injection, no decoding"),
            Row(f"{NOTHING}, batch", "partition", "the same with `batch=True`, 500 records"),
            Row(WAITS, "partition", "one record at a time"),
            Row(
                f"{WAITS}, batch",
                "key",
                "by hand: the keys of a batch of 10,000 at once, 64 calls; then the next batch",
            ),
        ),
        "`max_workers` with a commit after handling is refused, so one call at a time, or a batch that one spreads "
        "oneself. Retry is a seek back, at once and without end. No dead letters.",
    ),
    Peer(
        "FastStream, aiokafka",
        "faststream_aiokafka",
        ("faststream", "aiokafka"),
        (
            Row(NOTHING, "partition", "`MANUAL`, `ack` once a second, no injection, no decoding"),
            Row(f"{NOTHING}, batch", "partition", "the same with `batch=True`, 500 records"),
            Row(WAITS, "partition", "`max_workers=4`"),
            Row(
                f"{WAITS}, batch",
                "key",
                "by hand: the keys of a batch of 10,000 at once, 64 calls; then the next batch",
            ),
        ),
        "`max_workers` with a commit after handling is a consumer each, so at most as many calls as partitions. "
        "Retry is a seek back, at once and without end. No dead letters.",
    ),
    Peer(
        "Quix Streams",
        "quix",
        ("quixstreams", "confluent-kafka"),
        (
            Row(NOTHING, "partition", "`commit_interval=1`, no decoding"),
            Row(WAITS, "partition", "one record at a time"),
        ),
        "One record at a time in a process. No retry: a record that fails is skipped or ends the application. "
        "No dead letters.",
    ),
    Peer(
        "Arroyo",
        "arroyo",
        ("sentry-arroyo", "confluent-kafka"),
        (
            Row(NOTHING, "partition", "`RunTask`, `CommitOffsets` once a second"),
            Row(WAITS, "none", "`RunTaskInThreads`, 64 threads, 10,000 pending"),
        ),
        "Concurrency gives order up: any thread takes the next record. No retry. There are dead letters, but a "
        "record whose dead letter cannot be written may be dropped.",
    ),
    Peer(
        "Faust",
        "faust",
        ("faust-streaming", "aiokafka"),
        (
            Row(NOTHING, "partition", "one actor, a commit once a second"),
            Row(WAITS, "none", "`concurrency=64`"),
            Row(f"{WAITS}, isolated", "partition", "`isolated_partitions=True`"),
        ),
        "Concurrency gives order up: the actors share one queue. In order there is one call for each partition. "
        "A record whose handler raises counts as done: no retry, no dead letters.",
    ),
    Peer(
        "Bytewax",
        "bytewax",
        ("bytewax", "confluent-kafka"),
        (
            Row(NOTHING, "partition", "one worker, `map`, recovery with a snapshot once a second"),
            Row(WAITS, "key", "64 workers in one process, `key_on` and `stateful_map`, the same recovery"),
        ),
        "No consumer group and no commits: partitions are fixed at start, and at least once is by snapshots on disk. "
        "An error ends the dataflow: no retry, no dead letters.",
    ),
    Peer(
        "streamworker",
        "streamworker",
        ("streamworker", "confluent-kafka"),
        (
            Row(NOTHING, "partition", "default settings"),
            Row(WAITS, "key", "`KEY`, `concurrency=64`"),
            Row(f"{WAITS}, async", "key", "the same as `async def`"),
        ),
        "No state, windows or joins, and one core for Python code in a process.",
    ),
)
