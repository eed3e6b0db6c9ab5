"""Which records are handed over next: lanes, their order, and records that wait for another try.

Rules. A *lane* is an order domain of one partition: the partition itself (PARTITION, UNORDERED) or
one of `lanes` shares of its keys (KEY). One slice of a lane is out at a time, except when UNORDERED. A
record that must be tried again is *held*: with PARTITION the lane waits for it, with KEY only records of
its key do (they follow it when it is done), with UNORDERED nobody. Partitions take turns, and in each of them
its lanes, so each lane that has something to do runs within one round, and a partition with many such lanes does not
hold up one with few. No slice is cut beyond the partition's limit.

Pure; the loop thread owns a scheduler per handler.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from streamworker.config import Ordering
from streamworker.scheduling.parts import Part, Parts
from streamworker.scheduling.slices import SliceSizer
from streamworker.work import Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.config import Batch, FlowConfig
    from streamworker.record import Message, TopicPartition
    from streamworker.work import Ownership


@dataclass(frozen=True, slots=True)
class Spared:
    """Failed calls that spent no attempt: `calls`, of these `lately` since the breaker closed `closings` times."""

    calls: int = 0
    lately: int = 0
    closings: int = 0

    def and_one(self, closings: int) -> Spared:
        """One more, while the breaker has closed `closings` times."""
        lately = self.lately if closings == self.closings else 0
        return Spared(self.calls + 1, lately + 1, closings)


class Held:
    """Records that wait until `due_s` for their next try; `attempt` calls were spent on the first of them.

    They go together, or in `parts` after a batch failed as a whole too often and is taken apart. `spared` calls failed
    that spent no attempt, because a dependency was away; `charges` counts those after which another record's call
    succeeded. `turn` is its place among all that wait for the dependency, 0 without. With an infinite `due_s` they wait
    until `Scheduler.release`.
    """

    __slots__ = (
        "attempt",
        "charges",
        "due_s",
        "followers",
        "messages",
        "parts",
        "spared",
        "turn",
    )

    def __init__(self, messages: Sequence[Message], *, attempt: int, due_s: float, parts: Parts | None = None) -> None:
        self.messages = messages
        self.spared = Spared()
        self.charges = self.turn = 0
        self.attempt = attempt
        self.due_s = due_s
        self.parts = parts
        self.followers: list[Message] = []  # later records of the same keys

    @property
    def next(self) -> Sequence[Message]:
        """Those that go next."""
        return self.messages if self.parts is None else self.messages[: self.parts.next.records]


class Lane:
    """Records of one order domain that were delivered and are not in a handler's hands."""

    __slots__ = ("arrivals", "held", "held_keys", "of", "out", "pending", "queued", "timer_s", "waiting")

    def __init__(self, of: PartitionLanes) -> None:
        self.of = of
        self.pending: list[Message] = []
        self.held: list[Held] = []
        self.waiting: set[Held] = set()  # held without end: apart, because there may be many
        self.held_keys: dict[bytes, Held] = {}  # KEY only
        self.out = 0  # slices in a handler's hands
        self.queued = False  # among the lanes of its partition that take turns
        self.arrivals: deque[tuple[int, float]] = deque()  # batches only: (first offset, when it came)
        self.timer_s: float | None = None  # the timer that was set last and has not gone off

    def oldest_s(self) -> float:
        """When the first of `pending` came; long ago for one that was handed over before."""
        first, arrivals = self.pending[0].offset(), self.arrivals
        while len(arrivals) > 1 and arrivals[1][0] <= first:
            arrivals.popleft()
        return arrivals[0][1] if arrivals and arrivals[0][0] <= first else 0.0

    @property
    def records(self) -> int:
        """Records that wait here."""
        return len(self.pending) + self.parked

    @property
    def parked(self) -> int:
        """Records that wait for a retry, their own or the one before them."""
        return sum(len(held.messages) + len(held.followers) for held in (*self.held, *self.waiting))


