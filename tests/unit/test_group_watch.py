"""What is found out about groups from what brokers say, look by look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.cluster import GroupState, TopicShape
from streamworker.errors import ClientError
from streamworker.interfaces import OffsetMark
from streamworker.lag.group_watch import GroupWatch
from streamworker.lag.peeks import Nothing
from streamworker.lag.states import Rules, State
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.lag.group_lag import GroupLag, PartitionLag

A, B = TopicPartition("orders", 0), TopicPartition("orders", 1)
START_MS = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return START_MS + round(self.now_s * 1000)


class Brokers:
    """A topic of two partitions with a hundred records each, and a group that has one of them."""

    def __init__(self) -> None:
        self.shapes = {"orders": TopicShape(2, 1)}
        self.state: GroupState | None = GroupState("STABLE", 1, {A: "shop-1 (10.0.0.1)"})
        self.marks: dict[TopicPartition, OffsetMark | None] = {A: OffsetMark(90), B: OffsetMark(100)}
        self.starts = {A: 0, B: 0}
        self.ends = {A: 100, B: 100}
        self.settings: dict[str, str] = {}
        self.refusal: ClientError | None = None
        self.configs_asked = 0

    def topics(self, timeout_s: float) -> Mapping[str, TopicShape]:
        del timeout_s
        return self.shapes

    def topic_config(self, name: str, timeout_s: float) -> Mapping[str, str] | None:
        del name, timeout_s
        self.configs_asked += 1
        return self.settings

    def group_state(self, group: str, timeout_s: float) -> GroupState | None:
        del timeout_s
        if self.refusal is not None and group == "refused":
            raise self.refusal
        return self.state

    def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition] | None, timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        del group, partitions, timeout_s
        return self.marks

    def bounds(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        del timeout_s
        return {one: (self.starts[one], self.ends[one]) for one in partitions if one in self.ends}


class Times:
    """Records were written a second apart from each other, the first at the start."""

    def __init__(self) -> None:
        self.asked: list[Mapping[TopicPartition, int]] = []
        self.nothing: Nothing | None = None

    def written_ms(
        self, offsets: Mapping[TopicPartition, int], timeout_s: float
    ) -> Mapping[TopicPartition, int | Nothing]:
        assert timeout_s > 0
        self.asked.append(dict(offsets))
        return {one: self.nothing or START_MS - 100_000 + at * 1000 for one, at in offsets.items()}


class World:
    def __init__(self, *, peeks: bool = True) -> None:
        self.brokers, self.clock, self.times = Brokers(), Clock(), Times()
        self.watch = GroupWatch(
            self.brokers,
            self.times if peeks else None,
            self.clock,
            Rules(minimum_complete=0.5),
            looks=4,
            timeout_s=5.0,
            chosen=lambda topic: topic != "hidden",
        )

    def look(self, seconds_later: float = 10.0) -> GroupLag:
        self.clock.now_s += seconds_later
        [found] = self.watch.look(["shop"])
        return found


def of(group: GroupLag, partition: TopicPartition = A) -> PartitionLag:
    [found] = [one for one in group.partitions if one.partition == partition]
    return found


def test_the_lag_goes_from_the_committed_offset_to_the_end_and_is_as_old_as_the_record_there() -> None:
    world = World()

    group = world.look(0)

    assert (of(group).lag, of(group).lag_s, of(group).owner) == (10, 10.0, "shop-1 (10.0.0.1)")
    assert (of(group, B).lag, of(group, B).lag_s, of(group, B).owner) == (0, 0.0, None)
    assert (group.topics["orders"].lag, group.topics["orders"].lag_s) == (10, 10.0)


def test_a_record_is_looked_at_once_and_then_grows_older() -> None:
    world = World()
    world.look(0)

    group = world.look(10)

    assert of(group).lag_s == 20
    assert world.times.asked == [{A: 90}]


def test_groups_at_different_offsets_of_a_partition_are_all_looked_at() -> None:
    world = World()
    world.look(0)
    world.brokers.marks = {A: OffsetMark(91)}
    other = World()
    other.brokers.marks = {A: OffsetMark(95)}

    def marks(group: str, partitions: object, timeout_s: float) -> Mapping[TopicPartition, OffsetMark | None]:
        del partitions, timeout_s
        return {A: OffsetMark(91 if group == "shop" else 95)}

    world.brokers.group_offsets = marks  # type: ignore[method-assign]
    shop, billing = world.watch.look(["shop", "billing"])

    assert (of(shop).lag_s, of(billing).lag_s) == (9, 5)


def test_without_records_to_look_at_ages_are_estimated_once_the_log_was_seen_to_pass() -> None:
    world = World(peeks=False)
    world.brokers.marks = {A: OffsetMark(100)}
    world.look()

    world.brokers.ends[A] = 120
    world.brokers.marks = {A: OffsetMark(110)}
    group = world.look(10)

    assert of(group).lag_s == 5
    assert of(World(peeks=False).look()).lag_s is None


def test_where_there_is_nothing_to_read_there_is_no_lag() -> None:
    """At the end of a log that transactions write to is their mark, which no record belongs to."""
    world = World()
    world.times.nothing = Nothing.TO_READ

    group = world.look(0)

    assert (of(group).lag, of(group).lag_s, of(group).state) == (0, 0.0, State.OK)


def test_an_offset_without_a_record_is_looked_at_again() -> None:
    world = World()
    world.times.nothing = Nothing.TO_READ
    world.look(0)

    world.times.nothing = None

    assert of(world.look()).lag == 10


def test_what_a_member_has_and_does_not_move_is_a_stall() -> None:
    world = World()

    states = [of(world.look()).state for _ in range(3)]

    assert states == [None, State.STALL, State.STALL]


def test_what_nobody_has_and_does_not_move_has_stopped() -> None:
    world = World()
    world.brokers.state = GroupState("EMPTY", 0)

    states = [of(world.look()).state for _ in range(3)]

    assert states == [None, State.STOP, State.STOP]


def test_a_group_without_membership_that_commits_has_not_stopped() -> None:
    world = World()
    world.brokers.state = GroupState("EMPTY", 0, simple=True)
    group = world.look()

    for number in range(4):
        world.brokers.marks[A] = OffsetMark(91 + number)
        group = world.look()

    assert of(group).state is State.OK
    assert group.unowned == {}


def test_an_idle_group_that_commits_nothing_is_given_time_for_the_next_record() -> None:
    """Hours after its last commit a record comes, and a look finds it before the group does."""
    world = World()
    world.brokers.state = GroupState("STABLE", 1, {A: "shop-1 (10.0.0.1)"})
    world.brokers.marks = {A: OffsetMark(100)}
    for _ in range(50):
        world.look()

    world.brokers.ends[A] = 101
    states = [of(world.look()).state for _ in range(5)]

    assert states[:3] == [State.OK] * 3
    assert states[4] is State.STALL


def test_offsets_that_are_set_back_are_a_rewind() -> None:
    world = World()
    world.look()
    world.look()

    world.brokers.marks[A] = OffsetMark(10)

    assert of(world.look()).state is State.REWIND


def test_a_group_that_goes_on_and_does_not_gain_is_warned_of() -> None:
    world = World()
    group = world.look()

    for _ in range(3):
        world.brokers.marks = {one: OffsetMark(mark.offset + 5) for one, mark in world.brokers.marks.items() if mark}
        world.brokers.ends = {one: end + 5 for one, end in world.brokers.ends.items()}
        group = world.look()

    assert group.state is State.WARN


def test_partitions_that_nobody_has_are_counted_where_somebody_reads_the_topic() -> None:
    world = World()
    world.brokers.shapes["left"] = TopicShape(1, 1)
    left = TopicPartition("left", 0)
    world.brokers.marks[left] = OffsetMark(1)
    world.brokers.starts[left], world.brokers.ends[left] = 0, 1

    at_work = world.look()
    world.brokers.state = GroupState("EMPTY", 0)
    stopped = world.look()

    assert at_work.unowned == {"orders": 1, "left": 0}
    assert stopped.unowned == {"orders": 2, "left": 1}


def test_amid_a_rebalance_nobody_is_said_to_be_missing_and_nothing_to_have_stopped() -> None:
    world = World()
    world.look()
    world.brokers.state = GroupState("PREPARING_REBALANCING", 2)

    group = world.look()

    assert group.unowned == {}
    assert of(group).state is State.STALL


def test_a_cluster_that_does_not_tell_who_is_a_member_is_judged_by_commits_alone() -> None:
    world = World()
    world.brokers.state = None
    world.look()

    group = world.look()

    assert (group.status, group.members, group.unowned) == ("UNKNOWN", None, {})
    assert of(group).state is State.STOP


def test_a_partition_without_an_offset_is_listed_and_not_judged() -> None:
    world = World()
    world.brokers.marks = {A: None}

    group = world.look()

    assert [(one.lag, one.state) for one in group.partitions] == [(None, None)] * 2
    assert group.state is None
    assert group.topics["orders"].lag is None


def test_a_partition_without_a_leader_is_left_out_and_remembered() -> None:
    world = World()
    world.look()
    del world.brokers.ends[A]

    assert [one.partition for one in world.look().partitions] == [B]
    world.brokers.ends[A] = 100
    assert of(world.look()).state is State.STALL


def test_topics_that_are_gone_or_not_asked_for_are_left_out() -> None:
    world = World()
    world.brokers.shapes["hidden"] = TopicShape(1, 1)
    world.brokers.marks |= {TopicPartition("hidden", 0): OffsetMark(1), TopicPartition("gone", 0): OffsetMark(1)}

    assert {one.partition for one in world.look().partitions} == {A, B}


def test_a_group_that_may_not_be_seen_keeps_the_others_from_nothing() -> None:
    world = World()
    world.brokers.refusal = ClientError("not allowed", code="GROUP_AUTHORIZATION_FAILED")

    refused, shop = world.watch.look(["refused", "shop"])

    assert (refused.error, refused.state, list(refused.partitions)) == ("not allowed", None, [])
    assert of(shop).lag == 10


def test_a_group_that_is_gone_has_no_state() -> None:
    world = World()
    world.brokers.marks, world.brokers.state = {}, GroupState("DEAD", 0)

    group = world.look()

    assert (group.state, list(group.partitions), group.members) == (None, [], 0)


def test_time_until_data_are_lost_is_what_retention_leaves_to_the_record() -> None:
    world = World()
    world.brokers.settings = {"retention.ms": "60000"}

    first, second = world.look(0), world.look(10)

    assert (of(first).data_loss_s, of(second).data_loss_s) == (50, 40)
    assert of(first, B).data_loss_s is None
    assert first.topics["orders"].data_loss_s == 50
    assert world.brokers.configs_asked == 1


def test_a_topic_that_is_compacted_loses_nothing_by_age() -> None:
    world = World()
    world.brokers.settings = {"retention.ms": "60000", "cleanup.policy": "compact"}

    assert of(world.look(0)).data_loss_s is None


def test_an_offset_that_fell_off_the_log_has_lost_data_and_is_as_old_as_what_is_left() -> None:
    world = World()
    world.brokers.starts[A] = 95

    group = world.look(0)

    assert (of(group).data_loss_s, of(group).lag_s) == (0, 5)
    assert world.times.asked == [{A: 95}]
