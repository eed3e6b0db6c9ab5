"""A drain ends in time, whatever happened before it and whatever happens meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import SOAK

from streamworker import (
    Batch,
    BatchHandler,
    DeadLetter,
    Handler,
    Ordering,
    PoisonError,
    Record,
    Records,
    TopicPartition,
)
from streamworker.config import CommitConfig, Config, DeadLetterConfig, FlowConfig, KafkaConfig, LifecycleConfig
from streamworker.exit_code import ExitCode
from streamworker.observability.status import LifeState
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.testing.virtual_world import Member
    from streamworker.work import Slice

PARTITIONS = 3
CONFIG = Config(
    kafka=KafkaConfig(group="g"),
    commit=CommitConfig(interval_s=0.3, timeout_s=2.0, max_uncommitted=50),
    flow=FlowConfig(max_inflight=60, pause_after_s=0.1),
    lifecycle=LifecycleConfig(drain_timeout_s=10.0, revoke_timeout_s=3.0),
    dead_letters=DeadLetterConfig(delivery_timeout_s=5.0, budget=5),
)
# The last commit is tried for its timeout, handlers may take a second to close, and a rebalance that begins
# as the time runs out may still take its own.
LONGEST_S = 10.0 + 2.0 + 1.0 + 3.0
FOREVER_S = 1e6
EVENTS = (
    "produce", "wait a moment", "wait long", "another joins", "another leaves", "expelled", "coordinator away",
    "commits refused", "commits late", "letters refused", "offsets unknown", "calls hang", "calls fail", "heal",
)  # fmt: skip


@dataclass(slots=True)
class Weather:
    """What the handlers do now."""

    fails: bool = False
    hangs: bool = False

    def duration_s(self, slice_: Slice) -> float:
        return FOREVER_S if self.hangs else 0.01 * len(slice_.messages)


class Drained:
    """A worker that goes through events and is told to stop."""

    def __init__(self, *, ordering: Ordering, batches: bool, eager: bool = False) -> None:
        self.eager = eager  # whether a call has its effect as it begins
        self.world = VirtualWorld({"in": PARTITIONS, "dlq": 1}, config=CONFIG)
        self.weather = Weather()
        self.handler = self._handler(ordering, batches=batches)
        self.member = self._start()
        self.others: list[Member] = []
        self.number = 0

    def _handler(self, ordering: Ordering, *, batches: bool) -> type[Handler[bytes]] | type[BatchHandler[bytes]]:
        weather = self.weather

        class One(Handler[bytes]):
            topics = ("in",)
            dead_letter = DeadLetter("dlq")

            def handle(self, record: Record[bytes]) -> None:
                if weather.fails:
                    raise PoisonError if record.offset % 2 else ConnectionError

        class Many(BatchHandler[bytes]):
            topics = ("in",)
            dead_letter = DeadLetter("dlq")
            batch = Batch(max_records=7, max_wait_s=0.5)

            def handle(self, records: Records[bytes]) -> None:
                if weather.fails:
                    raise ConnectionError

        chosen: type[Handler[bytes]] | type[BatchHandler[bytes]] = Many if batches else One
        chosen.ordering = ordering
        return chosen

    def _start(self) -> Member:
        return self.world.start(self.handler, duration_s=self.weather.duration_s, eager=lambda: self.eager)

    def happen(self, event: str) -> None:
        broker = self.world.broker
        {
            "produce": self._produce,
            "wait a moment": lambda: self.world.run_for(0.02),
            "wait long": lambda: self.world.run_for(3.0),
            "another joins": lambda: self.others.append(self._start()),
            "another leaves": lambda: self.world.kill(self.others.pop()) if self.others else None,
            "expelled": lambda: broker.expel(self.member.source),
            "coordinator away": lambda: setattr(broker, "coordinator_up", False),
            "commits refused": lambda: setattr(broker, "commit_error", lambda _key: "REBALANCE_IN_PROGRESS"),
            "commits late": lambda: setattr(broker, "commit_latency_s", 60.0),
            "letters refused": lambda: setattr(broker, "produce_error", lambda _topic: "_MSG_TIMED_OUT"),
            "offsets unknown": lambda: setattr(broker, "offsets_error", lambda: "STALE_MEMBER_EPOCH"),
            "calls hang": lambda: setattr(self.weather, "hangs", True),
            "calls fail": lambda: setattr(self.weather, "fails", True),
            "heal": self._heal,
        }[event]()

    def _produce(self) -> None:
        for _ in range(20):
            self.number += 1
            key = b"k%d" % (self.number % 5)
            self.world.broker.produce("in", self.number % PARTITIONS, b"x", key=key)

    def _heal(self) -> None:
        broker = self.world.broker
        broker.coordinator_up, broker.commit_latency_s = True, 0.002
        broker.commit_error, broker.produce_error = (lambda _key: None), (lambda _topic: None)
        broker.offsets_error = lambda: None
        self.weather.fails = self.weather.hangs = False

    def drain(self) -> tuple[int, float]:
        """Exit code and seconds."""
        time = self.world.time
        began_s = time.monotonic_s()
        return self.world.stop(self.member), time.monotonic_s() - began_s


@settings(max_examples=150 * SOAK)
@given(
    ordering=st.sampled_from(Ordering),
    batches=st.booleans(),
    before=st.lists(st.sampled_from(EVENTS), max_size=14),
    meanwhile=st.lists(st.tuples(st.floats(0.0, 12.0), st.sampled_from(EVENTS)), max_size=4),
)
def test_a_worker_that_is_told_to_stop_is_closed_in_time(
    ordering: Ordering, *, batches: bool, before: list[str], meanwhile: list[tuple[float, str]]
) -> None:
    drained = Drained(ordering=ordering, batches=batches)
    for event in before:
        drained.happen(event)
    for after_s, event in meanwhile:
        if not event.startswith(("wait", "another")):  # these would have the workers take turns inside the drain
            drained.world.time.call_in(after_s, lambda event=event: drained.happen(event))  # type: ignore[misc]

    exit_code, seconds = drained.drain()

    worker = drained.member.worker
    assert worker.state is LifeState.CLOSED
    assert seconds <= LONGEST_S
    assert exit_code in (ExitCode.OK, ExitCode.PARTIAL)
    assert drained.member.story.exit is not None
    assert (exit_code == ExitCode.PARTIAL) == bool(drained.member.story.exit[1])
    assert len(worker.partitions) == len(worker.assignment) == 0


@pytest.mark.parametrize("ordering", Ordering)
def test_what_runs_is_finished_and_committed_and_what_waits_is_left(ordering: Ordering) -> None:
    drained = Drained(ordering=ordering, batches=False, eager=True)
    drained.happen("produce")
    drained.world.run(lambda: bool(drained.member.worker.running))

    exit_code, seconds = drained.drain()

    broker = drained.world.broker
    handled = {(effect.partition, effect.offset) for effect in drained.world.effects}
    committed = {(key, offset) for key in broker.partitions("in") for offset in range(broker.committed(key) or 0)}
    assert exit_code == ExitCode.OK
    assert seconds < 1.0
    assert committed
    assert committed <= handled
    assert len(handled) < drained.number
    assert committed == handled or ordering is Ordering.KEY


def test_a_call_that_does_not_end_is_named_and_its_record_is_not_committed() -> None:
    drained = Drained(ordering=Ordering.PARTITION, batches=False)
    drained.happen("calls hang")
    drained.world.broker.produce("in", 0, b"x")
    drained.world.run(lambda: bool(drained.member.worker.running))

    exit_code, seconds = drained.drain()

    assert exit_code == ExitCode.PARTIAL
    assert drained.member.story.exit == (ExitCode.PARTIAL, ("One in[0]@0",))
    assert 10.0 <= seconds <= LONGEST_S
    assert drained.world.broker.committed(TopicPartition("in", 0)) == 0


def test_a_draining_worker_gives_away_what_has_nothing_in_hand() -> None:
    drained = Drained(ordering=Ordering.PARTITION, batches=False)
    drained.happen("calls hang")
    drained.world.broker.produce("in", 0, b"x")
    drained.world.run(lambda: bool(drained.member.worker.running))
    drained.happen("another joins")
    held: set[TopicPartition] = set()
    source = drained.others[0].source
    drained.world.time.call_in(5.0, lambda: held.update(drained.world.broker.held_by_others(source)))

    drained.drain()

    assert held == {TopicPartition("in", 0), TopicPartition("in", 2)}


def test_a_retry_that_waits_is_not_waited_for() -> None:
    drained = Drained(ordering=Ordering.PARTITION, batches=False)
    drained.happen("calls fail")
    drained.world.broker.produce("in", 0, b"x")
    drained.world.run(lambda: bool(drained.member.story.failures))

    exit_code, seconds = drained.drain()

    assert (exit_code, seconds < 0.1) == (ExitCode.OK, True)


def test_a_worker_that_is_stopped_before_its_first_step_closes() -> None:
    drained = Drained(ordering=Ordering.KEY, batches=True)
    stop: Callable[[str], None] = drained.member.worker.stop
    stop("twice")

    exit_code, seconds = drained.drain()

    assert (exit_code, seconds < 2.0) == (ExitCode.OK, True)
    assert drained.member.worker.stopping == "twice"
