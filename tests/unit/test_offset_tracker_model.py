"""The offset tracker beside a model that keeps every offset in a set."""

from __future__ import annotations

import pickle
from bisect import bisect_left
from itertools import accumulate, pairwise
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sizes import SOAK

from streamworker.offsets.progress import Progress
from streamworker.offsets.tracker import OffsetTracker

# What may stay of done records at the front and of the object itself, and what a run costs beyond its records.
SLACK_BYTES, RUN_BYTES = 4096 + 1024, 24


class TrackerMachine(RuleBasedStateMachine):
    """Deliver with gaps, complete in any order, acknowledge any offset that was committable."""

    @initialize(start=st.sampled_from([-2, -1, 0, 1, 7, 10**12]), lengths=st.lists(st.integers(1, 30), max_size=9))
    def begin(self, start: int, lengths: list[int]) -> None:
        self.tracker = OffsetTracker(start)
        ends = list(accumulate(lengths, initial=max(start, 0)))
        known = [(first, last - 1) for first, last in zip(ends[1::2], ends[2::2], strict=False)]
        self.remembered = {offset for first, last in known for offset in range(first, last + 1)}
        self.tracker.remember(Progress(max(start, 0), known))
        self.start = start
        self.next_offset = self.committed = max(start, 0)
        self.were_committable = [self.committed]  # after each step
        self.delivered: list[int] = []
        self.open: set[int] = set()
        self.runs = 0

    @rule(gap=st.sampled_from([0, 0, 0, 1, 2, 100]), count=st.integers(1, 9))
    def deliver(self, gap: int, count: int) -> None:
        first = self.next_offset + gap
        self.tracker.deliver(first, count)
        self.remembered.difference_update(range(self.next_offset, first))  # they are in the log no more
        self.delivered += range(first, first + count)
        self.open.update(set(range(first, first + count)) - self.remembered)
        self.next_offset = first + count
        self.runs += 1

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def complete_some(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(self.delivered), min_size=1, max_size=6))
        self.tracker.complete(some)
        self.open.difference_update(some)

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def complete_run(self, data: st.DataObject) -> None:
        ends = data.draw(st.tuples(st.sampled_from(self.delivered), st.sampled_from(self.delivered)))
        self.tracker.complete_run(min(ends), max(ends))
        self.open = {offset for offset in self.open if not min(ends) <= offset <= max(ends)}

    @precondition(lambda self: self.delivered)
    @rule(leave=st.integers(0, 5))
    def complete_all_but_the_last(self, leave: int) -> None:
        ended = self.delivered[: len(self.delivered) - leave]
        self.tracker.complete(ended)
        self.open.difference_update(ended)

    @precondition(lambda self: self.delivered)
    @rule(count=st.integers(1, 9))
    def take_back_the_last(self, count: int) -> None:
        latest = self.delivered[-count:]
        if not self.open.issuperset(latest):
            return
        self.tracker.take_back(latest[0])
        del self.delivered[-count:]
        self.open.difference_update(latest)
        self.next_offset = latest[0]

    @rule()
    def acknowledge_what_is_committable(self) -> None:
        self.tracker.acknowledge(self.tracker.progress())
        self.committed = self.committable

    @rule(data=st.data())
    def acknowledge_an_older_commit(self, data: st.DataObject) -> None:
        older = data.draw(st.sampled_from(self.were_committable))
        self.tracker.acknowledge(Progress(older))
        self.committed = max(self.committed, older)

    @property
    def committable(self) -> int:
        return min(self.open, default=self.next_offset)

    @invariant()
    def nothing_open_is_below_the_committable_offset(self) -> None:
        committable = self.tracker.committable

        assert committable == self.committable
        assert committable >= self.were_committable[-1], "it went backwards"
        assert self.tracker.next_offset == self.next_offset
        self.were_committable.append(committable)

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        committable = self.committable
        saved = sum(self.committed <= offset < committable for offset in self.delivered)

        assert self.tracker.committed == self.committed
        assert self.tracker.open_records == len(self.open)
        assert self.tracker.done_uncommitted == saved

    @invariant()
    def its_progress_has_what_is_done_beyond_the_committable_offset(self) -> None:
        progress = self.tracker.progress()
        lasts = [last for _, last in progress.done]
        firsts = [*(first for first, _ in progress.done), inf]
        beyond = self.delivered[bisect_left(self.delivered, progress.offset) :]

        to_come = range(self.next_offset, max(self.remembered, default=0) + 9)
        said = {offset for offset in (*beyond, *to_come) if firsts[bisect_left(lasts, offset)] <= offset}

        assert progress.offset == self.committable
        assert said == (set(beyond) - self.open) | (self.remembered & set(to_come))
        assert all(before[1] < after[0] for before, after in pairwise(progress.done))

    @invariant()
    def a_record_is_done_if_the_model_says_so(self) -> None:
        for offset in [*self.delivered[:20], *self.delivered[-20:]]:
            assert self.tracker.is_done(offset) == (offset not in self.open)

    @rule(allowed=st.one_of(st.integers(1, 30), st.integers(1, 9000)))
    def the_limit_lets_so_many_delivered_records_run_beyond_the_committed_offset(self, allowed: int) -> None:
        repeatable = [offset for offset in self.delivered if offset >= self.committed]

        limit = self.tracker.limit(allowed)

        assert limit == (repeatable[allowed] if allowed < len(repeatable) else self.next_offset)

    @precondition(lambda self: self.open and self.committed == self.committable)
    @rule(allowed=st.integers(1, 3))
    def once_all_is_committed_the_lowest_open_record_may_run(self, allowed: int) -> None:
        assert min(self.open) < self.tracker.limit(allowed)

    @invariant()
    def nothing_is_done_above_the_highest_done_offset_and_nothing_open_is_it(self) -> None:
        highest_done = self.tracker.highest_done

        assert highest_done not in self.open
        assert self.open.issuperset(offset for offset in self.delivered if offset > highest_done)

    @invariant()
    def the_lowest_open_records_are_known(self) -> None:
        for count in (0, 1, 4):
            assert self.tracker.first_open(count) == sorted(self.open)[:count]

    @invariant()
    def nothing_goes_beyond_what_is_done_while_it_is_crowded(self) -> None:
        done = self.remembered.union(self.delivered) - self.open
        before = self.tracker.limit(5)

        self.tracker.crowded = True
        limit, self.tracker.crowded = self.tracker.limit(5), False

        assert limit == min(before, max([self.committable, *done]) + 1)

    @invariant()
    def the_beginning_of_the_log_is_nowhere_until_a_record_came(self) -> None:
        assert self.tracker.located == (self.start >= 0 or bool(self.delivered))

    @invariant()
    def it_keeps_a_byte_per_record_from_the_first_open_one(self) -> None:
        committable = self.committable
        window = sum(offset >= committable for offset in self.delivered)

        assert len(pickle.dumps(self.tracker)) <= window + SLACK_BYTES + RUN_BYTES * self.runs


