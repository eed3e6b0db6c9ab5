"""What is handed over next, by examples; that nothing is lost or overtaken whatever happens is in the model of it."""

from __future__ import annotations

from itertools import chain
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from streamworker import Batch, Ordering, TopicPartition
from streamworker.config import FlowConfig
from streamworker.scheduling.scheduler import Scheduler
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Ownership

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streamworker.record import Message
    from streamworker.scheduling.lane import LaneSlice

AT = TopicPartition("t", 3)


class OncePerSecond:
    """A pace of one record a second and key, which notes what it is asked."""

    def __init__(self) -> None:
        self.next_s: dict[bytes, float] = {}
        self.waited_s = 0.0

    def wait_s(self, key: bytes, now_s: float) -> float:
        return max(self.next_s.get(key, 0.0) - now_s, 0.0)

    def spend(self, key: bytes, now_s: float) -> None:
        self.next_s[key] = now_s + 1

    def waits(self, seconds: float) -> None:
        self.waited_s += seconds


class Bench:
    """A scheduler of one partition, and what of its records has ended or was spent."""

    def __init__(
        self,
        ordering: Ordering = Ordering.KEY,
        *,
        batch: Batch | None = None,
        spent: Mapping[int, int] = MappingProxyType({}),
        pace: OncePerSecond | None = None,
        budgeted: bool = False,
        concurrency: int = 10,
    ) -> None:
        self.ended: set[int] = set()
        self.retries: list[tuple[int, float]] = []
        self.ownership = Ownership(AT, 1)
        self.scheduler = Scheduler(
            handler_number=7,
            ordering=ordering,
            concurrency=concurrency,
            lanes=1,
            batch=batch,
            flow=FlowConfig(),
            limit=lambda _key: 1_000,
            attempts=lambda key: spent if key == AT else {},
            retry_wait_s=self._spend_retry if budgeted else None,
            key_pace=pace,
            sift=self._sift,
        )
        self.lanes = self.scheduler.own(self.ownership)
        self.lane = self.lanes.lanes[0]

    def _spend_retry(self, calls: int, now_s: float) -> float:
        self.retries.append((calls, now_s))
        return 0.0

    def _sift(self, key: TopicPartition, messages: Sequence[Message]) -> Sequence[Message]:
        assert key == AT
        return [one for one in messages if one.offset() not in self.ended]

    def offer(self, *keys: bytes | None, first: int = 0, size: int = 1, now_s: float = 0.0) -> None:
        """Records of these keys, from offset `first` on."""
        messages = [MemoryMessage(AT, first + index, key=key, value=b"v" * size) for index, key in enumerate(keys)]
        self.scheduler.offer(AT, messages, max(map(len, messages)), now_s)

    def take(self, now_s: float = 0.0) -> LaneSlice:
        """The next slice, which is there."""
        slice_ = self.scheduler.take(now_s)
        assert slice_ is not None
        assert slice_.handler_number == 7
        return slice_

    def fail(self, slice_: LaneSlice, *, due_s: float, attempt: int = 1) -> None:
        """All of it failed."""
        self.scheduler.hold(slice_, slice_.messages, (), attempt=attempt, due_s=due_s)

    def all(self, now_s: float) -> list[list[int]]:
        """Offsets of all slices that come now, each handled at once."""
        found = []
        while (slice_ := self.scheduler.take(now_s)) is not None:
            found.append(offsets(slice_.messages))
            self.scheduler.finish(slice_)
        return found


def offsets(messages: Iterable[Message]) -> list[int]:
    return [message.offset() for message in messages]


def test_a_batch_goes_when_its_bytes_are_there_and_waits_one_byte_before() -> None:
    bench = Bench(batch=Batch(max_records=100, max_wait_s=5.0, max_bytes=40))
    bench.offer(*[b"k"] * 3, size=13)
    assert bench.scheduler.take(0.0) is None

    bench.offer(b"k", first=3, size=1)
    assert offsets(bench.take().messages) == [0, 1, 2, 3]


def test_a_batch_has_no_more_bytes_than_it_may_and_at_least_one_record() -> None:
    bench = Bench(batch=Batch(max_records=100, max_wait_s=0.0, max_bytes=40))
    bench.offer(b"k", b"k", size=20)
    bench.offer(b"k", first=2, size=1)
    bench.offer(b"k", first=3, size=400)

    assert bench.all(0.0) == [[0, 1], [2], [3]]


def test_a_batch_waits_since_its_first_record_came() -> None:
    bench = Bench(Ordering.PARTITION, batch=Batch(max_records=2, max_wait_s=5.0))
    bench.offer(None, now_s=100.0)
    bench.offer(None, None, first=1, now_s=102.0)

    first = bench.take(102.0)
    assert offsets(first.messages) == [0, 1]
    bench.scheduler.finish(first)
    assert bench.scheduler.take(106.9) is None
    assert bench.scheduler.next_due_s() == 107.0
    bench.offer(None, first=3, now_s=106.9)
    assert offsets(bench.take(106.9).messages) == [2, 3]


