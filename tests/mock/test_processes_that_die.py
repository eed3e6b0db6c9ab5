"""Workers that end at any instant, and others that take over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.crash_points import HANDLER, METHODS
from fleet.trial import Trial
from sizes import SOAK

from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTITIONS = 4
DEEDS = {"flaky": 0.02, "poison": 0.01, "failing": 0.01}
OPTIONS = {
    "kafka.group_protocol": "classic",
    "kafka.session_timeout_s": 1,
    "lifecycle.revoke_timeout_s": 0.5,
    "app.work_s": 0.002,
}


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """A cluster for one run: what it keeps of a topic is little."""
    with MockKafka(topics={"in": PARTITIONS, "in.dlq": 2}) as cluster:
        yield cluster


def trial_on(kafka: MockKafka, folder: Path, **options: object) -> Trial:
    kind = {"handler": "fleet.apps:LedgerWithDeadLetters", "letter_partitions": 2, "deeds": DEEDS, "options": OPTIONS}
    return Trial(kafka.bootstrap_servers, "in", "g", folder, partitions=PARTITIONS, **{**kind, **options})


def test_kills_at_random_instants_lose_nothing_and_reorder_nothing(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-01."""
    kills = 6 * SOAK

    with trial_on(kafka, tmp_path, total=500 * kills, rate=400) as trial:
        trial.fleet.start()
        trial.fleet.start()
        for kill in range(kills):
            trial.wait_for_progress((kill + 0.5 + 0.5 * trial.draw.random()) / (kills + 1))
            trial.fleet.kill(trial.draw.choice(trial.fleet.living()))
            trial.fleet.start()
        verdict = trial.verdict()

    assert verdict.broken() == []
    figures("F-01", "SIGKILL at random instants", kills=kills, **verdict.figures())


WAYS_TO_KILL = [("F-07", "allocate"), ("F-08", "exit"), *([("F-08", "segfault")] if SOAK > 1 else [])]


@pytest.mark.parametrize(("row", "kill"), WAYS_TO_KILL)
def test_a_record_that_kills_its_process_is_dead_lettered_after_three_deaths(
    kafka: MockKafka, tmp_path: Path, row: str, kill: str, figures: Callable[..., None]
) -> None:
    """F-07, F-08. Of one worker that owns all partitions, one record each time starts the next one."""
    options = {**OPTIONS, "app.killer": "1@40", "app.kill": kill}
    with trial_on(
        kafka, tmp_path, total=400, deeds={}, handler="fleet.apps:LedgerWithKillers", options=options
    ) as trial:
        trial.workload.finish()
        deaths = -1

        def is_over() -> bool:
            nonlocal deaths
            if not trial.fleet.living():
                deaths += 1
                trial.fleet.strike("died")
                trial.fleet.start()
            return trial.watcher.committed() == trial.workload.ends()

        trial.fleet.wait(is_over, "an end of the dying")
        verdict = trial.verdict()
        letters = trial.copies()

    assert deaths == 3
    assert letters == [(1, 40)]
    assert verdict.broken() == []
    figures(row, f"a record whose handler ends the process: {kill}", deaths=deaths, **verdict.figures())


# Those that a record passes by itself; of these the tenth time is tried as well, where there is time for it.
PER_RECORD = [*HANDLER, "before_dispatch", "after_dispatch", "after_outcome_before_mark"]
POINTS = [f"{name}:1" for name in (*METHODS, *HANDLER)] + [f"{name}:10" for name in PER_RECORD if SOAK > 1]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_point_of_a_records_way_loses_nothing(
    kafka: MockKafka, tmp_path: Path, point: str, figures: Callable[..., None]
) -> None:
    """F-02. One of two workers dies at the point. What it takes for some: it drains, or gives half to the second."""
    deeds = {"flaky": 0.02, "poison": 0.06, "failing": 0.02}  # so that each worker has some dead letters to write
    total = 2400 if "_on_" in point else 400  # so that a rebalance meets records
    with trial_on(kafka, tmp_path, total=total, rate=800, deeds=deeds, sends_at_once=False) as trial:
        armed = trial.fleet.start(crash_point=point)
        if "revoke" in point:
            trial.wait_for_owners(1)
            trial.send()
            trial.wait_for_progress(0.1)
        trial.fleet.start()
        if "revoke" not in point:
            if "assign" not in point:
                trial.wait_for_owners(2)
            trial.send()
        if "drain" in point:
            trial.wait_for_progress(0.1)
            armed.terminate()
        assert armed.wait(60) == -9
        verdict = trial.verdict()

    assert verdict.broken() == []
    figures("F-02", f"SIGKILL at {point}", **verdict.figures())
