"""How old the lowest record that is not done is said to be, and when nothing is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scenarios.worlds import IN, Obedient, make_world

from streamworker import Retry, RetryTopic
from streamworker.config import Config, FlowConfig, KafkaConfig, LifecycleConfig
from streamworker.declaration import declaration
from streamworker.events import Listener
from streamworker.observability.lag import LagWatch
from streamworker.observability.status import Board
from streamworker.observability.watchdog import Watchdog
from streamworker.observer import Observer, first_status
from streamworker.source.flow import PauseReason
from streamworker.testing.memory_clients import MemoryLog
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.record import TopicPartition
    from streamworker.testing.virtual_world import Member
    from streamworker.work import Slice
    from streamworker.worker import Worker

HOUR_MS = 3_600_000
CALM = LifecycleConfig(stall_timeout_s=10_000)


class Marked(MemoryLog):
    """A log that ends with so many markers of transactions."""

    markers = 0

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        return {key: end + self.markers for key, end in super().end_offsets(partitions, timeout_s).items()}


@dataclass
class Looked:
    """A worker under the eyes of a real observer; ends of logs are asked for each `ends_each_s`."""

    world: VirtualWorld
    ends_each_s: float = 10.0

    def __post_init__(self) -> None:
        world = self.world
        self.board = Board(first_status([declaration(Obedient)], world.config, world.time))
        self.log = Marked(world.broker)
        self._lag = LagWatch(self.log, world.time)
        self._ask_at_s = 0.0
        self._observer = Observer(
            board=self.board,
            lag=self._lag,
            watchdog=Watchdog(clock=world.time, stall_timeout_s=10_000, die=lambda _code: None),
            clock=world.time,
            listener=Listener(),
        )

    def observe(self, worker: Worker) -> None:
        now_s = self.world.time.monotonic_s()
        if now_s >= self._ask_at_s and len(worker.partitions):
            self._ask_at_s = now_s + self.ends_each_s
            self._lag.refresh()
        self._observer(worker)

    def start(self, handler: type[Obedient] = Obedient, *, slow_s: float = 100.0) -> Member:
        def duration_s(slice_: Slice) -> float:
            return slow_s if slice_.messages[0].value() == b"slow" else 0.001

        member = self.world.start(handler, observe=self.observe, duration_s=duration_s)
        self.world.run_for(1)
        return member

    def produce(self, *values: bytes, ago_ms: int = 0) -> None:
        for value in values:
            at_ms = self.world.time.wall_ms() - ago_ms
            self.world.broker.produce("in", 0, value, timestamp_ms=at_ms)

    @property
    def lag_s(self) -> float | None:
        (partition,) = self.board.latest().partitions
        return None if partition.lag_s is None else round(partition.lag_s)


def pause(member: Member) -> None:
    member.worker.partitions.hold(member.worker.partitions[IN], PauseReason.MEMORY)


def go_on(member: Member) -> None:
    member.worker.partitions.release(member.worker.partitions[IN], PauseReason.MEMORY)


def test_nothing_to_do_is_no_lag() -> None:
    looked = Looked(make_world(lifecycle=CALM))
    looked.start()

    looked.produce(b"fine")
    looked.world.run_for(30)

    assert looked.lag_s == 0


def test_a_record_that_is_worked_on_is_as_old_as_its_timestamp_says() -> None:
    looked = Looked(make_world(lifecycle=CALM))
    looked.start()

    looked.produce(b"slow", ago_ms=HOUR_MS)
    looked.world.run_for(20)
    worked_on = looked.lag_s
    looked.world.run_for(120)

    assert worked_on == 3_620
    assert looked.lag_s == 0


def test_a_record_that_waits_for_its_retry_counts_and_what_is_done_beyond_it_does_not() -> None:
    class Patient(Obedient):
        retry = Retry(attempts=99, base_s=60, cap_s=60)

    looked = Looked(make_world(lifecycle=CALM))
    looked.start(Patient)

    looked.produce(b"broken", ago_ms=5_000)
    looked.world.run_for(10)
    looked.produce(b"fine")
    looked.world.run_for(20)

    assert looked.lag_s == 35


def test_what_came_while_a_partition_is_paused_is_not_younger_than_said() -> None:
    """Nobody has seen it; it came after the last moment at which there was nothing."""
    looked = Looked(make_world(lifecycle=CALM))
    member = looked.start()
    looked.produce(b"fine")
    looked.world.run_for(60)

    pause(member)
    looked.world.run_for(5)
    looked.produce(b"fine")
    looked.world.run_for(300)
    paused = looked.lag_s
    go_on(member)
    looked.world.run_for(20)

    assert paused is not None
    assert 300 <= paused <= 300 + 2 * looked.ends_each_s
    assert looked.lag_s == 0


def test_what_was_there_before_anything_was_delivered_has_no_known_age() -> None:
    looked = Looked(make_world(lifecycle=CALM))
    looked.produce(b"fine", ago_ms=HOUR_MS)
    looked.world.broker.leaderless.add(IN)
    looked.start()

    looked.world.run_for(30)

    assert looked.board.latest().partitions[0].lag_records == 1
    assert looked.lag_s is None


def test_markers_of_transactions_at_the_end_of_the_log_are_no_records() -> None:
    looked = Looked(make_world(lifecycle=CALM))
    looked.log.markers = 1
    member = looked.start()
    looked.produce(b"fine")
    looked.world.run_for(20)
    unsure = looked.lag_s

    member.source.positions = lambda: {IN: 2}  # type: ignore[method-assign]  # as a client that has read the marker
    looked.world.run_for(30)

    assert unsure == 20
    assert looked.lag_s == 0


def test_a_retry_topics_records_are_not_late_before_they_are_due() -> None:
    class Delayed(Obedient):
        retry = Retry(attempts=1, topics=(RetryTopic(delay_s=600),))

    config = Config(kafka=KafkaConfig(group="test"), lifecycle=CALM)
    looked = Looked(VirtualWorld({"in": 1, "dlq": 1, "in.retry.test.1": 1}, config=config))
    looked.start(Delayed)
    looked.produce(b"flaky:1", ago_ms=HOUR_MS)
    looked.world.run_for(300)

    lags = {one.topic: one.lag_s for one in looked.board.latest().partitions}
    assert lags == {"in": 0, "in.retry.test.1": 0}


def test_a_full_worker_does_not_make_a_partition_look_younger() -> None:
    looked = Looked(make_world(lifecycle=CALM, flow=FlowConfig(max_inflight=2, max_slice=1)))
    looked.start(slow_s=400)
    looked.produce(*[b"slow"] * 8, ago_ms=10_000)

    looked.world.run_for(300)

    assert looked.lag_s == 310