class LongTrackerMachine(TrackerMachine):
    """The same with so many records that the window is cut."""

    @rule(gap=st.sampled_from([0, 3]), count=st.integers(3000, 6000))
    def deliver_many(self, gap: int, count: int) -> None:
        self.deliver(gap, count)


TestOffsetTracker = TrackerMachine.TestCase
TestOffsetTracker.settings = settings(max_examples=100 * SOAK, stateful_step_count=40)
TestLongOffsetTracker = LongTrackerMachine.TestCase
TestLongOffsetTracker.settings = settings(max_examples=60 * SOAK, stateful_step_count=30)


def test_millions_of_records_that_end_in_order_take_no_room() -> None:
    tracker = OffsetTracker(0)

    for first in range(0, 2_000_000, 500):
        tracker.deliver(first, 500)
        tracker.complete_run(first, first + 499)
        tracker.acknowledge(tracker.progress())

    assert tracker.committed == 2_000_000
    assert len(pickle.dumps(tracker)) < SLACK_BYTES


def test_a_gap_costs_the_same_whatever_its_length() -> None:
    tracker = OffsetTracker(0)

    tracker.deliver(0, 1)
    tracker.deliver(2**60, 1)
    tracker.complete([0])

    assert tracker.committable == 2**60
    assert len(pickle.dumps(tracker)) < 1024


def test_runs_of_a_compacted_log_are_forgotten_with_their_records() -> None:
    tracker = OffsetTracker(0)

    for offset in range(0, 200_000, 2):
        tracker.deliver(offset, 1)
        tracker.complete([offset])
        tracker.acknowledge(tracker.progress())

    assert len(pickle.dumps(tracker)) < SLACK_BYTES + RUN_BYTES * 4096


def test_what_was_not_delivered_cannot_become_done() -> None:
    """It would stand for another record, and that would be committed."""
    tracker = OffsetTracker(0)
    tracker.deliver(0, 2)
    tracker.deliver(10, 2)

    for complete in (lambda: tracker.complete([5]), lambda: tracker.complete_run(10, 12)):
        with pytest.raises(AssertionError, match="was not delivered"):
            complete()
    assert tracker.committable == 0


def test_calls_that_were_spent_on_the_first_record_are_remembered_and_those_below_it_are_not() -> None:
    tracker = OffsetTracker(5)

    tracker.remember(Progress(5, ((4, 4), (6, 6)), {4: 1, 5: 2, 7: 3}))
    tracker.deliver(5, 3)

    assert tracker.attempts == {5: 2, 7: 3}
    assert [tracker.is_done(offset) for offset in (5, 6, 7)] == [False, True, False]
