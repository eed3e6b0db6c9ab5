"""Records that wait: what is known of them stays with them, and a retry is not spent on one that has ended."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from streamworker import Batch, Ordering, TopicPartition
from streamworker.config import FlowConfig
from streamworker.scheduling.lane import Spared
from streamworker.scheduling.scheduler import Scheduler
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Ownership

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.scheduling.lane import Held, LaneSlice

AT = TopicPartition("t", 0)
SPARED = Spared(calls=3, lately=2, closings=1)


class Bench:
    """A scheduler with a batch of four records that was held once, with a history, and is out again."""

    def __init__(self, spent: Mapping[int, int] = MappingProxyType({})) -> None:
        """With calls that are `spent` nothing is out yet."""
        self.ended: set[int] = set()  # offsets
        self.retries = 0
        self.scheduler = Scheduler(
            handler_number=0,
            ordering=Ordering.UNORDERED,
            concurrency=1,
            lanes=1,
            batch=Batch(max_records=4, max_wait_s=0.0),
            flow=FlowConfig(),
            limit=lambda _key: 1_000,
            attempts=lambda _key: spent,
            retry_wait_s=self._spend_retry,
            sift=lambda _key, messages: [one for one in messages if one.offset() not in self.ended],
        )
        self.scheduler.own(Ownership(AT, 1))
        self.scheduler.offer(AT, [MemoryMessage(AT, offset, value=b"v") for offset in range(4)], 1, 0.0)
        if spent:
            return
        slice_ = self.taken()
        held = self.scheduler.hold(slice_, slice_.messages, (), attempt=1, due_s=0.0)
        held.history.spared, held.history.charges, held.history.turn = SPARED, 5, 7
        self.out = self.taken()

    def _spend_retry(self, calls: int, _now_s: float) -> float:
        self.retries += calls
        return 0.0

    def taken(self) -> LaneSlice:
        slice_ = self.scheduler.take(1.0)
        assert slice_ is not None
        return slice_


def known(held: Held | None) -> tuple[Spared, int, int]:
    assert held is not None
    return held.history.spared, held.history.charges, held.history.turn


def test_a_retry_keeps_it() -> None:
    bench = Bench()

    bench.scheduler.hold(bench.out, bench.out.messages, (), attempt=2, due_s=0.0)

    again = bench.taken()
    assert known(again.held) == (SPARED, 5, 7)
    assert again.attempt == 3


@pytest.mark.parametrize("apart", [False, True], ids=["whole", "apart"])
def test_what_no_thread_began_with_keeps_it(apart: bool) -> None:
    bench = Bench()
    if apart:
        held = bench.scheduler.hold(bench.out, bench.out.messages, (), attempt=2, due_s=0.0, split=True)
        held.history.spared, held.history.charges, held.history.turn = SPARED, 5, 7
        bench.out = bench.taken()

    bench.scheduler.put_back(bench.out, bench.out.messages)

    assert known(bench.taken().held) == (SPARED, 5, 7)


def test_a_part_that_follows_one_that_is_gone_begins_its_own() -> None:
    """Withdrawn, ended, or given up by its name: what is known of it says nothing of the next."""
    for gone in ("withdrawn", "ended", "given up"):
        bench = Bench()
        bench.scheduler.hold(bench.out, bench.out.messages, (), attempt=2, due_s=0.0, split=True)
        half = bench.taken()
        held = bench.scheduler.hold(half, half.messages, (), attempt=2, due_s=0.0, split=True)
        held.history.charges = 5

        if gone == "withdrawn":
            bench.scheduler.withdraw(AT, 0)
        elif gone == "ended":
            bench.ended = {0}
        else:
            bench.scheduler.finish(bench.taken(), (), found=True)

        following = bench.taken()
        assert [message.offset() for message in following.messages] == [1]
        assert known(following.held) == (Spared(), 0, 0), gone


def test_those_around_a_record_that_is_given_up_begin_their_own() -> None:
    bench = Bench()
    held = bench.scheduler.hold(bench.out, bench.out.messages, (), attempt=2, due_s=0.0, split=True)
    held.history.charges = 5
    half = bench.taken()

    bench.scheduler.finish(half, half.messages[1:], found=True)

    assert known(bench.taken().held) == (Spared(), 0, 0)


@pytest.mark.parametrize("apart", [False, True], ids=["whole", "apart"])
def test_what_is_left_when_the_first_is_withdrawn_keeps_it(apart: bool) -> None:
    bench = Bench()
    held = bench.scheduler.hold(bench.out, bench.out.messages, (), attempt=2, due_s=0.0, split=apart)
    held.history.spared, held.history.charges, held.history.turn = SPARED, 5, 7

    bench.scheduler.withdraw(AT, 0)

    assert known(bench.taken().held) == (SPARED, 5, 7)


def test_each_half_of_a_batch_begins_its_own() -> None:
    """That a batch failed where others succeeded says nothing of one half of it."""
    bench = Bench()

    bench.scheduler.hold(bench.out, bench.out.messages, (), attempt=2, due_s=0.0, split=True)

    half = bench.taken()
    assert len(half.messages) == 2
    assert known(half.held) == (Spared(), 0, 0)


def test_halves_that_follow_one_that_is_done_begin_their_own() -> None:
    bench = Bench()
    bench.scheduler.hold(bench.out, bench.out.messages, (), attempt=2, due_s=0.0, split=True)
    half = bench.taken()
    assert half.held is not None
    half.held.history.charges = 5

    bench.scheduler.finish(half)

    assert known(bench.taken().held) == (Spared(), 0, 0)


def test_failures_before_the_breaker_closed_last_are_past() -> None:
    spared = Spared().and_one(0).and_one(0)
    assert spared == Spared(calls=2, lately=2, closings=0)

    assert spared.and_one(1) == Spared(calls=3, lately=1, closings=1)
    assert spared.and_one(1).and_one(1) == Spared(calls=4, lately=2, closings=1)


@pytest.mark.parametrize("batch", [False, True])
def test_a_slice_as_it_stands_does_not_move_on(batch: bool) -> None:
    out = Bench().out
    out.done, out.settled = 3, 1
    out.rejected += [(0, ValueError()), (2, ValueError())]

    seen = out.seen_at(1, batch=batch)
    out.done, out.rejected[:] = 4, []

    assert (seen.done, seen.settled, seen.attempt) == (1, 1, out.attempt)
    assert (seen.handler_number, seen.lane, seen.held, seen.messages) == (
        out.handler_number,
        out.lane,
        out.held,
        out.messages,
    )
    assert [index for index, _ in seen.rejected] == ([0, 2] if batch else [0])


def test_records_with_as_many_spent_calls_go_together_and_no_others() -> None:
    bench = Bench({1: 2, 2: 2})

    cut = []
    while (slice_ := bench.scheduler.take(9.0)) is not None:
        cut.append(([message.offset() for message in slice_.messages], slice_.attempt))
        bench.scheduler.finish(slice_)

    assert cut == [([0], 1), ([1, 2], 3), ([3], 1)]


def test_the_calls_of_a_record_that_waits_are_known_and_of_others_not() -> None:
    bench = Bench()
    held = bench.scheduler.hold(bench.out, bench.out.messages, (), attempt=2, due_s=5.0)

    assert held.calls == 2 + SPARED.calls
    assert bench.scheduler.calls_spent(AT, 0) == 2 + SPARED.calls
    assert bench.scheduler.calls_spent(AT, 1) is None


def test_a_retry_is_not_spent_on_what_has_ended() -> None:
    bench = Bench()
    bench.scheduler.hold(bench.out, bench.out.messages, (), attempt=2, due_s=0.0)
    before = bench.retries

    bench.ended = {0, 1, 2, 3}

    assert bench.scheduler.take(1.0) is None
    assert bench.retries == before
