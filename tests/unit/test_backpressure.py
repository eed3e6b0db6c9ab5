"""How much is in hand, and which partitions wait for it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sizes import SOAK

from streamworker import Handler, PoisonError, Record, TopicPartition
from streamworker.config import Config, FlowConfig, KafkaConfig
from streamworker.scheduling.backpressure import Backpressure
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTITIONS = [TopicPartition("t", number) for number in range(4)]
P0, P1 = PARTITIONS[:2]
MIB = 1024 * 1024  # what a record of unknown size may have
FLOW = FlowConfig(max_inflight=100, max_buffer_bytes=100 * MIB, pause_after_s=0.5, resume_at=0.5)
FULL = 75  # a quarter of so few places is kept free for records that come although the worker is full
TICK_S = 0.02


def owning(*partitions: TopicPartition, flow: FlowConfig = FLOW) -> Backpressure:
    backpressure = Backpressure(flow)
    for partition in partitions:
        backpressure.own(partition)
    return backpressure


class BackpressureMachine(RuleBasedStateMachine):
    """Records of one size come where there is room and end in any order, while time goes by."""

    @initialize(size_bytes=st.sampled_from([1, 1000, MIB // 3, MIB]))
    def begin(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.backpressure = Backpressure(FLOW)
        self.now_s = 0.0
        self.in_hand: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.pauses: dict[TopicPartition, list[float]] = {}

    @rule(partition=st.sampled_from(PARTITIONS))
    def own(self, partition: TopicPartition) -> None:
        if partition not in self.in_hand:
            self.backpressure.own(partition, beside=partition is PARTITIONS[-1])
            self.in_hand[partition] = 0
            self.pauses[partition] = []

    @rule(partition=st.sampled_from(PARTITIONS))
    def disown(self, partition: TopicPartition) -> None:
        self.backpressure.disown(partition)
        self.in_hand.pop(partition, None)
        self.paused.discard(partition)

    @precondition(lambda self: self.in_hand.keys() - self.paused)
    @rule(data=st.data(), wanted=st.integers(1, 100))
    def fetch(self, data: st.DataObject, wanted: int) -> None:
        partition = data.draw(st.sampled_from(sorted(self.in_hand.keys() - self.paused)))
        records = min(wanted, self.backpressure.room())
        if records:
            self.backpressure.admitted(partition, records, records * self.size_bytes)
            self.in_hand[partition] += records

    @precondition(lambda self: any(self.in_hand.values()))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(one for one, records in self.in_hand.items() if records)))
        records = data.draw(st.integers(1, self.in_hand[partition]))
        self.backpressure.settled(partition, records, records * self.size_bytes)
        self.in_hand[partition] -= records

    @rule(ticks=st.sampled_from([1, 2, 60]))
    def let_time_pass(self, ticks: int) -> None:
        for _ in range(ticks):
            self.now_s += TICK_S
            pressure = self.backpressure.check(self.now_s)
            assert set(pressure.pause) <= self.in_hand.keys() - self.paused
            assert set(pressure.resume) <= self.paused
            for partition in pressure.pause:
                self.pauses[partition].append(self.now_s)
            self.paused = (self.paused | set(pressure.pause)) - set(pressure.resume)
            for partition, records in pressure.shed.items():
                assert 0 < records <= self.in_hand[partition] - FLOW.max_inflight // len(self.in_hand)

    @rule()
    def once_all_is_settled_every_partition_goes_on(self) -> None:
        for partition, records in self.in_hand.items():
            self.backpressure.settled(partition, records, records * self.size_bytes)
            self.in_hand[partition] = 0
        self.let_time_pass(2)

        assert not self.paused
        assert self.backpressure.room() > 0

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        assert self.backpressure.records == sum(self.in_hand.values())
        assert self.backpressure.size_bytes == self.backpressure.records * self.size_bytes
        assert {one: self.backpressure.buffered(one) for one in self.in_hand} == self.in_hand

    @invariant()
    def the_bounds_hold(self) -> None:
        assert self.backpressure.records <= FULL
        assert self.backpressure.size_bytes <= FLOW.max_buffer_bytes

    @invariant()
    def pauses_of_a_partition_are_a_second_apart(self) -> None:
        for moments in self.pauses.values():
            assert all(later - earlier >= 0.999 for earlier, later in pairwise(moments))


TestBackpressure = BackpressureMachine.TestCase
TestBackpressure.settings = settings(max_examples=120 * SOAK, stateful_step_count=40)


def ticks(
    backpressure: Backpressure, *, since_s: float, seconds: float
) -> tuple[list[TopicPartition], list[TopicPartition]]:
    """Check for so long; all that was paused and all that was resumed."""
    paused: list[TopicPartition] = []
    resumed: list[TopicPartition] = []
    for number in range(int(seconds / TICK_S) + 1):
        pressure = backpressure.check(since_s + number * TICK_S)
        paused += pressure.pause
        resumed += pressure.resume
    return paused, resumed


def test_the_mean_stands_for_each_record_as_long_as_none_is_more_than_twice_as_large() -> None:
    backpressure = owning(P0)
    backpressure.admitted(P0, 4, 42)
    parts = [[MemoryMessage(P0, offset, value=b"v" * 20) for offset in range(2)], [MemoryMessage(P0, 2, value=b"v")]]

    assert backpressure.size_of(P0, parts, 21) == 31  # 42 * 3 / 4, in whole bytes
    assert backpressure.size_of(P0, parts, 22) == 41


def test_nothing_is_fetched_while_the_worker_is_full() -> None:
    backpressure = owning(P0)

    backpressure.admitted(P0, FULL, FULL)
    assert backpressure.room() == 0

    backpressure.settled(P0, 1, 1)
    assert backpressure.room() == 1


def test_the_first_fetch_leaves_room_for_large_records() -> None:
    backpressure = owning(P0, flow=FlowConfig(max_inflight=10_000, max_buffer_bytes=64 * MIB))

    assert backpressure.room() == 48


def test_the_room_in_bytes_is_counted_in_records_of_the_usual_size() -> None:
    backpressure = owning(P0)

    backpressure.admitted(P0, 1, 20 * MIB)
    backpressure.settled(P0, 1, 20 * MIB)

    assert backpressure.room() == 3


def test_small_records_make_room_again_after_a_few_fetches() -> None:
    backpressure = owning(P0)
    backpressure.admitted(P0, 1, 50 * MIB)
    backpressure.settled(P0, 1, 50 * MIB)

    for _ in range(30):
        backpressure.admitted(P0, 1, 10)
        backpressure.settled(P0, 1, 10)

    assert backpressure.room() == FULL


def test_a_record_larger_than_the_budget_goes_alone() -> None:
    backpressure = owning(P0)

    backpressure.admitted(P0, 1, 500 * MIB)
    assert backpressure.room() == 0

    backpressure.settled(P0, 1, 500 * MIB)
    assert backpressure.room() == 1


def test_a_partition_over_its_share_is_paused_when_that_lasts() -> None:
    backpressure = owning(P0, P1)
    backpressure.admitted(P0, 51, 51)
    backpressure.admitted(P1, 10, 10)

    assert ticks(backpressure, since_s=0.0, seconds=0.4) == ([], [])
    assert ticks(backpressure, since_s=0.5, seconds=0.1) == ([P0], [])


def test_a_partition_over_its_share_is_paused_soon_while_the_worker_is_full() -> None:
    backpressure = owning(P0, P1)
    backpressure.admitted(P0, 90, 90)
    backpressure.admitted(P1, 10, 10)

    assert ticks(backpressure, since_s=0.0, seconds=0.04) == ([], [])
    assert ticks(backpressure, since_s=0.06, seconds=0.02) == ([P0], [])


def test_a_topic_beside_takes_part_in_the_split_only_while_it_has_something() -> None:
    """Else the only partition of a source topic would have half of the places, because of a replay topic."""
    backpressure = owning(P0)
    backpressure.own(P1, beside=True)
    backpressure.admitted(P0, 60, 60)
    alone = ticks(backpressure, since_s=0.0, seconds=1.0)

    backpressure.admitted(P1, 1, 1)
    beside = ticks(backpressure, since_s=2.0, seconds=1.0)

    assert alone == ([], [])
    assert beside == ([P0], [])


def test_a_share_of_bytes_counts_like_one_of_records() -> None:
    backpressure = owning(P0, P1)
    backpressure.admitted(P0, 1, 101 * MIB)

    assert ticks(backpressure, since_s=0.0, seconds=0.12) == ([P0], [])


@pytest.mark.parametrize(("partitions", "share"), [(2, 50), (3, 50), (4, 37)])
def test_the_share_is_half_and_less_with_more_partitions(partitions: int, share: int) -> None:
    backpressure = owning(*PARTITIONS[:partitions])
    backpressure.admitted(P0, share, share)
    assert ticks(backpressure, since_s=0.0, seconds=1.0) == ([], [])

    backpressure.admitted(P0, 1, 1)
    assert ticks(backpressure, since_s=2.0, seconds=1.0) == ([P0], [])


def test_an_even_load_pauses_nobody() -> None:
    backpressure = owning(*PARTITIONS)
    for partition in PARTITIONS:
        backpressure.admitted(partition, 18, 18)

    assert ticks(backpressure, since_s=0.0, seconds=60.0) == ([], [])


def test_all_are_paused_when_the_worker_stays_full() -> None:
    backpressure = owning(P0)
    backpressure.admitted(P0, 100, 100)

    assert ticks(backpressure, since_s=0.0, seconds=0.4) == ([], [])
    assert ticks(backpressure, since_s=0.42, seconds=0.2) == ([P0], [])


def test_what_ended_long_ago_of_an_idle_partition_does_not_keep_a_full_worker_from_pausing() -> None:
    backpressure = owning(P0, P1)
    backpressure.check(0.0)
    backpressure.admitted(P1, 50, 50)
    backpressure.settled(P1, 50, 50)
    backpressure.check(TICK_S)
    backpressure.admitted(P0, 50, 100 * MIB)

    paused, _ = ticks(backpressure, since_s=0.04, seconds=0.8)

    assert set(paused) == {P0, P1}


def test_one_record_above_an_even_split_is_shed_and_none_at_it() -> None:
    backpressure = owning(P0, P1)
    backpressure.admitted(P0, 51, 1)
    backpressure.admitted(P1, 50, 1)

    backpressure.check(0.0)

    assert backpressure.check(0.6).shed == {P0: 1}


def test_what_ended_in_one_look_is_no_part_of_the_next() -> None:
    """A partition that was quick once and stands still is paused, when what it is above has lasted."""
    backpressure = owning(P0, P1)
    backpressure.check(0.0)
    for _ in range(2):
        backpressure.admitted(P0, 1_000, 1_000)
        backpressure.settled(P0, 1_000, 1_000)
    backpressure.admitted(P0, 60, 60)
    quick = [now_s for now_s in (0.02, 0.6) if backpressure.check(now_s).pause]

    later, _ = ticks(backpressure, since_s=0.62, seconds=0.6)

    assert quick == []
    assert later == [P0]


def test_who_has_more_than_an_even_split_sheds_it_when_the_worker_stays_full() -> None:
    backpressure = owning(P0, P1)
    backpressure.admitted(P0, FULL - 5, 1)
    backpressure.admitted(P1, 5, 1)

    assert backpressure.check(0.0).shed == {}
    assert backpressure.check(0.4).shed == {}
    assert backpressure.check(0.6).shed == {P0: FULL - 5 - 50}


def test_a_partition_that_has_no_neighbours_sheds_nothing() -> None:
    backpressure = owning(P0)
    backpressure.admitted(P0, FULL, 1)
    backpressure.check(0.0)

    assert backpressure.check(1.0).shed == {}


def test_a_moment_of_room_starts_the_time_anew() -> None:
    backpressure = owning(P0)
    backpressure.admitted(P0, FULL, FULL)
    ticks(backpressure, since_s=0.0, seconds=0.4)

    backpressure.settled(P0, 1, 1)
    backpressure.check(0.45)
    backpressure.admitted(P0, 1, 1)

    assert ticks(backpressure, since_s=0.48, seconds=0.4) == ([], [])


def test_a_paused_partition_goes_on_at_half_of_its_share() -> None:
    backpressure = owning(P0, P1)
    backpressure.admitted(P0, 100, 100)
    assert ticks(backpressure, since_s=0.0, seconds=0.12) == ([P0], [])

    backpressure.settled(P0, 74, 74)
    assert list(backpressure.check(1.0).resume) == []

    backpressure.settled(P0, 1, 1)
    assert list(backpressure.check(2.0).resume) == [P0]


def test_an_empty_partition_goes_on_though_another_one_keeps_what_it_has() -> None:
    """One partition is stopped with most of the buffers in hand; the other must not wait for it for ever."""
    backpressure = owning(P0, P1)
    backpressure.admitted(P0, 60, 60)
    backpressure.admitted(P1, 40, 40)
    paused, _ = ticks(backpressure, since_s=0.0, seconds=1.0)
    assert P1 in paused

    backpressure.settled(P1, 40, 40)

    _, resumed = ticks(backpressure, since_s=2.0, seconds=60.0)
    assert P1 in resumed


def test_a_load_that_swings_pauses_a_partition_at_most_once_a_second() -> None:
    backpressure = owning(P0, P1)
    pauses: Counter[TopicPartition] = Counter()

    for number in range(int(60 / TICK_S)):
        change: Sequence[TopicPartition] = backpressure.check(number * TICK_S).pause
        pauses.update(change)
        if number % 12 == 0:
            backpressure.admitted(P0, 100, 100)
        elif number % 12 == 10:
            backpressure.settled(P0, 100, 100)

    assert 40 <= pauses[P0] <= 60


@pytest.mark.parametrize(("ends_a_second", "pauses"), [(10_000, False), (500, True)])
def test_a_partition_that_soon_has_room_for_others_is_not_paused(ends_a_second: int, *, pauses: bool) -> None:
    """A client hands out thousands of one partition at a time; to fetch them anew takes longer than to be through."""
    backpressure = Backpressure(FlowConfig(max_inflight=10_000))
    for one in PARTITIONS:
        backpressure.own(one)
    backpressure.check(0.0)
    ended, fetched = round(ends_a_second * TICK_S), 0
    paused: list[TopicPartition] = []
    for number in range(1, 500):
        for one in PARTITIONS:
            records = min(ended, backpressure.buffered(one))
            backpressure.settled(one, records, 200 * records)
        while (room := min(backpressure.room(), 5000 - fetched % 5000)) > 0:
            backpressure.admitted(PARTITIONS[fetched // 5000 % 4], room, 200 * room)
            fetched += room
        paused += backpressure.check(number * TICK_S).pause

    assert bool(paused) is pauses


def test_what_a_lost_partition_had_in_hand_counts_no_more() -> None:
    backpressure = owning(P0, P1)
    backpressure.admitted(P0, 100, 100 * MIB)

    backpressure.disown(P0)
    backpressure.disown(P0)

    assert (backpressure.records, backpressure.size_bytes) == (0, 0)
    assert backpressure.room() > 1


class PoisonFirst(Handler[bytes]):
    topics = ("t",)

    def handle(self, record: Record[bytes]) -> None:
        if (record.partition, record.offset) == (0, 0):
            raise PoisonError("stops its partition, as there are no dead letters")


def test_a_worker_goes_on_beside_a_partition_that_was_stopped_with_most_of_the_buffers_in_hand() -> None:
    world = VirtualWorld({"t": 2}, config=Config(kafka=KafkaConfig(group="g"), flow=FLOW))
    for number in range(400):
        world.broker.produce("t", 0 if number < 200 else 1, b"x")

    member = world.start(PoisonFirst, duration_s=lambda slice_: 0.1)
    world.run(lambda: bool(member.story.stops))
    world.run(lambda: world.caught_up(P1), timeout_s=600)


def test_the_size_of_what_ends_in_parts_is_rounded_once() -> None:
    """Else bytes would stay behind that no record has."""
    backpressure = owning(P0)
    messages = [MemoryMessage(P0, offset, value=b"x" * size) for offset, size in enumerate((3, 3, 4))]
    backpressure.admitted(P0, 3, 10)

    assert backpressure.size_of(P0, [messages[:1], messages[1:]], 4) == 10
    assert backpressure.size_of(P0, [messages[:1], messages[1:]], 1000) == 10