class LaneSlice(Slice):
    """A slice that remembers where it was cut."""

    __slots__ = ("held", "lane")

    def __init__(
        self, handler: int, lane: Lane, messages: Sequence[Message], held: Held | None, *, attempt: int
    ) -> None:
        super().__init__(handler, lane.of.ownership, messages, attempt)
        self.lane = lane
        self.held = held
        self.largest_bytes = lane.of.largest_bytes

    def seen_at(self, index: int, *, batch: bool) -> LaneSlice:
        """It as it stands while the record at `index`, or its batch, is with the handler: nobody moves the copy on."""
        seen = LaneSlice(self.handler, self.lane, self.messages, self.held, attempt=self.attempt)
        seen.done, seen.settled = index, self.settled
        seen.rejected = [one for one in tuple(self.rejected) if batch or one[0] < index]
        return seen

    @property
    def parked(self) -> int:
        """Records that wait behind it for its return."""
        held = self.held
        return 0 if held is None else len(held.messages) - len(self.messages) + len(held.followers)

    @property
    def highest(self) -> int:
        """The highest offset among its records and those that wait behind them for its return."""
        with_it = [self.messages, *([self.held.messages, self.held.followers] if self.held else [])]
        return max(message.offset() for messages in with_it for message in messages)


class KeyPace(Protocol):
    """How fast records of each key may go."""

    def wait_s(self, key: bytes, now_s: float) -> float:
        """After how long a record of `key` may go."""

    def spend(self, key: bytes, now_s: float) -> None:
        """One record of `key` goes."""

    def parked(self, seconds: float) -> None:
        """A record has to wait for its key's turn."""


class PartitionLanes:
    """The lanes of one partition, for one epoch."""

    __slots__ = ("blocked", "lanes", "largest_bytes", "ownership", "turns", "waiting")

    def __init__(self, ownership: Ownership, count: int) -> None:
        self.ownership = ownership
        self.lanes = [Lane(self) for _ in range(count)]
        self.turns: deque[Lane] = deque()  # lanes that may have something to do
        self.largest_bytes = 0  # of all values offered: spares most looks at single ones
        self.waiting = 0  # records that are held without end
        self.blocked = False  # nothing is cut while the partition is stopped or held back

    @property
    def end(self) -> float:
        """The offset from which nothing is handed over any more; infinite until the ownership closes."""
        return self.ownership.closes_at if self.ownership.closing else inf

    @property
    def records(self) -> int:
        """Records that wait, in all lanes."""
        return sum(lane.records for lane in self.lanes)

    @property
    def parked(self) -> int:
        """Records that wait for a retry, in all lanes."""
        return sum(lane.parked for lane in self.lanes)