def test_what_was_out_before_does_not_wait_for_a_batch_again() -> None:
    bench = Bench(Ordering.PARTITION, batch=Batch(max_records=3, max_wait_s=5.0))
    bench.offer(None, None, None, now_s=100.0)
    slice_ = bench.take(100.0)
    bench.offer(None, first=3, now_s=101.0)

    bench.scheduler.finish(slice_, slice_.messages[2:])

    assert offsets(bench.take(105.0).messages) == [2, 3]


def test_what_has_ended_of_held_records_frees_those_behind_it_in_their_order() -> None:
    bench = Bench(batch=Batch(max_records=2, max_wait_s=0.0))
    bench.offer(b"a", b"b")
    bench.fail(bench.take(), due_s=5.0)
    bench.offer(b"b", b"a", b"a", first=2)
    assert bench.scheduler.take(1.0) is None

    bench.ended = {0}

    assert offsets(bench.take(5.0).messages) == [1]
    assert offsets(bench.lane.pending) == [2, 3, 4]
    assert bench.lane.held_keys.keys() == {b"b"}


def test_where_all_held_records_have_ended_what_waited_behind_goes_on() -> None:
    bench = Bench()
    bench.offer(b"a")
    bench.fail(bench.take(), due_s=5.0)
    bench.offer(b"a", b"a", first=1)
    assert bench.scheduler.take(1.0) is None

    bench.ended = {0}

    assert list(chain(*bench.all(5.0))) == [1, 2]
    assert bench.lane.held_keys == {}
    assert bench.lane.records == 0


def test_what_waited_behind_a_withdrawn_record_goes_on_in_its_order() -> None:
    bench = Bench()
    bench.offer(b"a")
    bench.fail(bench.take(), due_s=50.0)
    bench.offer(b"a", b"b", b"a", first=1)
    out = bench.take()
    assert offsets(out.messages) == [2]
    bench.scheduler.finish(out, out.messages)

    withdrawn = bench.scheduler.withdraw(AT, 0)

    assert withdrawn is not None
    assert withdrawn.offset() == 0
    assert offsets(bench.lane.pending) == [1, 2, 3]
    assert list(chain(*bench.all(1.0))) == [1, 2, 3]


def test_a_part_that_has_lost_its_first_record_keeps_its_end() -> None:
    bench = Bench(Ordering.PARTITION, batch=Batch(max_records=4, max_wait_s=0.0))
    bench.offer(*[None] * 4)
    whole = bench.take()
    bench.scheduler.hold(whole, whole.messages, (), attempt=2, due_s=0.0, split=True)

    bench.scheduler.withdraw(AT, 0)

    assert [offsets(bench.take().messages)] == [[1]]


def test_records_of_a_part_that_were_not_tried_stay_a_part() -> None:
    bench = Bench(Ordering.PARTITION, batch=Batch(max_records=8, max_wait_s=0.0))
    bench.offer(*[None] * 8)
    whole = bench.take()
    bench.scheduler.hold(whole, whole.messages, (), attempt=2, due_s=0.0, split=True)
    half = bench.take()

    held = bench.scheduler.hold(half, half.messages[:1], half.messages[1:], attempt=3, due_s=0.0)

    assert held.parts is not None
    assert [(part.records, part.attempt) for part in held.parts.parts] == [(1, 3), (3, 2), (4, 2)]
    assert held.history is (half.held.history if half.held else None)


@pytest.mark.parametrize("found", [False, True])
def test_whether_a_record_was_found_is_counted(found: bool) -> None:
    bench = Bench(Ordering.PARTITION, batch=Batch(max_records=2, max_wait_s=0.0))
    bench.offer(None, None)
    whole = bench.take()
    bench.scheduler.hold(whole, whole.messages, (), attempt=2, due_s=0.0, split=True)

    bench.scheduler.finish(bench.take(), found=found)

    left = bench.take().held
    assert left is not None
    assert left.parts is not None
    assert left.parts.found == int(found)


@pytest.mark.parametrize(
    ("ordering", "held_at", "due_s", "pending_at", "unfinished"),
    [
        (Ordering.KEY, 4, 10.0, None, True),
        (Ordering.KEY, 4, 10.1, None, False),
        (Ordering.KEY, 5, 10.0, None, False),
        (Ordering.KEY, 4, inf, None, False),
        (Ordering.KEY, 4, 99.0, 4, True),
        (Ordering.KEY, 5, 10.0, 5, False),
        (Ordering.UNORDERED, 4, 99.0, 4, True),
        (Ordering.PARTITION, 4, 99.0, 4, False),
        (Ordering.PARTITION, None, 0.0, 4, True),
        (Ordering.PARTITION, None, 0.0, 5, False),
        (Ordering.PARTITION, None, 0.0, None, False),
    ],
)
def test_what_is_unfinished_of_a_closing_partition(
    ordering: Ordering, held_at: int | None, due_s: float, pending_at: int | None, unfinished: bool
) -> None:
    """Below its end, and due in time; with an order per partition a held record holds the others up."""
    bench = Bench(ordering)
    if held_at is not None:
        bench.offer(b"held", first=held_at)
        bench.fail(bench.take(), due_s=due_s)
    if pending_at is not None:
        bench.offer(b"other", first=pending_at)
    bench.ownership.closing, bench.ownership.closes_at = True, 5

    assert bench.scheduler.unfinished(AT, 10.0) == unfinished

    bench.scheduler.block(AT)
    assert not bench.scheduler.unfinished(AT, 10.0)


