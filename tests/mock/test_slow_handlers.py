"""Calls and back-offs longer than the client's poll interval: the loop goes on polling, so nothing is lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fleet.in_process import Running, committed, config
from fleet.workers import produce

from streamworker import DeadLetter, Handler, RetryableError
from streamworker.interfaces import Fault, FaultKind
from streamworker.testing import FakeSink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker import Record
    from streamworker.interfaces import Row, Written
    from streamworker.testing.mock_kafka import MockKafka
    from streamworker.work import Place

POLL_INTERVAL_S = 2
QUICK_POLLS = {
    "kafka__session_timeout_s": POLL_INTERVAL_S,
    "kafka__max_poll_interval_s": POLL_INTERVAL_S,
    "lifecycle__revoke_timeout_s": 1,
}


def test_a_call_or_a_back_off_longer_than_the_poll_interval_keeps_its_partition(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-18, F-64. Edge cases 34, 39, 99: partition 0 has the slow call, 1 the long back-off, 2 goes on meanwhile."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 3)
    seen: list[tuple[int, int, int]] = []
    never = threading.Event()

    class Slow(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            if record.offset == 0 and record.partition == 0:
                never.wait(POLL_INTERVAL_S + 1)
            if record.offset == 0 and record.partition == 1 and record.attempt == 1:
                raise RetryableError("later", retry_after_s=POLL_INTERVAL_S + 1)
            seen.append((record.partition, record.offset, record.attempt))

    with Running(config(servers, **QUICK_POLLS), Slow) as worker:
        produce(servers, "in", [(None, "x")] * 30, 3)
        worker.wait(lambda: committed(servers, "g", "in", 3) == {2: 10}, "partition 2 committed")
        worker.wait(lambda: len(seen) == 30, "all records")
        worker.wait(lambda: committed(servers, "g", "in", 3) == {0: 10, 1: 10, 2: 10}, "all committed")
        assert worker.stop() == 0

    assert len(seen) == len(set(seen))
    assert (1, 0, 2) in seen
    assert worker.recorder.of("lost") == []
    assert FaultKind.MAX_POLL_EXCEEDED not in [
        one.kind for (one,) in worker.recorder.of("fault") if isinstance(one, Fault)
    ]
    figures("F-18", "a call longer than the poll interval", records=len(seen), lost_partitions=0, repeats=0)
    figures("F-64", "a back-off longer than the poll interval", records=len(seen), lost_partitions=0, repeats=0)


def test_calls_that_time_out_are_made_again_on_other_threads_and_count_once(mock_kafka: MockKafka) -> None:
    """Edge case 47. The late calls return while their records are long done."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 2)
    go_on = threading.Event()
    seen: list[tuple[int, int, int]] = []
    late: list[str] = []

    class Hanging(Handler[bytes]):
        topics = ("in",)
        concurrency = 2
        timeout_s = 0.3

        def handle(self, record: Record[bytes]) -> None:
            if record.offset == 0 and record.attempt == 1:
                go_on.wait(60.0)
                late.append(threading.current_thread().name)
                return
            seen.append((record.partition, record.offset, record.attempt))

    with Running(config(servers), Hanging) as worker:
        produce(servers, "in", [(None, "x")] * 20, 2)
        worker.wait(lambda: len(worker.recorder.of("written_off")) == 2, "as many as there are threads are written off")
        go_on.set()
        worker.wait(lambda: committed(servers, "g", "in", 2) == {0: 10, 1: 10}, "all committed")
        worker.wait(lambda: len(worker.recorder.of("came_back_late")) >= 2, "the late calls")
        assert worker.stop() == 0

    handled = {(partition, offset): attempt for partition, offset, attempt in seen}
    assert handled == {(partition, offset): 2 if offset == 0 else 1 for partition in (0, 1) for offset in range(10)}
    assert len(seen) == len(handled)
    assert len(set(late)) == 2


class SlowSink(FakeSink):
    """Its first write of the record at `offset` waits; keeps marks."""

    def __init__(self, offset: int | None = None) -> None:
        super().__init__(marks=True)
        self.go_on = threading.Event()
        self.wrote_late = threading.Event()
        self._offset = offset

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        if self._offset in [row.offset for row in rows]:
            self._offset = None
            self.go_on.wait(60.0)
            self.wrote_late.set()
        return super().write(place, rows)


def test_what_was_called_before_a_call_that_times_out_is_done_once_it_is_written_and_not_before(
    mock_kafka: MockKafka,
) -> None:
    """Their rows were still to be written by the thread that hangs: a crash would have lost them."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 1)
    store = SlowSink()

    class Hanging(Handler[bytes]):
        topics = ("in",)
        ordering = "partition"
        timeout_s = 0.3
        sink = store
        dead_letter = DeadLetter("dlq")

        def handle(self, record: Record[bytes]) -> object:
            if record.offset == 10 and record.attempt == 1:
                store.go_on.wait(60.0)
            return record.offset

    mock_kafka.create_topic("dlq", 1)
    produce(servers, "in", [(None, "x")] * 20, 1)
    with Running(config(servers, flow__sink_slice_s=1.0), Hanging) as worker:
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: 20}, "all committed")
        before = list(store.values)
        store.go_on.set()
        worker.wait(lambda: len(worker.recorder.of("came_back_late")) >= 1, "the late call")
        assert worker.stop() == 0

    assert before == list(range(20))
    assert store.values == before


def test_a_write_that_takes_longer_than_a_call_may_is_made_again_and_has_no_second_effect(
    mock_kafka: MockKafka,
) -> None:
    """What a slice is about to write counted as done when its last call was written off."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 1)
    store = SlowSink(offset=10)

    class Stores(Handler[bytes]):
        topics = ("in",)
        ordering = "partition"
        timeout_s = 0.3
        sink = store

        def handle(self, record: Record[bytes]) -> object:
            return record.offset

    produce(servers, "in", [(None, "x")] * 20, 1)
    with Running(config(servers, flow__sink_slice_s=1.0), Stores) as worker:
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: 20}, "all committed")
        before = list(store.values)
        store.go_on.set()
        worker.wait(lambda: len(worker.recorder.of("came_back_late")) >= 1, "the late write")
        assert worker.stop() == 0

    assert before == list(range(20))
    assert store.values == before
