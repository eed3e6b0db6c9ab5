"""What one handler, one key or one dependency takes, and what is left for the others: edge case 90, F-56."""

from __future__ import annotations

from statistics import quantiles
from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.oracle import violations
from scenarios.worlds import OTHER, handled, make_world, produce

from streamworker import (
    Breaker,
    Bulkhead,
    BulkheadFull,
    ConfigurationError,
    Context,
    DeadLetter,
    Handler,
    Ordering,
    Retry,
)
from streamworker.config import CommitConfig, Config, FlowConfig, KafkaConfig
from streamworker.declaration import declaration
from streamworker.resilience.breaker import BreakerState, CircuitBreaker
from streamworker.resilience.guard import Guard
from streamworker.testing.virtual_time import VirtualTime
from streamworker.testing.virtual_world import VirtualWorld
from streamworker.worker import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker import Record

GEO = Breaker("geo", jitter=0.0, bulkhead=Bulkhead(2))


class Asking(Handler[bytes]):
    """Records `geo` need the service."""

    topics: ClassVar[Sequence[str]] = ("in",)
    ordering = Ordering.KEY
    concurrency = 4
    dead_letter = DeadLetter("dlq")
    retry = Retry(attempts=2, base_s=0.1, cap_s=0.1)
    dependencies = (GEO,)

    def open(self, context: Context) -> None:
        self.geo = context.dependency("geo")

    def handle(self, record: Record[bytes]) -> None:
        if record.value == b"geo":
            self.geo.call(bool)


def test_a_record_that_finds_the_bulkhead_full_waits_and_spends_nothing() -> None:
    """Others hold all places for longer than the attempts would last."""
    world = make_world()
    produce(world, b"geo", key=b"a")
    produce(world, b"ok", b"ok", key=b"b")
    member = world.start(Asking)
    breaker = member.worker.gatekeeper.breakers["geo"]
    assert breaker.seats is not None
    assert breaker.seats.take()
    assert breaker.seats.take()

    world.run_for(5.0)
    meanwhile = handled(world)
    breaker.seats.leave()
    world.run(lambda: len(handled(world)) == 3, timeout_s=0.3, what="the next try")

    assert meanwhile == [1, 2]
    assert handled(world) == [1, 2, 0]
    assert {effect.attempt for effect in world.effects} == {1}
    assert 10 < member.story.full_bulkheads["geo"] < 500
    assert member.story.breaker_changes == []
    assert world.broker.records("dlq") == []
    world.run_to_end("in")
    assert list(violations(world, "in", "dlq")) == []


def guard_of(bulkhead: Bulkhead) -> tuple[Guard, CircuitBreaker]:
    time = VirtualTime()
    breaker = CircuitBreaker(Breaker("geo", in_a_row=1, jitter=0.0, bulkhead=bulkhead), clock=time)
    return Guard(breaker, time), breaker


def test_a_place_is_given_back_whatever_becomes_of_the_call() -> None:
    guard, _ = guard_of(Bulkhead(1))

    for _ in range(3):
        with pytest.raises(ValueError, match="bad"), guard, guard:
            raise ValueError("bad")

    assert guard.call(bool) is False


def test_a_call_without_a_place_is_not_made_and_tells_the_breaker_nothing() -> None:
    guard, breaker = guard_of(Bulkhead(1))
    other = Guard(breaker, VirtualTime())

    with other, pytest.raises(BulkheadFull) as refused:
        guard.call(pytest.fail, "was called")

    assert str(refused.value) == "as many calls of geo as may be are in progress"
    assert breaker.state is BreakerState.CLOSED
    assert guard.call(bool) is False


def test_a_trial_that_finds_no_place_leaves_the_trial_to_another() -> None:
    time = VirtualTime()
    breaker = CircuitBreaker(Breaker("geo", in_a_row=1, jitter=0.0, successes=1, bulkhead=Bulkhead(1)), clock=time)
    guard = Guard(breaker, time)
    assert breaker.seats is not None
    with pytest.raises(ConnectionError), guard:
        raise ConnectionError
    time.wait(5.0, lambda: False)
    assert breaker.seats.take()

    with pytest.raises(BulkheadFull):
        guard.call(bool)
    breaker.seats.leave()

    assert breaker.state is BreakerState.HALF_OPEN
    assert guard.call(bool) is False
    assert breaker.state is BreakerState.CLOSED


def test_the_breaker_of_a_whole_handler_has_no_bulkhead() -> None:
    class Wrong(Asking):
        dependencies = ()
        breaker = GEO

    with pytest.raises(ConfigurationError, match=r"Wrong.breaker: a bulkhead bounds single calls"):
        declaration(Wrong)


class Slow(Handler[bytes]):
    topics = ("slow",)
    concurrency = 4
    ordering: ClassVar[Ordering | str] = Ordering.UNORDERED

    def handle(self, record: Record[bytes]) -> None:
        pass


class Quick(Slow):
    topics = ("quick",)
    ordering = Ordering.KEY


