"""The offset tracker beside a model that keeps every offset in a set."""

from __future__ import annotations

import pickle

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamworker.offsets.tracker import OffsetTracker

# What may stay of done records at the front, and what a run costs beyond its records.
SLACK_BYTES, RUN_BYTES = 4096 + 1024, 24


class TrackerMachine(RuleBasedStateMachine):
    """Deliver with gaps, complete in any order, acknowledge any offset that was committable."""

    @initialize(start=st.sampled_from([-2, -1, 0, 1, 7, 10**12]))
    def begin(self, start: int) -> None:
        self.tracker = OffsetTracker(start)
        self.next_offset = self.committed = max(start, 0)
        self.delivered: list[int] = []
        self.done: set[int] = set()
        self.runs = 0
        self.committable_before = self.committed

    @rule(gap=st.sampled_from([0, 0, 0, 1, 2, 100]), count=st.integers(1, 9))
    def deliver(self, gap: int, count: int) -> None:
        self._deliver(gap, count)

    @rule(gap=st.sampled_from([0, 3]), count=st.integers(3000, 6000))
    def deliver_many(self, gap: int, count: int) -> None:
        self._deliver(gap, count)

    def _deliver(self, gap: int, count: int) -> None:
        first = self.next_offset + gap
        self.tracker.deliver(first, count)
        self.delivered += range(first, first + count)
        self.next_offset = first + count
        self.runs += 1

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def complete_some(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(self.delivered), min_size=1, max_size=6))
        self.tracker.complete(some)
        self.done.update(some)

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def complete_run(self, data: st.DataObject) -> None:
        ends = data.draw(st.tuples(st.sampled_from(self.delivered), st.sampled_from(self.delivered)))
        first, last = min(ends), max(ends)
        self.tracker.complete_run(first, last)
        self.done.update(offset for offset in self.delivered if first <= offset <= last)

    @precondition(lambda self: self.delivered)
    @rule(leave=st.integers(0, 5))
    def complete_all_but_the_last(self, leave: int) -> None:
        ended = self.delivered[: len(self.delivered) - leave]
        self.tracker.complete(ended)
        self.done.update(ended)

    @rule()
    def acknowledge_the_committable_offset(self) -> None:
        self.tracker.acknowledge(self._committable())
        self.committed = max(self.committed, self._committable())

    @rule(data=st.data())
    def acknowledge_late(self, data: st.DataObject) -> None:
        possible = [one for one in self.delivered[:5000] if one <= self._committable()] or [self.committed]
        late = data.draw(st.sampled_from(possible))
        self.tracker.acknowledge(late)
        self.committed = max(self.committed, late)

    def _open(self) -> list[int]:
        return [offset for offset in self.delivered if offset not in self.done]

    def _committable(self) -> int:
        return min(self._open(), default=self.next_offset)

    @invariant()
    def nothing_open_is_below_the_committable_offset(self) -> None:
        committable = self.tracker.committable

        assert committable == self._committable()
        assert committable >= self.committable_before, "it went backwards"
        assert committable <= self.tracker.next_offset == self.next_offset
        self.committable_before = committable

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        below = [offset for offset in self.delivered if self.committed <= offset < self._committable()]

        assert self.tracker.committed == self.committed
        assert self.tracker.open_records == len(self._open())
        assert self.tracker.done_uncommitted == len(below)

    @invariant()
    def ends_of_the_delivered_are_done_if_the_model_says_so(self) -> None:
        for offset in [*self.delivered[:3], *self.delivered[-3:]]:
            assert self.tracker.is_done(offset) == (offset in self.done)

    @rule(allowed=st.integers(1, 9000))
    def the_limit_lets_so_many_delivered_records_run_beyond_the_committed_offset(self, allowed: int) -> None:
        repeatable = [offset for offset in self.delivered if offset >= self.committed]

        limit = self.tracker.limit(allowed)

        assert limit == (repeatable[allowed] if allowed < len(repeatable) else self.next_offset)

    @precondition(lambda self: self.committed == self._committable())
    @rule(allowed=st.integers(1, 3))
    def when_all_is_committed_the_lowest_open_record_may_run(self, allowed: int) -> None:
        lowest = min(self._open(), default=None)

        assert lowest is None or lowest < self.tracker.limit(allowed)

    @invariant()
    def it_keeps_a_byte_per_record_from_the_first_open_one(self) -> None:
        window = sum(offset >= self._committable() for offset in self.delivered)

        assert len(pickle.dumps(self.tracker)) <= window + SLACK_BYTES + RUN_BYTES * self.runs


TestOffsetTracker = TrackerMachine.TestCase
TestOffsetTracker.settings = settings(max_examples=60, stateful_step_count=40)


def test_millions_of_records_that_end_in_order_take_no_room() -> None:
    tracker = OffsetTracker(0)

    for first in range(0, 2_000_000, 500):
        tracker.deliver(first, 500)
        tracker.complete_run(first, first + 499)
        tracker.acknowledge(tracker.committable)

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
        tracker.acknowledge(tracker.committable)

    assert len(pickle.dumps(tracker)) < SLACK_BYTES + RUN_BYTES * 4096