class Scheduler:
    """Cuts slices for one handler.

    `limit` tells from which offset on records of a partition must wait until more is committed; `attempts`, by offset,
    how many calls were spent on records that are not done. With `watched` each call's beginning is noted.
    `retry_wait_s`, given a number of calls and the time, tells whether they may be made again now (0), or how long to
    wait before asking again; `key_pace` how fast records of a key may go, and only with KEY. `sift` ends those of
    some records that are not to be handed over and returns the others, None where all are.
    """

    def __init__(
        self,
        *,
        handler: int,
        ordering: Ordering,
        concurrency: int,
        lanes: int,
        batch: Batch | None,
        flow: FlowConfig,
        limit: Callable[[TopicPartition], int],
        attempts: Callable[[TopicPartition], Mapping[int, int]],
        watched: bool = False,
        retry_wait_s: Callable[[int, float], float] | None = None,
        key_pace: KeyPace | None = None,
        sift: Callable[[TopicPartition, Sequence[Message]], Sequence[Message]] | None = None,
    ) -> None:
        self._handler = handler
        self._ordering = ordering
        self._concurrency = concurrency
        self._lane_count = lanes if ordering is Ordering.KEY else 1
        self._batch = batch
        self._limit = limit
        self._attempts = attempts
        self._watched = watched
        self._retry_wait_s = retry_wait_s
        self._key_pace = key_pace
        self._now_s = 0.0  # when a slice was asked for last
        self._sift = sift
        self._partitions: dict[TopicPartition, PartitionLanes] = {}
        self._turns: deque[PartitionLanes] = deque()  # those that have a lane in turn
        self._timers: list[tuple[float, int, Lane]] = []
        self._timer_number = 0
        self._out = 0
        self.sizer = SliceSizer(slice_s=flow.slice_s, max_records=flow.max_slice)

    @property
    def out(self) -> int:
        """Slices in the handler's hands."""
        return self._out

    @property
    def idle(self) -> bool:
        """Whether a slice could be taken by a thread that has nothing to do."""
        return self._out < self._concurrency

    @property
    def presses(self) -> bool:
        """Whether more slices could be out if more were allowed."""
        return not self.idle and any(
            lane.pending and not (lane.out and self._ordering is not Ordering.UNORDERED)
            for of in self._turns
            for lane in of.turns
        )

    def allow(self, slices: int) -> None:
        """Let at most so many be out from now on."""
        self._concurrency = slices

    @property
    def ready(self) -> bool:
        """Whether some lane takes its turn and a thread has nothing to do."""
        return bool(self._turns) and self.idle

    @property
    def fresh(self) -> int:
        """Records that could go for the first time, of all partitions."""
        lanes = [lane for of in self._partitions.values() for lane in of.lanes]
        waits = self._ordering is Ordering.PARTITION
        return sum(len(lane.pending) for lane in lanes if not (waits and (_holds(lane) or lane.out)))

    def own(self, ownership: Ownership) -> PartitionLanes:
        """Make the lanes of a new epoch."""
        lanes = self._partitions[ownership.partition] = PartitionLanes(ownership, self._lane_count)
        return lanes

    def disown(self, partition: TopicPartition) -> None:
        """Drop what waits; slices that are out come back later and find their epoch ended."""
        lanes = self._partitions.pop(partition, None)
        if lanes is not None:
            self._turns = deque(of for of in self._turns if of is not lanes)
            self._timers = [timer for timer in self._timers if timer[2].of is not lanes]
            heapq.heapify(self._timers)

    def offer(self, partition: TopicPartition, messages: Sequence[Message], largest_bytes: int, now_s: float) -> None:
        """Take delivered records, in offset order, none of which has a value of more than `largest_bytes`."""
        of = self._partitions[partition]
        of.largest_bytes = max(of.largest_bytes, largest_bytes)
        lanes = of.lanes
        if self._lane_count == 1:
            self._append(lanes[0], messages, now_s)
            return
        count = self._lane_count
        shares: list[list[Message]] = [[] for _ in range(count)]
        for message in messages:
            key = message.key()
            shares[(crc32(key) if key is not None else _lane_of_null_key(message)) % count].append(message)
        for lane, share in zip(lanes, shares, strict=True):
            if share:
                self._append(lane, share, now_s)

    def take(self, now_s: float, most: int | None = None) -> LaneSlice | None:
        """The next slice, None when no lane has one or every thread is busy.

        Of records that go for the first time it holds at most `most`.
        """
        self._now_s = now_s
        while self._timers and self._timers[0][0] <= now_s:
            lane = heapq.heappop(self._timers)[2]
            lane.timer_s = None
            self._enqueue(lane)
        while self._turns and self._out < self._concurrency:
            lane = self._next_in_turns()
            slice_ = self._cut(lane, now_s, most)
            if slice_ is not None:
                slice_.watched = self._watched or self.sizer.slow
                lane.out += 1
                self._out += 1
                if self._ordering is Ordering.UNORDERED:
                    self._enqueue(lane)
                return slice_
        return None

    def finish(self, slice_: LaneSlice, rest: Sequence[Message] = (), *, found: bool = False) -> None:
        """The slice is back; `rest` of it was not tried and goes first again.

        With `found`, a record of it failed alone and was given up.
        """
        held = slice_.held
        if held is None or held.parts is None:
            if self._key_pace is not None and held is not None and not rest and len(held.messages) == 1:
                self._next_in_turn(slice_.lane, held, self._key_pace)
            self._take_back(slice_, rest)
            return
        remaining = [*rest, *self._take_back(slice_, ())]
        if remaining:
            parts = held.parts.back(len(rest))
            self._keep_parts(slice_.lane, remaining, parts.found_one() if found else parts, due_s=0.0)

    def _next_in_turn(self, lane: Lane, held: Held, pace: KeyPace) -> None:
        """The first of those that followed a record is held in its place: of a hot key there may be many."""
        if held.followers:
            first, *others = held.followers
            held.followers = []
            spent = self._attempts(lane.of.ownership.partition).get(first.offset(), 0)
            wait_s = sum(pace.wait_s(key, self._now_s) for key in _keys([first]))
            again = Held([first], attempt=spent, due_s=self._now_s + wait_s)
            again.followers = others
            self._keep(lane, again)
            pace.parked(wait_s)

    def put_back(self, slice_: LaneSlice, rest: Sequence[Message]) -> None:
        """The slice is back, and a thread did not start with `rest` of it: no attempt is spent, and none forgotten."""
        held = slice_.held
        if held is None or held.parts is not None:
            self.finish(slice_, rest)
            return
        again = self.hold(slice_, rest, (), attempt=held.attempt, due_s=held.due_s)
        again.spared, again.charges = held.spared, held.charges

    def hold(
        self,
        slice_: LaneSlice,
        failed: Sequence[Message],
        rest: Sequence[Message],
        *,
        attempt: int,
        due_s: float,
        split: bool = False,
    ) -> Held:
        """The slice is back; `failed` of it waits for another try until `due_s`; returns how it is kept.

        `attempt` calls were spent on it. With `split` it goes in halves then.
        """
        before = None if slice_.held is None else slice_.held.parts
        if before is None and not split:
            self._take_back(slice_, rest)
            held = Held(failed, attempt=attempt, due_s=due_s)
            self._keep(slice_.lane, held)
            return held
        if before is None:
            self._take_back(slice_, rest)
            parts, messages = Parts(Part(len(failed), attempt).halves()), list(failed)
        else:
            parts = before.failed(len(failed), len(rest), attempt, split=split)
            messages = [*failed, *rest, *self._take_back(slice_, ())]
        return self._keep_parts(slice_.lane, messages, parts, due_s=due_s)

    def release(self, lane: Lane, held: Held, now_s: float) -> None:
        """What was held without end goes now. Its ownership lasts."""
        lane.waiting.remove(held)
        lane.of.waiting -= len(held.messages) + len(held.followers)
        held.due_s = now_s
        lane.held.append(held)
        self._set_timer(lane, now_s)

    def calls_spent(self, partition: TopicPartition, offset: int) -> int | None:
        """How many calls failed of the record at `offset`, if it waits for another; else None."""
        found = self._held_first(partition, offset)
        return None if found is None else found[1].attempt + found[1].spared.calls

    def withdraw(self, partition: TopicPartition, offset: int) -> Message | None:
        """Take the record at `offset` out, if it waits for another try; what waited behind it goes on.

        One that waits for its first, because of its key's pace, stays.
        """
        found = self._held_first(partition, offset)
        if found is None or not found[1].attempt + found[1].spared.calls:
            return None
        lane, held = found
        lane.held.remove(held)
        self._free_keys(lane, held)
        message, *rest = held.messages
        if rest and held.parts is not None:
            parts = held.parts.back(held.parts.next.records - 1)
            self._keep_parts(lane, rest, parts, due_s=held.due_s)
        elif rest:
            again = Held(rest, attempt=held.attempt, due_s=held.due_s)
            again.spared, again.charges = held.spared, held.charges
            self._keep(lane, again)
        lane.pending = sorted(held.followers + lane.pending, key=_offset)
        self._enqueue(lane)
        return message

    def _held_first(self, partition: TopicPartition, offset: int) -> tuple[Lane, Held] | None:
        for lane in self._partitions[partition].lanes:
            for held in lane.held:
                if held.messages[0].offset() == offset:
                    return lane, held
        return None

    def forget(self) -> None:
        """A slice is back whose epoch has ended."""
        self._out -= 1

    def shed(self, partition: TopicPartition, records: int, first: int) -> Sequence[Message]:
        """Drop the last `records` that wait, or fewer: none below `first`, nor below one that is held.

        Returns them in offset order; all that was delivered from the first of them on is among them.
        """
        lanes = self._partitions[partition].lanes
        held = [held for lane in lanes for held in (*lane.held, *lane.waiting)]
        first = max([first, *(message.offset() + 1 for one in held for message in one.messages)])
        waiting = [lane.pending for lane in lanes] + [one.followers for one in held]
        dropped = sorted((m for messages in waiting for m in messages if m.offset() >= first), key=_offset)[-records:]
        if dropped:
            cut = dropped[0].offset()
            for messages in waiting:
                messages[:] = [message for message in messages if message.offset() < cut]
            of = self._partitions[partition]
            of.waiting = sum(len(one.messages) + len(one.followers) for lane in lanes for one in lane.waiting)
        return dropped

    def block(self, partition: TopicPartition) -> None:
        """Cut nothing more of `partition`."""
        self._partitions[partition].blocked = True

    def unblock(self, partition: TopicPartition) -> None:
        """Go on with `partition`."""
        self._partitions[partition].blocked = False
        self.wake(partition)

    def wake(self, partition: TopicPartition) -> None:
        """The limit of `partition` may have moved."""
        for lane in self._partitions[partition].lanes:
            self._enqueue(lane)

    def unfinished(self, partition: TopicPartition, until_s: float) -> bool:
        """Whether a closing `partition` still has records below its end that can go on before `until_s`."""
        lanes = self._partitions[partition]
        return not lanes.blocked and any(self._has_any_below(lane, lanes.end, until_s) for lane in lanes.lanes)

    def _has_any_below(self, lane: Lane, end: float, until_s: float) -> bool:
        if any(held.due_s <= until_s and held.messages[0].offset() < end for held in lane.held):
            return True
        waits = _holds(lane) and self._ordering is Ordering.PARTITION
        return bool(lane.pending) and lane.pending[0].offset() < end and not waits

    def next_due_s(self) -> float | None:
        """Monotonic time of the next retry or full wait for a batch; None without."""
        return self._timers[0][0] if self._timers else None

    def _append(self, lane: Lane, messages: Sequence[Message], now_s: float) -> None:
        if self._batch is not None:
            lane.arrivals.append((messages[0].offset(), now_s))
        lane.pending.extend(messages)
        self._enqueue(lane)

    def _enqueue(self, lane: Lane) -> None:
        if not lane.queued:
            lane.queued = True
            of = lane.of
            if not of.turns:
                self._turns.append(of)
            of.turns.append(lane)

    def _next_in_turns(self) -> Lane:
        of = self._turns.popleft()
        lane = of.turns.popleft()
        lane.queued = False
        if of.turns:
            self._turns.append(of)
        return lane

    def _set_timer(self, lane: Lane, due_s: float) -> None:
        if lane.timer_s != due_s:
            lane.timer_s = due_s
            self._timer_number += 1
            heapq.heappush(self._timers, (due_s, self._timer_number, lane))

    def _cut(self, lane: Lane, now_s: float, most: int | None) -> LaneSlice | None:
        if lane.of.blocked:
            return None
        if lane.out and self._ordering is not Ordering.UNORDERED:
            return None
        if lane.held:
            allowed = [held for held in lane.held if held.messages[0].offset() < lane.of.end]
            held = min(allowed, key=_due, default=None)
            if held is not None and held.due_s <= now_s and not self._postpones(lane, held, now_s):
                return self._cut_held(lane, held, now_s)
            if self._ordering is Ordering.PARTITION:
                return None
        if lane.waiting and self._ordering is Ordering.PARTITION:
            return None
        return self._cut_pending(lane, now_s, most)

    def _postpones(self, lane: Lane, held: Held, now_s: float) -> bool:
        """Whether its key's pace, or the number of retries, forbids to make this call now; then it is due later."""
        wait_s = 0.0
        if self._key_pace is not None:
            wait_s = max((self._key_pace.wait_s(key, now_s) for key in _keys(held.next)), default=0.0)
        if wait_s:
            self._enqueue(lane)  # others may go meanwhile
        elif held.attempt and self._retry_wait_s is not None:
            wait_s = self._retry_wait_s(1 if self._batch is not None else len(held.messages), now_s)
        if wait_s:
            held.due_s = now_s + wait_s
            self._set_timer(lane, held.due_s)
        return wait_s > 0

    def _cut_held(self, lane: Lane, held: Held, now_s: float) -> LaneSlice | None:
        lane.held.remove(held)
        if self._sift is not None and not self._stays(lane, held, self._sift):
            return None
        messages = held.next
        if self._key_pace is not None:
            for key in _keys(messages):
                self._key_pace.spend(key, now_s)
        return LaneSlice(self._handler, lane, messages, held, attempt=held.attempt + 1)

    def _stays(
        self, lane: Lane, held: Held, sift: Callable[[TopicPartition, Sequence[Message]], Sequence[Message]]
    ) -> bool:
        """Whether something of `held` is left to be handed over; what waited behind the rest goes on."""
        left = sift(lane.of.ownership.partition, held.messages)
        if len(left) == len(held.messages):
            return True
        self._free_keys(lane, held)
        if left and held.parts is not None:
            stay = set(map(id, left))
            held.parts = held.parts.without([id(message) not in stay for message in held.messages])
            held.attempt = held.parts.next.attempt
        held.messages = left
        self._hold_keys(lane, held)
        lane.pending = sorted(held.followers + lane.pending, key=_offset)
        held.followers = []
        self._enqueue(lane)
        return bool(left)

    def _cut_pending(self, lane: Lane, now_s: float, most: int | None) -> LaneSlice | None:
        batch = self._batch
        if not lane.pending or (batch is not None and self._waits_for_more(lane, batch, now_s)):
            return None
        messages = self._next_of(lane, self._size() if most is None else min(self._size(), most))
        fitting = self._below_limit(lane, messages)
        if batch is not None and len(fitting) * lane.of.largest_bytes > batch.max_bytes:
            fitting = _within_bytes(fitting, batch.max_bytes)
        attempts = self._attempts(lane.of.ownership.partition)
        if attempts:
            fitting = _with_equal_attempts(fitting, attempts)
        if len(fitting) < len(messages):
            lane.pending[:0] = messages[len(fitting) :]
        if self._sift is not None and fitting:
            fitting = self._sift(lane.of.ownership.partition, fitting)
            if not fitting:
                self._enqueue(lane)
        if self._key_pace is not None:
            fitting = self._at_pace(lane, fitting, attempts, now_s, self._key_pace)
        if not fitting:
            return None
        spent = attempts.get(fitting[0].offset(), 0) if attempts else 0
        return LaneSlice(self._handler, lane, fitting, None, attempt=spent + 1)

    def _next_of(self, lane: Lane, size: int) -> list[Message]:
        """Take the next `size` records out of `pending`, past those whose key is held."""
        if lane.held_keys:
            return self._next_around_held_keys(lane, size)
        messages = lane.pending[:size]
        del lane.pending[: len(messages)]
        return messages

    def _below_limit(self, lane: Lane, messages: list[Message]) -> Sequence[Message]:
        limit = min(self._limit(lane.of.ownership.partition), lane.of.end)
        if not messages or max(messages[0].offset(), messages[-1].offset()) < limit:
            return messages
        return list(takewhile(lambda message: message.offset() < limit, messages))

    def _at_pace(
        self, lane: Lane, messages: Sequence[Message], attempts: Mapping[int, int], now_s: float, pace: KeyPace
    ) -> Sequence[Message]:
        """Those that may go now; of keys that may not, the first is held and the others follow it.

        Nothing behind the first record that has to wait for one of the same key among those that go is taken.
        """
        taken: list[Message] = []
        keys: set[bytes] = set()
        for index, message in enumerate(messages):
            key = message.key()
            held = None if key is None else lane.held_keys.get(key)
            wait_s = 0.0 if key is None or held is not None else pace.wait_s(key, now_s)
            if held is not None:
                held.followers.append(message)
                lane.of.waiting += held.due_s == inf
            elif not wait_s:
                taken.append(message)
                if key is not None:
                    keys.add(key)
                    pace.spend(key, now_s)
            elif key in keys:
                lane.pending[:0] = messages[index:]
                return taken
            else:
                spent = attempts.get(message.offset(), 0)
                self._keep(lane, Held([message], attempt=spent, due_s=now_s + wait_s))
                pace.parked(wait_s)
        if len(taken) < len(messages):
            self._enqueue(lane)
        return taken

    def _size(self) -> int:
        return self.sizer.records if self._batch is None else self._batch.max_records

    def _waits_for_more(self, lane: Lane, batch: Batch, now_s: float) -> bool:
        full_s = lane.oldest_s() + batch.max_wait_s
        if len(lane.pending) >= batch.max_records or now_s >= full_s or lane.of.ownership.closing:
            return False
        could_be_full = len(lane.pending) * lane.of.largest_bytes >= batch.max_bytes
        if could_be_full and sum(map(len, lane.pending)) >= batch.max_bytes:
            return False
        self._set_timer(lane, full_s)
        return True

    @staticmethod
    def _next_around_held_keys(lane: Lane, size: int) -> list[Message]:
        taken: list[Message] = []
        seen = 0
        for message in lane.pending:
            seen += 1
            key = message.key()
            held = None if key is None else lane.held_keys.get(key)
            if held is not None:
                held.followers.append(message)
                lane.of.waiting += held.due_s == inf
                continue
            taken.append(message)
            if len(taken) == size:
                break
        del lane.pending[:seen]
        return taken

    def _take_back(self, slice_: LaneSlice, rest: Sequence[Message]) -> Sequence[Message]:
        """Put what follows a tried slice back in its place: its own rest, and what waited behind it.

        Returns the records of a group that goes in parts and of which they have not had their turn.
        """
        lane, held = slice_.lane, slice_.held
        self._out -= 1
        lane.out -= 1
        front = list(rest)
        remaining: Sequence[Message] = ()
        if held is not None:
            self._free_keys(lane, held)
            front += held.followers
            remaining = held.messages[len(slice_.messages) :]
        if held is None and front and lane.pending and front[-1].offset() < lane.pending[0].offset():
            lane.pending[:0] = front  # as it nearly always is: sorting would look at all that waits
        elif front:
            lane.pending = sorted(front + lane.pending, key=_offset)
        self._enqueue(lane)
        return remaining

    def _keep_parts(self, lane: Lane, messages: Sequence[Message], parts: Parts, *, due_s: float) -> Held:
        held = Held(messages, attempt=parts.next.attempt, due_s=due_s, parts=parts)
        self._keep(lane, held)
        return held

    def _keep(self, lane: Lane, held: Held) -> None:
        if held.due_s == inf:
            lane.waiting.add(held)
            lane.of.waiting += len(held.messages)
        else:
            lane.held.append(held)
            self._set_timer(lane, held.due_s)
        self._hold_keys(lane, held)

    def _hold_keys(self, lane: Lane, held: Held) -> None:
        if self._ordering is Ordering.KEY:
            for message in held.messages:
                key = message.key()
                if key is not None:
                    lane.held_keys[key] = held

    @staticmethod
    def _free_keys(lane: Lane, held: Held) -> None:
        for message in held.messages:
            key = message.key()
            if key is not None and lane.held_keys.get(key) is held:
                del lane.held_keys[key]


def _within_bytes(messages: Sequence[Message], max_bytes: int) -> Sequence[Message]:
    """The first of `messages` that fit; always at least one."""
    size_bytes = 0
    for index, message in enumerate(messages):
        size_bytes += len(message)
        if size_bytes > max_bytes and index:
            return messages[:index]
    return messages


def _with_equal_attempts(messages: Sequence[Message], attempts: Mapping[int, int]) -> Sequence[Message]:
    """The first of `messages`, as far as as many calls were spent on each."""
    spent = [attempts.get(message.offset(), 0) for message in messages]
    differs = next((index for index, one in enumerate(spent) if one != spent[0]), len(messages))
    return messages[:differs]


def _keys(messages: Sequence[Message]) -> list[bytes]:
    return [key for message in messages if (key := message.key()) is not None]


def _offset(message: Message) -> int:
    return message.offset()


def _holds(lane: Lane) -> bool:
    return bool(lane.held or lane.waiting)


def _due(held: Held) -> float:
    return held.due_s


def _lane_of_null_key(message: Message) -> int:
    return crc32(message.offset().to_bytes(8, "big"))
