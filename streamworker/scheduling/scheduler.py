"""Which records are handed over next: lanes, their order, and records that wait for another try.

Where a record is, from `offer` until it is done:

    pending ────────────► a slice that is out ────────────► done
     ▲  │                  ▲          │
     │  │ its key is held  │ due      │ failed
     │  ▼                  │          ▼
     └─ a follower ◄──── held until a time, or waiting until `release`

Rules. A *lane* is an order domain of one partition: the partition itself (PARTITION, UNORDERED) or
one of `lanes` shares of its keys (KEY). One slice of a lane is out at a time, except when UNORDERED. A
record that must be tried again is *held*: with PARTITION the lane waits for it, with KEY only records of
its key do (they follow it, and go back to their places when it is done), with UNORDERED nobody. No slice is cut beyond
the partition's limit.

Pure; the loop thread owns a scheduler per handler.
"""

from __future__ import annotations

from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from streamworker.options import Ordering
from streamworker.scheduling.lane import Held, History, Lane, LaneSlice, PartitionLanes
from streamworker.scheduling.parts import Part, Parts
from streamworker.scheduling.slices import SliceSizer
from streamworker.scheduling.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.config import FlowConfig
    from streamworker.options import Batch
    from streamworker.record import Message, TopicPartition
    from streamworker.work import Ownership


