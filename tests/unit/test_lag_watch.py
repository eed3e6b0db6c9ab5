from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from streamworker.clock import SystemClock
from streamworker.errors import ClientError
from streamworker.observability.lag import LagWatch, lag_records
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

A, B = TopicPartition("orders", 0), TopicPartition("orders", 1)


class FakeLog:
    def __init__(self) -> None:
        self.ends = {A: 10, B: 20}
        self.error: Exception | None = None
        self.asked: list[Sequence[TopicPartition]] = []
        self.was_asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def topic_ids(self, topics: Sequence[str], timeout_s: float) -> Mapping[str, str]:
        raise NotImplementedError

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        self.asked.append(partitions)
        self.was_asked.set()
        self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return {partition: self.ends[partition] for partition in partitions}

    def offsets_at(
        self, partitions: Sequence[TopicPartition], timestamp_ms: int, timeout_s: float
    ) -> Mapping[TopicPartition, int]:
        raise NotImplementedError

    def partitions(self, topic: str, timeout_s: float) -> Sequence[TopicPartition]:
        raise NotImplementedError


def test_ends_are_asked_for_the_watched_partitions_only() -> None:
    log = FakeLog()
    watch = LagWatch(log, SystemClock())

    watch.watch([B])
    watch.refresh()

    assert watch.ends().offsets == {B: 20}


def test_partitions_that_are_no_longer_watched_have_no_figure() -> None:
    watch = LagWatch(FakeLog(), SystemClock())
    watch.watch([A, B])
    watch.refresh()

    watch.watch([])
    watch.refresh()

    assert watch.ends().offsets == {}


class Ticking:
    def __init__(self) -> None:
        self.now_ms = 0

    def monotonic_s(self) -> float:
        return self.now_ms / 1000

    def wall_ms(self) -> int:
        self.now_ms += 1_000
        return self.now_ms


def test_what_is_told_was_in_the_log_when_it_was_asked_for() -> None:
    log, clock = FakeLog(), Ticking()
    watch = LagWatch(log, clock)
    watch.watch([A])

    watch.refresh()
    first = watch.ends().asked_ms
    log.error = ClientError("no answer", code="_TIMED_OUT")
    watch.refresh()

    assert (first, watch.ends().asked_ms) == (1_000, 1_000)


def test_the_last_figures_stay_for_a_while() -> None:
    log = FakeLog()
    watch = LagWatch(log, SystemClock())
    watch.watch([A])
    watch.refresh()

    log.error = ClientError("no answer", code="_TIMED_OUT")
    watch.refresh()

    assert watch.ends().offsets == {A: 10}


def test_figures_that_could_not_be_renewed_three_times_are_unknown_until_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = FakeLog()
    watch = LagWatch(log, SystemClock())
    watch.watch([A])
    watch.refresh()

    log.error = ClientError("no answer", code="_TIMED_OUT")
    for _ in range(5):
        watch.refresh()
    forgotten = watch.ends().offsets
    log.error = None
    watch.refresh()

    assert forgotten == {}
    assert watch.ends().offsets == {A: 10}
    assert [record.message for record in caplog.records] == ["the lag is unknown: no answer"]


def test_the_side_thread_asks_as_soon_as_there_is_something_new_to_watch() -> None:
    log = FakeLog()
    watch = LagWatch(log, SystemClock(), interval_s=3_600.0)
    watch.start()

    watch.watch([A])

    assert log.was_asked.wait(5.0)
    assert watch.stop()
    assert log.asked[0] == [A]


def test_the_side_thread_survives_any_error() -> None:
    log = FakeLog()
    log.error = ZeroDivisionError("a bug in the log")
    watch = LagWatch(log, SystemClock(), interval_s=0.001)
    watch.start()
    watch.watch([A])
    assert log.was_asked.wait(5.0)

    log.was_asked.clear()

    assert log.was_asked.wait(5.0)
    assert watch.stop()


def test_stopping_does_not_wait_longer_than_told_for_an_open_question() -> None:
    log = FakeLog()
    log.may_answer.clear()
    watch = LagWatch(log, SystemClock())
    watch.start()
    watch.watch([A])
    assert log.was_asked.wait(5.0)

    assert not watch.stop(timeout_s=0.01)
    log.may_answer.set()
    assert watch.stop(timeout_s=5.0)


def test_a_watch_that_was_never_started_can_be_stopped() -> None:
    assert LagWatch(FakeLog(), SystemClock()).stop()


@given(st.none() | st.integers(0), st.none() | st.integers(0))
def test_lag_is_the_distance_to_the_end_never_negative_and_unknown_without_both(
    end_offset: int | None, next_offset: int | None
) -> None:
    lag = lag_records(end_offset, next_offset)

    if end_offset is None or next_offset is None:
        assert lag is None
    else:
        assert lag == max(0, end_offset - next_offset)
