"""One measurement, in a process of its own: `python -m benchmarks.scale.loop TABLE SIZE`; prints one line of JSON.

A whole worker in one thread, in memory: a source that makes records and an executor whose slices are done at once.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, ClassVar

from benchmarks.scale.loads import TABLES
from streamworker import Handler, Ordering
from streamworker.clock import SystemClock
from streamworker.config import Config, FlowConfig, KafkaConfig
from streamworker.declaration import declarations
from streamworker.events import Listener, Listeners
from streamworker.interfaces import CommitAnswer, Fetched, Membership, OffsetMark
from streamworker.observability.lag import LagWatch
from streamworker.observability.memory import resident_bytes
from streamworker.observability.metrics import Metrics
from streamworker.observability.status import Board
from streamworker.observability.watchdog import Watchdog
from streamworker.observer import Observer, first_status
from streamworker.record import TopicPartition
from streamworker.resilience.provision import Provision
from streamworker.testing.memory_broker import MemoryBroker, MemoryMessage
from streamworker.testing.memory_clients import MemoryLog, MemoryOutbox
from streamworker.testing.virtual_time import VirtualTime
from streamworker.work import SliceOutcome
from streamworker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.scale.loads import Load
    from streamworker import Ending, Record
    from streamworker.interfaces import Rebalance
    from streamworker.record import Message
    from streamworker.scheduling.lane import LaneSlice

_RUN = 500  # records of one partition in a row, as a client hands out what one answer of a broker brought
_VALUE = b"x" * 200
_SECONDS_A_RECORD = 1e-6  # what the handler is said to take
_BACK_AT_ONCE = 1000  # records that come back from the handler in one step
_COLLECT_AFTER = 50_000  # as a worker's process has it


class Nothing(Handler[bytes]):
    """Is never called."""

    topics: ClassVar[Sequence[str]] = ()
    concurrency = 16

    def handle(self, record: Record[bytes]) -> None: ...


class Prepared:
    """A `Source` that is given all partitions at once and makes as many records as it is asked for.

    `own_s` is what the making took, `rebalance_s` what the worker took to have partitions come and go.
    """

    def __init__(self, load: Load, partitions: Sequence[TopicPartition]) -> None:
        self._load = load
        self._partitions = partitions
        self._next = dict.fromkeys(partitions, 0)
        self._turns = deque(partitions)
        self._made = 0
        self._answers: list[CommitAnswer] = []
        self._joins: Rebalance | None = None
        self.own_s = self.rebalance_s = 0.0

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        self._joins = rebalance

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        began_s = time.thread_time()
        if self._joins is not None:
            joins, self._joins = self._joins, None
            joins.assigned(self._partitions)
            self.rebalance_s += time.thread_time() - began_s
            return Fetched([], [], [])
        runs = []
        left = min(max_records, self._load.records - self._made)
        while left > 0:
            runs.append(self._run(min(_RUN, left)))
            left -= _RUN
        answers, self._answers = self._answers, []
        self.own_s += time.thread_time() - began_s
        return Fetched(runs, [], answers)

    def _run(self, records: int) -> tuple[TopicPartition, Sequence[Message]]:
        at = self._turns[0]
        self._turns.rotate(-1)
        first = self._next[at]
        self._next[at] = first + records
        keys = [number % self._load.keys for number in range(self._made, self._made + records)]
        self._made += records
        return at, [
            MemoryMessage(at, offset, key=b"%d" % key, value=_VALUE) for offset, key in enumerate(keys, start=first)
        ]

    def committed(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        return dict.fromkeys(partitions, OffsetMark(0, ""))

    def commit(self, marks: Mapping[TopicPartition, OffsetMark]) -> None:
        self._answers += self.commit_now(marks)

    def commit_now(self, marks: Mapping[TopicPartition, OffsetMark]) -> Sequence[CommitAnswer]:
        return [CommitAnswer(key, mark, None) for key, mark in marks.items()]

    def pause(self, partitions: Sequence[TopicPartition]) -> None: ...

    def resume(self, partitions: Sequence[TopicPartition]) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._next[partition] = offset

    def membership(self) -> Membership | None:
        now_s = time.monotonic()
        return Membership(joined=True, state="up/steady", coordinator_idle_s=0.0, heard_s=now_s, proven_s=now_s)

    def statistics(self) -> None: ...

    def positions(self) -> Mapping[TopicPartition, int]:
        return {}

    def close(self) -> None: ...


class Instant:
    """An `Executor` whose slices are done when they are asked for."""

    def __init__(self) -> None:
        self._out: deque[LaneSlice] = deque()

    def start(self) -> None: ...

    def submit(self, slice_: LaneSlice) -> None:
        self._out.append(slice_)

    def replace(self, slice_: LaneSlice) -> None: ...

    def collect(self, timeout_s: float) -> Sequence[SliceOutcome[LaneSlice]]:
        back: list[SliceOutcome[LaneSlice]] = []
        left = _BACK_AT_ONCE
        while self._out and left > 0:
            slice_ = self._out.popleft()
            slice_.done = len(slice_.messages)
            left -= slice_.done
            back.append(SliceOutcome(slice_, _SECONDS_A_RECORD * slice_.done))
        return back

    def blocked(self) -> Mapping[str, float]:
        return {}

    def stop(self, timeout_s: float) -> bool:
        return True


class _Ended(Listener):
    """Counts what ended."""

    records = 0

    def ended(self, handler: str, partition: TopicPartition, ending: Ending, records: int, seconds: float) -> None:
        self.records += records


def measure(load: Load) -> Mapping[str, float]:
    """Run `load.records` through a worker.

    `ns` of the loop thread's CPU time per record, `mib` by which the process grew, and `rebalance_s` for the loop to
    have all partitions assigned and revoked.
    """
    names = [f"topic-{number}" for number in range(load.topics)]
    partitions = [TopicPartition(name, number) for name in names for number in range(load.partitions)]
    Nothing.topics = names
    if load.lanes > 1:
        Nothing.ordering, Nothing.lanes = Ordering.KEY, load.lanes
    source, ended = Prepared(load, partitions), _Ended()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    before_bytes = resident_bytes() or 0
    worker = _worker(load, names, source, ended)
    worker.begin()
    began_s = time.thread_time()
    while ended.records < load.records:
        worker.step()
    loop_s = time.thread_time() - began_s - source.own_s - source.rebalance_s
    grown_bytes = (resident_bytes() or 0) - before_bytes
    began_s = time.thread_time()
    worker.stop("measured")
    worker.drain()
    return {
        "ns": 1e9 * loop_s / load.records,
        "mib": grown_bytes / 2**20,
        "rebalance_s": source.rebalance_s + time.thread_time() - began_s,
    }


def _worker(load: Load, names: Sequence[str], source: Prepared, ended: Listener) -> Worker:
    """One with the metrics and the status that every worker has."""
    declared = declarations([Nothing])
    config = Config(kafka=KafkaConfig(group="scale"), flow=FlowConfig(max_inflight=load.inflight))
    clock, broker = SystemClock(), MemoryBroker(VirtualTime(), dict.fromkeys(names, load.partitions))
    board = Board(first_status(declared, config, clock))
    listener = Listeners([Metrics(board, clock, declared, version="0"), ended])
    watchdog = Watchdog(clock=clock, stall_timeout_s=config.lifecycle.stall_timeout_s, die=sys.exit)
    lag = LagWatch(MemoryLog(broker), clock)
    provision = Provision(declared, config=config, clock=clock)
    return Worker(
        declarations=declared,
        config=config,
        source=lambda: source,
        executor=Instant(),
        outbox=MemoryOutbox(broker),
        log=MemoryLog(broker),
        key_log=None,
        clock=clock,
        listener=listener,
        breakers=provision.breakers,
        degradation=provision.degradation,
        observe=Observer(board=board, lag=lag, watchdog=watchdog, clock=clock, listener=listener),
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(TABLES[sys.argv[1]].sizes[int(sys.argv[2])])) + "\n")