def test_the_first_that_followed_a_paced_record_takes_its_place_with_its_calls_and_its_wait() -> None:
    pace = OncePerSecond()
    bench = Bench(spent={2: 4}, pace=pace)
    bench.offer(b"a", b"a", b"a")
    first = bench.take(0.0)
    assert offsets(first.messages) == [0]
    bench.fail(first, due_s=0.5)
    assert bench.scheduler.take(0.5) is None

    again = bench.take(1.0)
    assert (offsets(again.messages), again.attempt) == ([0], 2)
    bench.scheduler.finish(again)
    assert bench.scheduler.take(1.9) is None
    second = bench.take(2.0)
    assert (offsets(second.messages), second.attempt) == ([1], 1)
    bench.scheduler.finish(second)
    third = bench.take(3.0)
    assert (offsets(third.messages), third.attempt) == ([2], 5)


def test_records_without_a_key_have_no_pace() -> None:
    pace = OncePerSecond()
    bench = Bench(pace=pace)
    bench.offer(None, None, b"a", None)

    assert sorted(chain(*bench.all(0.0))) == [0, 1, 2, 3]
    assert pace.waited_s == 0


@pytest.mark.parametrize(("batch", "calls"), [(None, 2), (Batch(max_records=2, max_wait_s=0.0), 1)])
def test_a_batch_is_one_retry_and_single_records_are_one_each(batch: Batch | None, calls: int) -> None:
    bench = Bench(Ordering.UNORDERED, batch=batch, budgeted=True)
    bench.offer(None, None)
    slice_ = bench.take()
    while len(slice_.messages) < 2:
        bench.scheduler.finish(slice_, slice_.messages)
        bench.scheduler.sizer.measured(1, 0.000_1)
        slice_ = bench.take()
    bench.fail(slice_, due_s=5.0)

    bench.take(6.0)

    assert bench.retries == [(calls, 6.0)]


def test_what_waits_without_end_is_counted_with_those_behind_it() -> None:
    bench = Bench()
    bench.offer(b"a", first=0)
    first = bench.take()
    bench.fail(first, due_s=inf)
    bench.offer(b"b", first=1)
    bench.fail(bench.take(), due_s=inf)
    bench.offer(b"a", b"c", first=2)
    assert bench.all(0.0) == [[3]]
    assert bench.lanes.waiting == 3

    held = next(one for one in bench.lane.waiting if offsets(one.messages) == [0])
    bench.scheduler.release(bench.lane, held, 1.0)

    assert bench.lanes.waiting == 1


def test_what_is_shed_of_those_behind_a_waiting_record_is_not_counted_any_more() -> None:
    bench = Bench()
    bench.offer(b"a")
    bench.fail(bench.take(), due_s=inf)
    bench.offer(b"a", b"a", b"a", first=1)
    assert bench.all(0.0) == []
    assert bench.lanes.waiting == 4

    assert offsets(bench.scheduler.shed(AT, 2, 0)) == [2, 3]
    assert bench.lanes.waiting == 2
    assert offsets(bench.scheduler.shed(AT, 9, 0)) == [1]
    assert bench.lanes.waiting == 1


def test_slices_whose_ownership_has_ended_make_room_one_by_one() -> None:
    bench = Bench(Ordering.UNORDERED, concurrency=2)
    bench.offer(None, None)
    bench.take()
    bench.take()
    assert not bench.scheduler.idle

    bench.scheduler.forget()

    assert bench.scheduler.idle
    assert bench.scheduler.out == 1


def test_fewer_or_more_may_be_allowed_at_once() -> None:
    bench = Bench(Ordering.UNORDERED, concurrency=3)
    bench.offer(None, None, None)
    bench.scheduler.allow(1)
    bench.take()
    assert bench.scheduler.take(0.0) is None
    assert bench.scheduler.ready is False

    bench.scheduler.allow(2)
    assert bench.scheduler.ready is True
    bench.take()


def test_what_is_asked_of_a_partition_that_is_gone_ends_there() -> None:
    bench = Bench()
    bench.offer(b"a")

    bench.scheduler.disown(AT)
    bench.scheduler.disown(AT)

    assert bench.scheduler.take(0.0) is None
