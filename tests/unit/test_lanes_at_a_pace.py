"""A scheduler whose keys have a rate: whatever fails, each key's records go in order, at its rate, and all go."""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker import Batch, Ordering, Rate, TopicPartition
from streamworker.config import FlowConfig
from streamworker.resilience.limits import KeyPace
from streamworker.scheduling.scheduler import Scheduler
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Ownership

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.scheduling.lane import LaneSlice

AT = TopicPartition("t", 0)
NONE_SPENT = MappingProxyType[int, int]({})


def scheduler_of(rate: Rate, lanes: int, *, batch: bool) -> Scheduler:
    return Scheduler(
        handler_number=0,
        ordering=Ordering.KEY,
        concurrency=2,
        lanes=lanes,
        batch=Batch(max_records=7, max_wait_s=0.0) if batch else None,
        flow=FlowConfig(),
        limit=lambda _key: 1_000_000,
        attempts=lambda _key: NONE_SPENT,
        key_pace=KeyPace(rate),
    )


class Run:
    """Offers records, fails some calls, and notes when each record was handed over."""

    def __init__(self, scheduler: Scheduler, keys: Sequence[bytes | None], fails: Sequence[bool]) -> None:
        self.scheduler = scheduler
        self.fails = list(fails)
        self.calls: dict[bytes | None, list[float]] = defaultdict(list)
        self.handled: dict[bytes | None, list[int]] = defaultdict(list)
        self.now_s = 0.0
        scheduler.own(Ownership(AT, 1))
        messages = [MemoryMessage(AT, offset, key=key, value=b"v") for offset, key in enumerate(keys)]
        scheduler.offer(AT, messages, 1, 0.0)

    def to_end(self) -> None:
        while True:
            while (slice_ := self.scheduler.take(self.now_s)) is not None:
                self._call(slice_)
            due_s = self.scheduler.next_due_s()
            if due_s is None:
                return
            self.now_s = max(due_s, self.now_s)

    def _call(self, slice_: LaneSlice) -> None:
        self.scheduler.sizer.measured(len(slice_.messages), 1e-6)
        for index, message in enumerate(slice_.messages):
            self.calls[message.key()].append(self.now_s)
            if self.fails and self.fails.pop():
                rest = slice_.messages[index + 1 :]
                self.scheduler.hold(slice_, [message], rest, attempt=slice_.attempt, due_s=self.now_s + 0.05)
                return
            self.handled[message.key()].append(message.offset())
        self.scheduler.finish(slice_)


@given(
    keys=st.lists(st.sampled_from([b"a", b"b", b"c", None]), min_size=1, max_size=60),
    fails=st.lists(st.booleans(), max_size=60),
    burst=st.integers(1, 4),
    lanes=st.integers(1, 2),
    batch=st.booleans(),
)
def test_records_of_a_key_go_in_order_at_its_rate_and_none_is_left(
    keys: list[bytes | None], fails: list[bool], burst: int, lanes: int, batch: bool
) -> None:
    run = Run(scheduler_of(Rate(10, burst=burst, per_key=True), lanes, batch=batch), keys, fails)

    run.to_end()

    for key in set(keys) - {None}:
        offsets = [offset for offset, one in enumerate(keys) if one == key]
        assert run.handled[key] == offsets
        at_s = run.calls[key]
        for begin in range(len(at_s)):
            for end in range(begin, len(at_s)):
                # What a failed call leaves behind in its slice was given its turn before and asks for another.
                assert end - begin + 1 <= burst + 10 * (at_s[end] - at_s[begin]) + 0.01
    assert sorted(run.handled[None]) == [offset for offset, one in enumerate(keys) if one is None]


def test_of_two_keys_in_a_lane_each_goes_at_its_rate() -> None:
    keys: list[bytes | None] = [b"a", b"b"] * 50

    run = Run(scheduler_of(Rate(10, burst=1, per_key=True), 1, batch=False), keys, ())
    run.to_end()

    assert run.now_s < 5.0


def test_a_record_behind_one_that_has_to_wait_for_its_turn_goes_at_once() -> None:
    run = Run(scheduler_of(Rate(10, burst=1, per_key=True), 1, batch=False), [b"a", b"a", b"a", b"b"], ())

    run.to_end()

    assert run.calls[b"b"] == [0.0]


def test_a_retry_whose_key_has_to_wait_does_not_hold_up_another_that_is_due() -> None:
    fails = [True, True, False, False]  # the last comes first: the third record of a fails, and that of b

    run = Run(scheduler_of(Rate(10, burst=3, per_key=True), 1, batch=False), [b"a", b"a", b"a", b"b"], fails)
    run.to_end()

    assert run.calls[b"a"] == [0.0, 0.0, 0.0, pytest.approx(0.1)]
    assert run.calls[b"b"] == [0.0, 0.05]


def test_a_record_that_waits_for_its_first_turn_is_not_withdrawn_and_one_that_failed_is() -> None:
    scheduler = scheduler_of(Rate(10, burst=1, per_key=True), 1, batch=False)
    scheduler.own(Ownership(AT, 1))
    scheduler.offer(AT, [MemoryMessage(AT, offset, key=b"a", value=b"v") for offset in range(2)], 1, 0.0)
    first = scheduler.take(0.0)
    assert first is not None
    scheduler.finish(first)
    assert scheduler.take(0.0) is None

    untried = scheduler.withdraw(AT, 1)
    second = scheduler.take(0.2)
    assert second is not None
    scheduler.hold(second, second.messages, (), attempt=1, due_s=9.0)
    failed = scheduler.withdraw(AT, 1)

    assert untried is None
    assert failed is second.messages[0]
