"""The scheduler beside a model that knows of every record where it is and what it must wait for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sizes import SOAK

from streamworker.config import FlowConfig
from streamworker.options import Batch, Ordering
from streamworker.record import TopicPartition
from streamworker.scheduling.scheduler import Scheduler
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Ownership

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.record import Message
    from streamworker.scheduling.lane import Held, Lane, LaneSlice, PartitionLanes

PARTITIONS = [TopicPartition("t", number) for number in range(3)]
KEYS = [None, b"a", b"b", b"c", b"d"]
BATCHES = [None, Batch(max_records=3, max_bytes=20, max_wait_s=1.0), Batch(max_records=50, max_wait_s=0.0)]
NO_LIMIT = 10**9


def _sizes(*sizes: int) -> Sequence[int]:
    return [size for size in sizes if size]


@dataclass(eq=False)
class Group:
    """Records that wait together for another try."""

    lane: Lane
    messages: Sequence[Message]
    due_s: float
    parts: Sequence[int] = ()  # so many records go at a time, if not all at once
    held: Held | None = None  # where it waits until it is released


@dataclass(eq=False)
class Epoch:
    """What the model knows of one ownership."""

    ownership: Ownership
    lanes: PartitionLanes
    limit: int = NO_LIMIT
    next_offset: int = 0
    highest_done: int = -1
    has_shed: bool = False  # then a batch may be cut early: when its records came is known no more
    open: dict[int, Message] = field(default_factory=dict)  # offered and not done
    lane_of: dict[int, Lane] = field(default_factory=dict)
    came_s: dict[int, float] = field(default_factory=dict)
    came_back: set[int] = field(default_factory=set)  # untried: they need not wait for a full batch again
    calls: Counter[int] = field(default_factory=Counter)  # spent on a record that waits for another try
    out: set[int] = field(default_factory=set)
    groups: list[Group] = field(default_factory=list)
    behind: set[int] = field(default_factory=set)  # in a group that goes in parts, and not their turn

    @property
    def held(self) -> set[int]:
        return {message.offset() for group in self.groups for message in group.messages} | self.behind

    @property
    def end(self) -> int:
        """From where on nothing may be started any more."""
        return self.ownership.closes_at if self.ownership.closing else NO_LIMIT

    def waiting(self, lane: Lane) -> list[Message]:
        held = self.held
        return [
            message
            for offset, message in sorted(self.open.items())
            if self.lane_of[offset] is lane and offset not in held | self.out
        ]


class SchedulerMachine(RuleBasedStateMachine):
    """Partitions come and go, records come, slices are taken and come back in every way."""

    @initialize(
        ordering=st.sampled_from(Ordering),
        concurrency=st.integers(1, 4),
        lanes=st.integers(1, 3),
        batch=st.sampled_from(BATCHES),
    )
    def begin(self, ordering: Ordering, concurrency: int, lanes: int, batch: Batch | None) -> None:
        self.ordering, self.concurrency, self.batch = ordering, concurrency, batch
        self.scheduler = Scheduler(
            handler_number=0,
            ordering=ordering,
            concurrency=concurrency,
            lanes=lanes,
            batch=batch,
            flow=FlowConfig(max_slice=7),
            limit=lambda partition: self.epochs[partition].limit,
            attempts=lambda _: {},
        )
        self.now_s = 100.0
        self.number = 0
        self.epochs: dict[TopicPartition, Epoch] = {}
        self.out: dict[LaneSlice, tuple[Epoch, Group | None]] = {}
        self.passed_over: Counter[Lane] = Counter()
        for partition in PARTITIONS[:2]:
            self.own(partition)

    # What comes from outside.

    def own(self, partition: TopicPartition) -> None:
        self.number += 1
        ownership = Ownership(partition, self.number)
        self.epochs[partition] = Epoch(ownership, self.scheduler.own(ownership))

    @rule(partition=st.sampled_from(PARTITIONS), again=st.booleans(), further=st.sampled_from([-100, 0, 2]))
    def close_or_give_away(self, partition: TopicPartition, further: int, *, again: bool) -> None:
        epoch = self.epochs.get(partition)
        if epoch is None:
            self.own(partition)
        elif epoch.ownership.closing:
            epoch.ownership.ended = True
            del self.epochs[partition]
            self.scheduler.disown(partition)
            if again:
                self.own(partition)
        else:
            epoch.ownership.closes_at = max([epoch.highest_done, *epoch.out]) + 1 + further
            epoch.ownership.closing = True
            self.scheduler.wake(partition)

    @precondition(lambda self: self.epochs)
    @rule(
        data=st.data(),
        records=st.lists(
            st.tuples(st.sampled_from([1, 1, 1, 5]), st.sampled_from(KEYS), st.integers(0, 9)), min_size=1
        ),
    )
    def offer(self, data: st.DataObject, records: Sequence[tuple[int, bytes | None, int]]) -> None:
        epoch = self._some_epoch(data)
        partition = epoch.ownership.partition
        messages: list[Message] = []
        for step, key, size in records:
            epoch.next_offset += step
            messages.append(MemoryMessage(partition, epoch.next_offset, key=key, value=b"x" * size))
        self.scheduler.offer(partition, messages, max(map(len, messages)), self.now_s)
        for message in messages:
            epoch.open[message.offset()] = message
            epoch.came_s[message.offset()] = self.now_s
            epoch.lane_of[message.offset()] = next(lane for lane in epoch.lanes.lanes if message in lane.pending)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.5, 1.0, 20.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.epochs)
    @rule(data=st.data(), blocked=st.sampled_from([False, False, True]))
    def block_or_unblock(self, data: st.DataObject, *, blocked: bool) -> None:
        partition = self._some_epoch(data).ownership.partition
        (self.scheduler.block if blocked else self.scheduler.unblock)(partition)

    @precondition(lambda self: self.epochs)
    @rule(data=st.data(), ahead=st.sampled_from([0, 2, NO_LIMIT]))
    def move_the_limit(self, data: st.DataObject, ahead: int) -> None:
        epoch = self._some_epoch(data)
        epoch.limit = min(epoch.open, default=0) + ahead
        self.scheduler.wake(epoch.ownership.partition)

    @precondition(lambda self: self.epochs)
    @rule(data=st.data(), records=st.integers(1, 9))
    def shed(self, data: st.DataObject, records: int) -> None:
        epoch = self._some_epoch(data)
        if epoch.out:
            return
        first = epoch.highest_done + 1
        first_sheddable = max([first, *(offset + 1 for offset in epoch.held)])
        sheddable = [offset for offset in sorted(epoch.open) if offset >= first_sheddable]

        dropped = self.scheduler.shed(epoch.ownership.partition, records, first)

        assert offsets(dropped) == sheddable[-records:]
        for offset in offsets(dropped):
            del epoch.open[offset]
        if dropped:
            epoch.next_offset = dropped[0].offset() - 1
            epoch.has_shed = True

    # What is taken.

    @rule()
    def take_one(self) -> None:
        self._take()

    @rule()
    def take_all(self) -> None:
        while self._take():
            pass

    def _take(self) -> bool:
        runnable = {lane for epoch in self.epochs.values() for lane in epoch.lanes.lanes if self._must_run(epoch, lane)}
        slice_ = self.scheduler.take(self.now_s)
        if slice_ is None:
            assert not runnable or len(self.out) == self.concurrency, "a thread is idle though a lane could run"
            self._check_that_nobody_waits_for_nothing()
            return False
        self._check_turns(slice_, runnable)
        epoch = self.epochs[slice_.ownership.partition]
        group = self._group_of(epoch, slice_)
        if group is None:
            self._check_fresh(epoch, slice_)
        else:
            self._check_retried(slice_, group)
            epoch.groups.remove(group)
            epoch.behind.update(offsets(group.messages[len(slice_.messages) :]))
        self._check_order(epoch, slice_)
        epoch.out.update(offsets(slice_.messages))
        self.out[slice_] = (epoch, group)
        return True

    def _check_that_nobody_waits_for_nothing(self) -> None:
        for partition, epoch in self.epochs.items():
            if epoch.ownership.closing and not self.out and epoch.limit >= epoch.end:
                assert not self.scheduler.unfinished(partition, self.now_s)

    def _must_run(self, epoch: Epoch, lane: Lane) -> bool:
        if epoch.lanes.blocked:
            return False
        if self.ordering is not Ordering.UNORDERED and any(slice_.lane is lane for slice_ in self.out):
            return False
        groups = [group for group in epoch.groups if group.lane is lane]
        if any(group.due_s <= self.now_s and group.messages[0].offset() < epoch.end for group in groups):
            return True
        if groups and self.ordering is Ordering.PARTITION:
            return False
        return self._ready(epoch, self._free(epoch.waiting(lane), groups))

    def _free(self, waiting: list[Message], groups: list[Group]) -> list[Message]:
        if self.ordering is not Ordering.KEY:
            return waiting
        held_keys = {message.key() for group in groups for message in group.messages} - {None}
        return [message for message in waiting if message.key() not in held_keys]

    def _ready(self, epoch: Epoch, waiting: list[Message]) -> bool:
        if not waiting or waiting[0].offset() >= min(epoch.limit, epoch.end):
            return False
        return (
            self.batch is None
            or epoch.ownership.closing
            or len(waiting) >= self.batch.max_records
            or sum(map(len, waiting)) >= self.batch.max_bytes
            or self.now_s >= min(epoch.came_s[one] for one in offsets(waiting)) + self.batch.max_wait_s
        )

    def _check_turns(self, slice_: LaneSlice, runnable: set[Lane]) -> None:
        lanes = sum(len(epoch.lanes.lanes) for epoch in self.epochs.values())
        self.passed_over = Counter({lane: self.passed_over[lane] + 1 for lane in runnable if lane is not slice_.lane})
        assert max(self.passed_over.values(), default=0) <= lanes, "a lane waits for more than a round"

    @staticmethod
    def _group_of(epoch: Epoch, slice_: LaneSlice) -> Group | None:
        return next((group for group in epoch.groups if slice_.messages[0] in group.messages), None)

    def _check_fresh(self, epoch: Epoch, slice_: LaneSlice) -> None:
        assert len(slice_.messages) <= (self.batch.max_records if self.batch else self.scheduler.sizer.records)
        assert max(offsets(slice_.messages)) < min(epoch.limit, epoch.end)
        if self.batch is not None:
            assert len(slice_.messages) == 1 or sum(map(len, slice_.messages)) <= self.batch.max_bytes
            assert self._may_be_cut(self.batch, epoch, epoch.waiting(slice_.lane), slice_.messages[0])

    def _may_be_cut(self, batch: Batch, epoch: Epoch, waiting: Sequence[Message], first: Message) -> bool:
        return (
            epoch.ownership.closing
            or epoch.has_shed
            or first.offset() in epoch.came_back
            or len(waiting) >= batch.max_records
            or sum(map(len, waiting)) >= batch.max_bytes
            or self.now_s >= epoch.came_s[first.offset()] + batch.max_wait_s
        )

    def _check_retried(self, slice_: LaneSlice, group: Group) -> None:
        assert group.due_s <= self.now_s
        assert slice_.messages == (group.messages[: group.parts[0]] if group.parts else group.messages)

    def _check_order(self, epoch: Epoch, slice_: LaneSlice) -> None:
        assert not epoch.lanes.blocked
        assert slice_.messages[0].offset() < epoch.end
        assert slice_.attempt == 1 + epoch.calls[slice_.messages[0].offset()]
        assert slice_.ownership is epoch.ownership
        assert slice_.messages, "an empty slice"
        earlier = set(epoch.open)
        for message in slice_.messages:
            assert message.offset() in earlier - epoch.out, "it is done, with a handler or in this slice already"
            earlier.remove(message.offset())
            for offset in earlier:
                if offset < message.offset():
                    assert not self._ordered(epoch.open[offset], message), f"{message.offset()} overtakes {offset}"

    def _ordered(self, one: Message, other: Message) -> bool:
        if self.ordering is Ordering.KEY:
            return one.key() is not None and one.key() == other.key()
        return self.ordering is Ordering.PARTITION

    # How slices come back.

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def all_of_it_is_done(self, data: st.DataObject) -> None:
        slice_ = self._some_slice(data)
        self.scheduler.sizer.measured(len(slice_.messages), 0.0)
        self._finish(slice_, len(slice_.messages))

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def some_of_it_was_not_tried(self, data: st.DataObject) -> None:
        slice_ = self._some_slice(data)
        self._finish(slice_, data.draw(st.integers(0, len(slice_.messages))))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), delay_s=st.sampled_from([0.0, 0.5, 3.0, inf]))
    def one_of_it_failed(self, data: st.DataObject, delay_s: float) -> None:
        slice_ = self._some_slice(data)
        index = data.draw(st.integers(0, len(slice_.messages) - 1))
        self._hold(slice_, index, index + 1, delay_s, split=False)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), delay_s=st.sampled_from([0.0, 0.5, 3.0, inf]), split=st.booleans())
    def it_failed_as_a_whole(self, data: st.DataObject, delay_s: float, *, split: bool) -> None:
        slice_ = self._some_slice(data)
        self._hold(slice_, 0, len(slice_.messages), delay_s, split=split)

    def _finish(self, slice_: LaneSlice, done: int) -> None:
        epoch, group, remaining = self._take_back(slice_, done)
        if slice_.ownership.ended:
            self.scheduler.forget()
            return
        rest = slice_.messages[done:]
        self.scheduler.finish(slice_, rest)
        if group is None or not group.parts:
            self._forget_calls(epoch, rest)
            return
        remaining = [*rest, *remaining]
        if remaining:
            epoch.groups.append(Group(slice_.lane, remaining, 0.0, _sizes(len(rest), *group.parts[1:])))

    def _hold(self, slice_: LaneSlice, first: int, end: int, delay_s: float, *, split: bool) -> None:
        epoch, group, remaining = self._take_back(slice_, first)
        if slice_.ownership.ended:
            self.scheduler.forget()
            return
        failed, rest, due_s = slice_.messages[first:end], slice_.messages[end:], self.now_s + delay_s
        held = self.scheduler.hold(slice_, failed, rest, attempt=slice_.attempt, due_s=due_s, split=split)
        for offset in offsets(failed):
            epoch.calls[offset] = slice_.attempt
        halves = (len(failed) // 2, len(failed) - len(failed) // 2) if split else (len(failed),)
        if group is not None and group.parts:
            parts = _sizes(*halves, len(rest), *group.parts[1:])
            epoch.groups.append(Group(slice_.lane, [*failed, *rest, *remaining], due_s, parts, held))
            return
        self._forget_calls(epoch, rest)
        epoch.groups.append(Group(slice_.lane, list(failed), due_s, _sizes(*halves) if split else (), held))

    @precondition(lambda self: self._without_end())
    @rule(data=st.data())
    def what_waits_without_end_is_released(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(self._without_end()))
        assert group.held is not None

        self.scheduler.release(group.lane, group.held, self.now_s)

        group.due_s = self.now_s

    def _without_end(self) -> list[Group]:
        return [group for epoch in self.epochs.values() for group in epoch.groups if group.due_s == inf]

    @staticmethod
    def _forget_calls(epoch: Epoch, untried: Sequence[Message]) -> None:
        for offset in offsets(untried):
            epoch.calls[offset] = 0
            epoch.came_back.add(offset)

    def _take_back(self, slice_: LaneSlice, done: int) -> tuple[Epoch, Group | None, Sequence[Message]]:
        """Whence it came, and the records of a group that goes in parts that have not had their turn."""
        epoch, group = self.out.pop(slice_)
        epoch.out.difference_update(offsets(slice_.messages))
        for offset in offsets(slice_.messages[:done]):
            del epoch.open[offset]
            epoch.highest_done = max(epoch.highest_done, offset)
        remaining = [] if group is None else group.messages[len(slice_.messages) :]
        epoch.behind.difference_update(offsets(remaining))
        return epoch, group, remaining

    # What always holds.

    @invariant()
    def no_more_slices_are_out_than_there_are_threads(self) -> None:
        assert self.scheduler.out == len(self.out) <= self.concurrency
        assert self.scheduler.idle == (len(self.out) < self.concurrency)

    @invariant()
    def one_slice_of_a_lane_is_out(self) -> None:
        lanes = Counter(slice_.lane for slice_ in self.out)

        assert self.ordering is Ordering.UNORDERED or max(lanes.values(), default=0) <= 1

    @invariant()
    def nothing_is_lost(self) -> None:
        for epoch in self.epochs.values():
            behind_retries = sum(slice_.held_records for slice_, (of, _) in self.out.items() if of is epoch)
            assert epoch.lanes.records + behind_retries == len(epoch.open) - len(epoch.out)

    @invariant()
    def what_waits_for_a_retry_is_counted_as_held(self) -> None:
        for epoch in self.epochs.values():
            waiting = sum(len(group.messages) for group in epoch.groups)
            assert waiting <= epoch.lanes.held_records <= epoch.lanes.records

    @invariant()
    def something_is_due_when_a_retry_waits(self) -> None:
        for epoch in self.epochs.values():
            for group in epoch.groups:
                due_s = self.scheduler.next_due_s()
                due = due_s is not None and due_s <= group.due_s
                assert group.due_s <= self.now_s or group.due_s == inf or due

    @invariant()
    def what_waits_without_end_is_counted_apart(self) -> None:
        for epoch in self.epochs.values():
            held = [group.held for group in epoch.groups if group.due_s == inf and group.held is not None]
            assert epoch.lanes.waiting == sum(len(one.messages) + len(one.followers) for one in held)

    def _some_epoch(self, data: st.DataObject) -> Epoch:
        return self.epochs[data.draw(st.sampled_from(sorted(self.epochs)))]

    def _some_slice(self, data: st.DataObject) -> LaneSlice:
        return data.draw(st.sampled_from(list(self.out)))


def offsets(messages: Sequence[Message]) -> list[int]:
    return [message.offset() for message in messages]


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150 * SOAK, stateful_step_count=50)


class OnePartition:
    """A scheduler with one partition, whose records are handed over in batches."""

    def __init__(self, batch: Batch, ordering: Ordering = Ordering.PARTITION) -> None:
        self.partition = PARTITIONS[0]
        self.scheduler = Scheduler(
            handler_number=0,
            ordering=ordering,
            concurrency=1,
            lanes=2,
            batch=batch,
            flow=FlowConfig(),
            limit=lambda _partition: NO_LIMIT,
            attempts=lambda _: {},
        )
        self.scheduler.own(Ownership(self.partition, 1))

    def offer(self, first: int, count: int, now_s: float = 0.0, key: bytes | None = None) -> None:
        messages = [MemoryMessage(self.partition, first + number, key=key) for number in range(count)]
        self.scheduler.offer(self.partition, messages, max(map(len, messages)), now_s)

    def take(self, now_s: float = 0.0) -> LaneSlice:
        slice_ = self.scheduler.take(now_s)
        assert slice_ is not None
        return slice_


def test_a_record_that_comes_back_untried_goes_before_those_of_its_batch_that_wait_for_their_turn() -> None:
    lane = OnePartition(Batch(max_wait_s=0.0))
    lane.offer(0, 3)
    batch = lane.take()
    lane.scheduler.hold(batch, batch.messages, [], attempt=1, due_s=0.0, split=True)
    first = lane.take()

    lane.scheduler.finish(first, first.messages)

    assert offsets(lane.take().messages) == [0]


def test_a_record_that_waits_for_its_turn_spends_no_attempt_on_the_one_before_it() -> None:
    lane = OnePartition(Batch(max_wait_s=0.0))
    lane.offer(0, 2)
    batch = lane.take()
    lane.scheduler.hold(batch, batch.messages, [], attempt=1, due_s=0.0, split=True)

    for attempt in (2, 3):
        first = lane.take()
        lane.scheduler.hold(first, first.messages, [], attempt=attempt, due_s=0.0)
    lane.scheduler.finish(lane.take())

    second = lane.take()
    assert offsets(second.messages) == [1]
    assert second.attempt == 2


def test_a_batch_waits_for_more_since_its_own_oldest_record_came() -> None:
    lane = OnePartition(Batch(max_records=2, max_wait_s=1.0))
    lane.offer(0, 1, now_s=0.0)
    lane.offer(1, 2, now_s=0.9)
    lane.scheduler.finish(lane.take(now_s=0.9))

    assert lane.scheduler.take(now_s=1.1) is None
    assert offsets(lane.take(now_s=1.9).messages) == [2]


def test_records_of_a_partition_that_was_given_away_are_forgotten_and_its_slice_frees_a_thread() -> None:
    lane = OnePartition(Batch(max_records=1))
    lane.offer(0, 5)
    lane.take()

    lane.scheduler.disown(lane.partition)
    lane.scheduler.own(Ownership(lane.partition, 2))
    lane.offer(0, 1)

    assert lane.scheduler.take(9.0) is None
    lane.scheduler.forget()
    assert lane.take(9.0).ownership.epoch == 2


def test_a_retry_below_the_end_of_a_closing_partition_goes_past_one_beyond_it_that_was_due_earlier() -> None:
    partition = OnePartition(Batch(max_records=1), Ordering.UNORDERED)
    partition.offer(0, 3)
    for due_s in (5.0, None, 3.0):
        slice_ = partition.take()
        if due_s is None:
            partition.scheduler.finish(slice_)
        else:
            partition.scheduler.hold(slice_, slice_.messages, [], attempt=1, due_s=due_s)

    slice_.ownership.closes_at, slice_.ownership.closing = 2, True

    assert partition.scheduler.unfinished(partition.partition, 9.0)
    assert offsets(partition.take(9.0).messages) == [0]


def test_what_waits_without_end_keeps_its_partition_until_it_is_released() -> None:
    lane = OnePartition(Batch(max_records=1, max_wait_s=0.0))
    lane.offer(0, 2)
    first = lane.take()
    held = lane.scheduler.hold(first, first.messages, [], attempt=0, due_s=inf)

    assert lane.scheduler.take(1000.0) is None
    lane.scheduler.release(first.lane, held, 1000.0)
    assert offsets(lane.take(1000.0).messages) == [0]


def test_what_waits_without_end_is_not_shed_and_counts_what_follows_it() -> None:
    lane = OnePartition(Batch(max_records=1, max_wait_s=0.0), Ordering.KEY)
    lane.offer(0, 3, key=b"k")
    first = lane.take()
    lane.scheduler.hold(first, first.messages, [], attempt=0, due_s=inf)
    assert lane.scheduler.take(1000.0) is None
    before = first.lane.of.waiting

    dropped = lane.scheduler.shed(lane.partition, 9, 0)

    assert before == 3
    assert offsets(dropped) == [1, 2]
    assert first.lane.of.waiting == first.lane.of.held_records == 1
