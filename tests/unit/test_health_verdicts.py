from __future__ import annotations

from dataclasses import replace

import pytest

from streamworker.config import Config, LifecycleConfig
from streamworker.observability.health import Limits, Verdict, live, ready, startup
from streamworker.observability.status import (
    LifeState,
    PartitionStatus,
    PauseStatus,
    RunningSlice,
    StopStatus,
    WorkerStatus,
)
from streamworker.reason import Reason

NOW_S = 1_000.0
PARTITION = PartitionStatus(topic="orders", partition=0, epoch=1)
WELL = WorkerStatus(
    state=LifeState.RUNNING,
    group="shop",
    handlers=("StoreOrder",),
    protocol="classic",
    started_s=0.0,
    now_s=NOW_S,
    last_poll_s=NOW_S - 0.1,
    joined=True,
    join_state="steady",
    join_state_since_s=10.0,
    partitions=(PARTITION,),
)
LIMITS = Limits.of(Config())


def failing(verdict: Verdict) -> list[str]:
    assert verdict.ok == all(verdict.checks.values())
    return [check for check, passed in verdict.checks.items() if not passed]


def test_a_worker_that_does_its_work_passes_all_probes() -> None:
    assert failing(startup(WELL)) == []
    assert failing(live(WELL, NOW_S, LIMITS)) == []
    assert failing(ready(WELL, NOW_S, LIMITS)) == []


def test_startup_passes_with_the_first_poll_and_asks_for_no_partition() -> None:
    assert failing(startup(replace(WELL, last_poll_s=None))) == ["polled"]
    assert startup(replace(WELL, partitions=(), joined=False)).ok


def test_a_worker_that_starts_is_alive_and_not_ready() -> None:
    starting = replace(WELL, state=LifeState.STARTING, last_poll_s=None, started_s=NOW_S - 5, joined=False)

    assert live(starting, NOW_S, LIMITS).ok
    assert failing(ready(starting, NOW_S, LIMITS)) == ["started", "joined"]


def test_a_loop_that_does_not_poll_is_first_not_ready_and_then_not_alive() -> None:
    hanging = replace(WELL, last_poll_s=0.0)

    assert failing(ready(hanging, 61.0, LIMITS)) == ["none_stalled"]
    assert live(hanging, 300.0, LIMITS).ok
    assert failing(live(hanging, 301.0, LIMITS)) == ["polling"]


def test_a_start_that_never_polls_is_not_alive_for_ever() -> None:
    starting = replace(WELL, state=LifeState.STARTING, last_poll_s=None, started_s=0.0)

    assert failing(live(starting, 301.0, LIMITS)) == ["polling"]


def test_a_closing_worker_is_alive_and_not_ready() -> None:
    closed = replace(WELL, state=LifeState.CLOSED, last_poll_s=0.0)

    assert live(closed, NOW_S, LIMITS).ok
    assert failing(ready(closed, NOW_S, LIMITS)) == ["not_draining"]


def test_a_call_beyond_the_handler_timeout_ends_liveness_and_without_one_none_does() -> None:
    long_call = replace(WELL, running=(RunningSlice("StoreOrder", "orders", 0, 7, 31.0),))
    limits = Limits.of(Config(lifecycle=LifecycleConfig(handler_timeout_s=30.0)))

    assert failing(live(long_call, NOW_S, limits)) == ["calls_in_time"]
    assert live(long_call, NOW_S, LIMITS).ok


def test_a_fatal_client_is_not_alive() -> None:
    assert failing(live(replace(WELL, fatal="_FATAL"), NOW_S, LIMITS)) == ["client_usable"]


@pytest.mark.parametrize(
    ("join_state", "age_s", "alive"),
    [
        ("wait-sync", 599.0, True),
        ("wait-sync", 601.0, False),
        ("wait-join", 601.0, False),
        ("steady", 90_000.0, True),
        ("init", 90_000.0, True),
        ("wait-metadata", 90_000.0, True),
    ],
)
def test_only_a_rebalance_that_is_frozen_ends_liveness(join_state: str, age_s: float, *, alive: bool) -> None:
    worker = replace(WELL, joined=False, join_state=join_state, join_state_since_s=NOW_S - age_s)

    assert live(worker, NOW_S, LIMITS).ok is alive


def test_draining_is_not_ready_and_still_alive() -> None:
    draining = replace(WELL, state=LifeState.DRAINING)

    assert failing(ready(draining, NOW_S, LIMITS)) == ["not_draining"]
    assert live(draining, NOW_S, LIMITS).ok


def test_a_stopped_partition_is_not_ready_and_still_alive() -> None:
    stop = StopStatus(Reason.OFFSET_OUT_OF_RANGE, "offset 5", mends_itself=False, since_s=NOW_S)
    stopped = replace(WELL, partitions=(PARTITION, replace(PARTITION, stopped=stop)))

    assert failing(ready(stopped, NOW_S, LIMITS)) == ["none_stopped"]
    assert live(stopped, NOW_S, LIMITS).ok


def test_an_exhausted_dead_letter_budget_is_not_ready_and_backpressure_is() -> None:
    exhausted = replace(PARTITION, pauses=(PauseStatus("dead_letter_budget", 0.0),))
    busy = replace(PARTITION, pauses=(PauseStatus("backpressure", 0.0),))

    assert failing(ready(replace(WELL, partitions=(exhausted,)), NOW_S, LIMITS)) == ["none_stopped"]
    assert ready(replace(WELL, partitions=(busy,)), NOW_S, LIMITS).ok


def test_a_stalled_partition_is_not_ready() -> None:
    stalled = replace(WELL, partitions=(replace(PARTITION, still_since_s=NOW_S - 61),))

    assert failing(ready(stalled, NOW_S, LIMITS)) == ["none_stalled"]


def test_a_slow_call_is_degraded_and_ready() -> None:
    slow = replace(WELL, running=(RunningSlice("StoreOrder", "orders", 0, 7, 61.0),), degraded=("redis",))

    verdict = ready(slow, NOW_S, LIMITS)

    assert verdict.ok
    assert verdict.degraded == ("redis", "StoreOrder at orders[0]@7: no progress for 61 s")


def test_lag_and_an_empty_assignment_are_ready() -> None:
    assert ready(replace(WELL, partitions=()), NOW_S, LIMITS).ok
    assert ready(replace(WELL, partitions=(replace(PARTITION, lag_records=1_000_000),)), NOW_S, LIMITS).ok


def test_a_worker_whose_commits_are_refused_for_long_is_not_ready_and_lives() -> None:
    refused = replace(WELL, commits_refused_since_s=NOW_S - 6.0)

    assert failing(ready(refused, NOW_S, LIMITS)) == ["commits_taken"]
    assert failing(live(refused, NOW_S, LIMITS)) == []
    assert failing(ready(replace(WELL, commits_refused_since_s=NOW_S - 4.0), NOW_S, LIMITS)) == []
