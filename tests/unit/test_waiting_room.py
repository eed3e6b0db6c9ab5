"""Who of those that wait for a dependency goes next."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from streamworker import Breaker, Ordering, TopicPartition
from streamworker.config import FlowConfig
from streamworker.resilience.breaker import CircuitBreaker
from streamworker.scheduling.scheduler import Scheduler
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.testing.virtual_time import VirtualTime
from streamworker.waiting import WaitingRoom
from streamworker.work import Ownership

if TYPE_CHECKING:
    from streamworker.scheduling.lane import Held, LaneSlice

ONE, TWO = TopicPartition("in", 0), TopicPartition("in", 1)


@dataclass
class Bench:
    """A room, and a scheduler of unordered records that go there."""

    time: VirtualTime = field(default_factory=VirtualTime)

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(Breaker("geo", jitter=0.0, successes=1), clock=self.time)
        self.room = WaitingRoom(self.breaker, self.time)
        self.scheduler = Scheduler(
            handler_number=0,
            ordering=Ordering.UNORDERED,
            concurrency=100,
            lanes=1,
            batch=None,
            flow=FlowConfig(max_slice=1),
            limit=lambda _partition: 1000,
            attempts=lambda _: {},
        )
        self.out: LaneSlice
        self.ownerships = {key: Ownership(key, 1) for key in (ONE, TWO)}
        for ownership in self.ownerships.values():
            self.scheduler.own(ownership)

    def enter(self, *offsets: int, partition: TopicPartition = ONE) -> list[Held]:
        """Let records be refused."""
        entered: list[Held] = []
        for offset in offsets:
            self.scheduler.offer(partition, [MemoryMessage(partition, offset)], 0, 0.0)
            slice_ = self.scheduler.take(self.time.monotonic_s())
            assert slice_ is not None
            held = self.scheduler.hold(slice_, slice_.messages, [], attempt=0, due_s=inf)
            self.room.enter(self.scheduler, slice_.lane, held, trial_failed=False)
            entered.append(held)
        return entered

    def let_out(self) -> list[int]:
        """Offsets of those that went."""
        self.room.let_out()
        found: list[int] = []
        while (slice_ := self.scheduler.take(self.time.monotonic_s())) is not None:
            self.out = slice_
            found += [message.offset() for message in slice_.messages]
        return found

    def try_it(self, *, succeeds: bool) -> Held:
        """Make the trial of what was let out, and hold it again: without end, or for a retry of its own."""
        trial = self.breaker.acquire()
        assert trial is not None
        trial.end(int(succeeds), int(not succeeds))
        slice_ = self.out
        assert slice_.held is not None
        self.room.came_back(slice_.held)
        held = self.scheduler.hold(slice_, slice_.messages, [], attempt=0, due_s=1e9 if succeeds else inf)
        if not succeeds:
            self.room.enter(self.scheduler, slice_.lane, held, trial_failed=True)
        return held

    def open(self) -> None:
        self.breaker.trip("test")

    def wait(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)


def test_nobody_goes_while_it_is_open() -> None:
    bench = Bench()
    bench.open()
    bench.enter(0, 1)

    assert bench.let_out() == []
    assert bench.room.next_due_s() == bench.breaker.wakes_at_s


def test_one_goes_for_the_trial_and_the_next_when_it_is_back() -> None:
    """Edge case 79."""
    bench = Bench()
    bench.open()
    first, _ = bench.enter(0, 1)
    bench.wait(5)

    assert bench.let_out() == [0]
    assert bench.let_out() == []
    bench.room.came_back(first)
    assert bench.let_out() == [1]


def test_a_record_is_charged_when_the_trial_of_another_succeeds_and_not_when_its_own_does() -> None:
    """Its own call succeeded, then its handler failed for another reason: it may be back before anybody looks."""
    bench = Bench()
    bench.open()
    bench.enter(0)
    bench.wait(5)
    bench.let_out()
    bench.try_it(succeeds=False)
    bench.wait(10)
    bench.let_out()
    own = bench.try_it(succeeds=True)
    bench.room.let_out()
    assert own.history.charges == 0

    bench = Bench()
    bench.open()
    bench.enter(0, 1)
    bench.wait(5)
    bench.let_out()
    blamed = bench.try_it(succeeds=False)
    bench.wait(10)
    assert bench.let_out() == [1]
    bench.try_it(succeeds=True)
    bench.room.let_out()
    assert blamed.history.charges == 1


def test_nobody_goes_while_the_trial_of_a_record_that_never_waited_is_out() -> None:
    """It would be refused, come back at once and go again, as fast as the loop turns."""
    bench = Bench()
    bench.open()
    bench.enter(0)
    bench.wait(5)
    trial = bench.breaker.acquire()
    assert trial is not None

    assert bench.let_out() == []
    trial.end()
    assert bench.let_out() == [0]


def test_one_that_does_not_come_back_keeps_the_others_no_longer_than_a_second() -> None:
    bench = Bench()
    bench.open()
    bench.enter(0, 1)
    bench.wait(5)
    bench.let_out()

    bench.wait(1)

    assert bench.let_out() == [1]


def test_a_partition_that_stands_still_or_closes_keeps_nobody_else() -> None:
    bench = Bench()
    bench.open()
    bench.enter(0)
    bench.enter(7, partition=TWO)
    bench.scheduler.block(ONE)
    bench.wait(5)

    assert bench.let_out() == [7]
    bench.scheduler.unblock(ONE)
    bench.ownerships[ONE].closing = True
    bench.wait(1)
    assert bench.let_out() == []


def test_what_was_given_away_is_forgotten() -> None:
    bench = Bench()
    bench.open()
    bench.enter(0)
    bench.ownerships[ONE].ended = True
    bench.scheduler.disown(ONE)
    bench.enter(7, partition=TWO)
    bench.wait(5)

    assert bench.let_out() == [7]
    assert bench.room.next_due_s() is None


def test_all_go_to_find_out_anew_and_keep_their_turns() -> None:
    bench = Bench()
    bench.open()
    turns = [held.history.turn for held in bench.enter(0, 1, 2)]

    bench.room.let_all_out()

    assert sorted(bench.let_out()) == [0, 1, 2]
    assert turns == [1, 2, 3]


def test_what_is_said_to_be_due_goes_then_whatever_the_clock_says() -> None:
    """Else the loop would go round and round: a sum of seconds is not exact, nor is their difference."""
    for number in range(200):
        bench = Bench()
        bench.breaker.trip("test")
        bench.enter(*range(8))
        bench.wait(1023 + number * 0.00137 - bench.time.monotonic_s())  # beyond 1024 a clock has one digit less
        permit = bench.breaker.acquire()
        assert permit is not None
        permit.end(1, 0, 0.0)
        bench.let_out()

        due_s = bench.room.next_due_s()
        assert due_s is not None
        bench.wait(due_s - bench.time.monotonic_s())

        assert bench.let_out() or bench.time.monotonic_s() < due_s