def waits_of_quick(slow_records: int, partitions: int = 1) -> list[float]:
    """How long each of a steady trickle of quick records waits, beside slow ones whose calls take a minute."""
    config = Config(kafka=KafkaConfig(group="test"), flow=FlowConfig(max_inflight=1000))
    world = VirtualWorld({"slow": partitions, "quick": 1}, config=config)
    for number in range(slow_records):
        world.broker.produce("slow", number % partitions, b"s")
    seconds = (60.0, 0.002)
    world.start(Slow, Quick, duration_s=lambda slice_: seconds[slice_.handler_number] * len(slice_.messages))
    produced_s: dict[int, float] = {}
    for number in range(500):
        produced_s[number] = world.time.monotonic_s()
        world.broker.produce("quick", 0, b"q", key=str(number % 10).encode())
        world.run_for(0.02)
    world.run_for(1.0)
    ends_s = {effect.offset: effect.at_s for effect in world.effects if effect.partition.topic == "quick"}
    assert len(ends_s) == 500
    return [ends_s[number] - produced_s[number] for number in range(500)]


def p99(waits_s: Sequence[float]) -> float:
    return quantiles(waits_s, n=100)[98]


@pytest.mark.parametrize("partitions", [1, 4])
def test_a_slow_topic_takes_neither_the_threads_nor_the_room_of_another(partitions: int) -> None:
    """Edge case 90: each call of the slow topic hangs, and there is more of it than the worker holds."""
    alone_s = waits_of_quick(0)

    beside_s = waits_of_quick(5000, partitions)

    begun = 100  # records, 2 s: until those that have more than their share are paused and have shed it
    print(f"p99 {p99(alone_s):.4f} s alone, {p99(beside_s[begun:]):.4f} s beside, {max(beside_s):.3f} s while it began")
    assert p99(beside_s[begun:]) <= 5 * p99(alone_s)
    assert max(beside_s) <= 2 * FlowConfig().pause_after_s + 0.2


def test_a_bounded_run_counts_what_it_gave_back_for_others_once() -> None:
    """Records that leave the buffers to make room are fetched again."""
    world = VirtualWorld({"slow": 1, "quick": 1}, config=Config(flow=FlowConfig(max_inflight=1000)))
    for _ in range(5000):
        world.broker.produce("slow", 0, b"s")
    seconds = (1.0, 0.002)
    member = world.start(
        Slow,
        Quick,
        bounds=Bounds(max_records=2500),
        duration_s=lambda slice_: seconds[slice_.handler_number] * len(slice_.messages),
    )
    for number in range(300):
        world.broker.produce("quick", 0, b"q", key=str(number % 10).encode())
        world.run_for(0.02)

    world.run(lambda: member.worker.stopping is not None, what="the bound")

    assert len(world.effects) == 2500


class ByKey(Handler[bytes]):
    topics = ("in",)
    ordering = Ordering.KEY
    concurrency = 4
    lanes = 16

    def handle(self, record: Record[bytes]) -> None:
        pass


CALL_S = 0.002
MAX_INFLIGHT = 2000


def waits_of_others(flood: Callable[[int], bytes | None], records: int) -> list[float]:
    """How long records of ten keys wait, while so many of a flood come each 20 ms in another partition."""
    flow = FlowConfig(max_inflight=MAX_INFLIGHT)
    world = make_world(2, commit=CommitConfig(max_uncommitted=100_000), flow=flow)
    member = world.start(ByKey, duration_s=lambda slice_: CALL_S * len(slice_.messages))
    produced_s: dict[int, float] = {}
    for number in range(300):
        produced_s[number] = world.time.monotonic_s()
        world.broker.produce("in", 1, b"o", key=b"other-%d" % (number % 10))
        for count in range(records):
            world.broker.produce("in", 0, b"f", key=flood(records * number + count))
        world.run_for(0.02)
        assert member.worker.backpressure.records <= MAX_INFLIGHT
    world.run_for(1.0)
    ends_s = {effect.offset: effect.at_s for effect in world.effects if effect.partition == OTHER}
    assert len(ends_s) == 300
    return [ends_s[number] - produced_s[number] for number in range(300)]


def test_a_hot_key_that_brings_all_that_the_threads_can_do_does_not_hold_up_others() -> None:
    """F-56. One lane is never with more than one thread."""
    alone_s = p99(waits_of_others(lambda _number: b"hot", 0))

    beside_s = p99(waits_of_others(lambda _number: b"hot", 40))

    print(f"p99 {alone_s:.4f} s alone, {beside_s:.4f} s beside a hot key")
    assert beside_s <= 5 * alone_s


@pytest.mark.parametrize("load", [2, 6])
@pytest.mark.parametrize("flood", [lambda _number: None, lambda number: b"%d" % number], ids=["null", "distinct"])
def test_a_flood_over_all_lanes_of_a_partition_does_not_hold_up_another_however_large_it_is(
    flood: Callable[[int], bytes | None], load: int
) -> None:
    """F-56. `load` times what all threads can do, and every second turn is the other partition's."""
    alone_s = p99(waits_of_others(flood, 0))

    beside_s = p99(waits_of_others(flood, 40 * load))

    print(f"p99 {alone_s:.4f} s alone, {beside_s:.4f} s beside a flood of {load} times the threads")
    assert beside_s <= 5 * alone_s