class KeyPace(Protocol):
    """How fast records of each key may go."""

    def wait_s(self, key: bytes, now_s: float) -> float:
        """After how long a record of `key` may go."""

    def spend(self, key: bytes, now_s: float) -> None:
        """One record of `key` goes."""

    def waits(self, seconds: float) -> None:
        """A record has to wait for its key's turn."""


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
        handler_number: int,
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
        self._handler_number = handler_number
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
        self._turns = Turns()
        self._out = 0
        self.sizer = SliceSizer(slice_s=flow.slice_s, max_records=flow.max_slice)

    @property
    def out(self) -> int:
        """Slices in the handler's hands."""
        return self._out

    @property
    def concurrency(self) -> int:
        """Slices that may be out at once."""
        return self._concurrency

    @property
    def idle(self) -> bool:
        """Whether a slice could be taken by a thread that has nothing to do."""
        return self._out < self._concurrency

    @property
    def saturated(self) -> bool:
        """Whether more slices could be out if more were allowed."""
        return not self.idle and any(
            lane.pending and not (lane.out and self._ordering is not Ordering.UNORDERED) for lane in self._turns
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
            self._turns.drop(lanes)

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
        self._turns.wake_due(now_s)
        while self._out < self._concurrency and (lane := self._turns.next()) is not None:
            slice_ = self._cut(lane, now_s, most)
            if slice_ is not None:
                slice_.watched = self._watched or self.sizer.slow
                lane.out += 1
                self._out += 1
                if self._ordering is Ordering.UNORDERED:
                    self._turns.enqueue(lane)
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
            history = held.history if rest and not found else None
            self._keep_parts(slice_.lane, remaining, parts.found_one() if found else parts, history, due_s=0.0)

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
            pace.waits(wait_s)

    def put_back(self, slice_: LaneSlice, rest: Sequence[Message]) -> None:
        """The slice is back, and a thread did not start with `rest` of it: no attempt is spent, and none forgotten."""
        held = slice_.held
        if held is None or held.parts is not None:
            self.finish(slice_, rest)
            return
        self.hold(slice_, rest, (), attempt=held.attempt, due_s=held.due_s)

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

        `attempt` calls were spent on it, and its history goes on. With `split` it goes in halves then, of which each
        begins its own: what is known of all of them together says nothing of one.
        """
        before = None if slice_.held is None else slice_.held.parts
        history = None if slice_.held is None or split else slice_.held.history
        if before is None and not split:
            self._take_back(slice_, rest)
            held = Held(failed, attempt=attempt, due_s=due_s, history=history)
            self._keep(slice_.lane, held)
            return held
        if before is None:
            self._take_back(slice_, rest)
            parts, messages = Parts(Part(len(failed), attempt).halves()), list(failed)
        else:
            parts = before.failed(len(failed), len(rest), attempt, split=split)
            messages = [*failed, *rest, *self._take_back(slice_, ())]
        return self._keep_parts(slice_.lane, messages, parts, history, due_s=due_s)

    def release(self, lane: Lane, held: Held, now_s: float) -> None:
        """What was held without end goes now. Its ownership lasts."""
        lane.waiting.remove(held)
        lane.of.waiting -= len(held.messages) + len(held.followers)
        held.due_s = now_s
        lane.held.append(held)
        self._turns.wake_at(lane, now_s)

    def calls_spent(self, partition: TopicPartition, offset: int) -> int | None:
        """How many calls failed of the record at `offset`, if it waits for another; else None."""
        found = self._held_first(partition, offset)
        return None if found is None else found[1].calls

    def withdraw(self, partition: TopicPartition, offset: int) -> Message | None:
        """Take the record at `offset` out, if it waits for another try; what waited behind it goes on.

        One that waits for its first, because of its key's pace, stays.
        """
        found = self._held_first(partition, offset)
        if found is None or not found[1].calls:
            return None
        lane, held = found
        lane.held.remove(held)
        self._free_keys(lane, held)
        message, *rest = held.messages
        if rest and held.parts is not None:
            parts = held.parts.back(held.parts.next.records - 1)
            history = held.history if held.parts.next.records > 1 else None
            self._keep_parts(lane, rest, parts, history, due_s=held.due_s)
        elif rest:
            self._keep(lane, Held(rest, attempt=held.attempt, due_s=held.due_s, history=held.history))
        lane.pending = sorted(held.followers + lane.pending, key=_offset)
        self._turns.enqueue(lane)
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
            self._turns.enqueue(lane)

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
        return self._turns.next_due_s()

    def _append(self, lane: Lane, messages: Sequence[Message], now_s: float) -> None:
        if self._batch is not None:
            lane.arrivals.append((messages[0].offset(), now_s))
        lane.pending.extend(messages)
        self._turns.enqueue(lane)

    def _cut(self, lane: Lane, now_s: float, most: int | None) -> LaneSlice | None:
        if lane.of.blocked or (lane.out and self._ordering is not Ordering.UNORDERED):
            return None
        if lane.held:
            allowed = [held for held in lane.held if held.messages[0].offset() < lane.of.end]
            held = min(allowed, key=_due, default=None)
            if held is not None and held.due_s <= now_s:
                if self._sift is not None and not self._sift_held(lane, held, self._sift):
                    return None
                if not self._postpone(lane, held, now_s):
                    return self._cut_held(lane, held)
        waits = (lane.held or lane.waiting) and self._ordering is Ordering.PARTITION
        return None if waits else self._cut_pending(lane, now_s, most)

    def _postpone(self, lane: Lane, held: Held, now_s: float) -> bool:
        """Let it be due later if its key's pace, or the number of retries, forbids to make this call now."""
        wait_s = 0.0
        if self._key_pace is not None:
            wait_s = max((self._key_pace.wait_s(key, now_s) for key in _keys(held.next)), default=0.0)
        if wait_s:
            self._turns.enqueue(lane)  # others may go meanwhile
        elif held.attempt and self._retry_wait_s is not None:
            wait_s = self._retry_wait_s(1 if self._batch is not None else len(held.messages), now_s)
        if wait_s:
            held.due_s = now_s + wait_s
            self._turns.wake_at(lane, held.due_s)
        return wait_s > 0

    def _cut_held(self, lane: Lane, held: Held) -> LaneSlice:
        lane.held.remove(held)
        messages = held.next
        if self._key_pace is not None:
            for key in _keys(messages):
                self._key_pace.spend(key, self._now_s)
        return LaneSlice(self._handler_number, lane, messages, held, attempt=held.attempt + 1)

    def _sift_held(
        self, lane: Lane, held: Held, sift: Callable[[TopicPartition, Sequence[Message]], Sequence[Message]]
    ) -> bool:
        """End what has ended of `held`; what waited behind that goes on. Returns whether something is left."""
        left = sift(lane.of.ownership.partition, held.messages)
        if len(left) == len(held.messages):
            return True
        self._free_keys(lane, held)
        if left and held.parts is not None:
            stay = set(map(id, left))
            gone = [id(message) not in stay for message in held.messages]
            if all(gone[: held.parts.next.records]):
                held.history = History()
            held.parts = held.parts.without(gone)
            held.attempt = held.parts.next.attempt
        held.messages = left
        self._hold_keys(lane, held)
        lane.pending = sorted(held.followers + lane.pending, key=_offset)
        held.followers = []
        if not left:
            lane.held.remove(held)
        self._turns.enqueue(lane)
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
                self._turns.enqueue(lane)
        if self._key_pace is not None:
            fitting = self._at_pace(lane, fitting, attempts, now_s, self._key_pace)
        if not fitting:
            return None
        spent = attempts.get(fitting[0].offset(), 0) if attempts else 0
        return LaneSlice(self._handler_number, lane, fitting, None, attempt=spent + 1)

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
                _follow(lane, held, message)
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
                pace.waits(wait_s)
        if len(taken) < len(messages):
            self._turns.enqueue(lane)
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
        self._turns.wake_at(lane, full_s)
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
                _follow(lane, held, message)
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
        self._turns.enqueue(lane)
        return remaining

    def _keep_parts(
        self, lane: Lane, messages: Sequence[Message], parts: Parts, history: History | None, *, due_s: float
    ) -> Held:
        held = Held(messages, attempt=parts.next.attempt, due_s=due_s, parts=parts, history=history)
        self._keep(lane, held)
        return held

    def _keep(self, lane: Lane, held: Held) -> None:
        if held.due_s == inf:
            lane.waiting.add(held)
            lane.of.waiting += len(held.messages)
        else:
            lane.held.append(held)
            self._turns.wake_at(lane, held.due_s)
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


def _follow(lane: Lane, held: Held, message: Message) -> None:
    """Let a record wait behind one of its key."""
    held.followers.append(message)
    lane.of.waiting += held.due_s == inf


def _holds(lane: Lane) -> bool:
    return bool(lane.held or lane.waiting)


def _due(held: Held) -> float:
    return held.due_s


def _lane_of_null_key(message: Message) -> int:
    return crc32(message.offset().to_bytes(8, "big"))
