from __future__ import annotations

from dataclasses import replace

from streamworker.observability.stall import Stall, StallKind, Stillness, stalls
from streamworker.observability.status import (
    LifeState,
    PartitionStatus,
    PauseStatus,
    RunningSlice,
    StopStatus,
    WorkerStatus,
)
from streamworker.reason import Reason

WAITING = PartitionStatus(topic="orders", partition=0, epoch=1, next_offset=100, position=100, lag_records=5)
WORKER = WorkerStatus(
    state=LifeState.RUNNING, group="shop", handlers=("H",), protocol="classic", started_s=0.0, now_s=0.0
)


def stalls_after(
    seconds: float,
    before: PartitionStatus,
    after: PartitionStatus | None = None,
    running: tuple[RunningSlice, ...] = (),
) -> list[StallKind]:
    stillness = Stillness()
    stillness.mark((before,), running, 0.0)
    partitions = stillness.mark((after or before,), running, seconds)
    worker = replace(WORKER, partitions=partitions, running=running, last_poll_s=seconds)
    found = stalls(worker, seconds, stall_timeout_s=60.0, handler_timeout_s=None)
    return [stall.kind for stall in found]


def test_lag_without_delivery_for_the_stall_timeout_is_a_client_stall() -> None:
    assert stalls_after(61.0, WAITING) == [StallKind.CLIENT]
    assert stalls_after(60.0, WAITING) == []


def test_progress_begins_the_time_anew() -> None:
    assert stalls_after(61.0, WAITING, replace(WAITING, position=101)) == []
    assert stalls_after(61.0, WAITING, replace(WAITING, next_offset=101, lag_records=4)) == []
    assert stalls_after(61.0, WAITING, replace(WAITING, epoch=2)) == []


def test_growing_lag_is_no_progress() -> None:
    assert stalls_after(61.0, WAITING, replace(WAITING, lag_records=500)) == [StallKind.CLIENT]


def test_a_partition_that_was_idle_is_not_stalled_by_its_first_record() -> None:
    idle = replace(WAITING, lag_records=0)

    assert stalls_after(3_600.0, idle, WAITING) == []


def test_a_partition_that_is_kept_on_purpose_is_not_stalled() -> None:
    assert stalls_after(61.0, replace(WAITING, pauses=(PauseStatus("backpressure", 0.0),))) == []
    assert (
        stalls_after(61.0, replace(WAITING, stopped=StopStatus(Reason.BLOCKED, "", mends_itself=False, since_s=0.0)))
        == []
    )
    assert stalls_after(61.0, replace(WAITING, buffered_records=1, held_records=1)) == []


def test_markers_at_the_end_of_the_log_are_not_waited_for() -> None:
    assert stalls_after(61.0, replace(WAITING, position=105)) == []


def test_without_a_known_end_of_the_log_nothing_is_claimed() -> None:
    assert stalls_after(61.0, replace(WAITING, lag_records=None)) == []


def test_a_partition_in_a_handlers_hands_is_not_the_clients_stall() -> None:
    call = RunningSlice("H", "orders", 0, 100, 2.0)

    assert stalls_after(61.0, WAITING, running=(call,)) == []


def test_fetched_records_that_nobody_handles_are_the_loops_stall() -> None:
    assert stalls_after(61.0, replace(WAITING, buffered_records=5)) == [StallKind.LOOP]


def test_fetched_records_wait_while_calls_of_other_partitions_run() -> None:
    elsewhere = RunningSlice("H", "orders", 1, 7, 2.0)

    assert stalls_after(61.0, replace(WAITING, buffered_records=5), running=(elsewhere,)) == []


def test_a_long_call_is_reported_by_its_place_and_a_timed_out_one_is_told_apart() -> None:
    worker = replace(
        WORKER,
        last_poll_s=500.0,
        running=(RunningSlice("H", "orders", 0, 100, 61.0), RunningSlice("H", "orders", 1, 7, 301.0)),
    )

    assert stalls(worker, 500.0, stall_timeout_s=60.0, handler_timeout_s=300.0) == (
        Stall(StallKind.HANDLER, "H at orders[0]@100", 61.0),
        Stall(StallKind.HANDLER_TIMEOUT, "H at orders[1]@7", 301.0),
    )


def test_a_handler_timeout_below_the_stall_timeout_holds() -> None:
    worker = replace(WORKER, last_poll_s=500.0, running=(RunningSlice("H", "orders", 0, 100, 11.0),))

    found = stalls(worker, 500.0, stall_timeout_s=60.0, handler_timeout_s=10.0)

    assert [stall.kind for stall in found] == [StallKind.HANDLER_TIMEOUT]


def test_a_loop_that_does_not_poll_is_stalled_while_running_and_not_while_draining() -> None:
    hanging = replace(WORKER, last_poll_s=0.0)

    running = stalls(hanging, 61.0, stall_timeout_s=60.0, handler_timeout_s=None)
    draining = stalls(replace(hanging, state=LifeState.DRAINING), 61.0, stall_timeout_s=60.0, handler_timeout_s=None)

    assert [stall.kind for stall in running] == [StallKind.LOOP]
    assert draining == ()


def test_revoked_partitions_are_forgotten() -> None:
    stillness = Stillness()
    stillness.mark((WAITING,), (), 0.0)

    stillness.mark((), (), 30.0)
    (again,) = stillness.mark((WAITING,), (), 61.0)

    assert again.still_since_s == 61.0
