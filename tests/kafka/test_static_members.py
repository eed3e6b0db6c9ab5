"""Two processes with one instance id: one of them is fenced and ends, or waits for the other, and nothing is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from fleet.checker import Anomaly
from fleet.trial import Trial
from fleet.workers import terminate

from streamworker.exit_code import ExitCode

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka

PARTITIONS = 4
TOTAL = 900


@pytest.mark.parametrize("busy", [True, False])
def test_of_two_processes_with_one_instance_id_the_older_one_of_a_classic_group_ends(
    kafka: SharedKafka, tmp_path: Path, busy: bool, figures: Callable[..., None]
) -> None:
    """F-22."""
    with trial_on(kafka, tmp_path, "classic") as trial:
        first = trial.fleet.start()
        trial.wait_for_owners(1)
        if busy:
            trial.send()
            trial.wait_for_progress(0.2)
        trial.fleet.strike("fenced", first)
        second = trial.fleet.start()
        ended_s = seconds_to_the_end_of(first, trial)
        if not busy:
            trial.send()
        verdict = trial.verdict()

        assert first.returncode == ExitCode.FENCED
        assert second.poll() is None
    # Until it hears of the other one, the older member goes on with its calls.
    heard_late = (Anomaly.KEY_OVERLAP, Anomaly.FOREIGN_EFFECT) if busy else ()
    assert verdict.broken(*heard_late) == []
    what = f"a second one with the same instance id, classic, {'busy' if busy else 'idle'}"
    figures("F-22", what, ended_s=ended_s, **verdict.figures())


def test_of_two_processes_with_one_instance_id_the_newer_one_of_the_other_protocol_waits_until_the_older_has_left(
    kafka: SharedKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-22. As after a crash, when the coordinator still waits for the one that is gone."""
    with trial_on(kafka, tmp_path, "consumer") as trial:
        first = trial.fleet.start()
        trial.wait_for_owners(1)
        trial.send()
        trial.wait_for_progress(0.2)
        second = trial.fleet.start()
        trial.fleet.wait(lambda: "unreleased" in trial.fleet.logs(), "the refusal", timeout_s=20)
        terminate(first)
        left_s = time.monotonic()
        trial.fleet.wait(lambda: trial.fleet.logs().count('"assigned"') > 1, "the second one's turn", timeout_s=20)
        took_s = round(time.monotonic() - left_s, 1)
        verdict = trial.verdict()

        assert first.returncode == ExitCode.OK
        assert second.poll() is None
    assert verdict.broken() == []
    figures("F-22", "a second one with the same instance id, consumer", joined_s=took_s, **verdict.figures())


def seconds_to_the_end_of(worker: subprocess.Popen[bytes], trial: Trial) -> float:
    began_s = time.monotonic()
    trial.fleet.wait(lambda: worker.poll() is not None, "the end of the fenced one", timeout_s=10)
    return round(time.monotonic() - began_s, 1)


def trial_on(kafka: SharedKafka, folder: Path, protocol: str) -> Trial:
    options = {
        "kafka.group_protocol": protocol,
        "kafka.librdkafka.group.instance.id": "one",
        "app.work_s": 0.01,
    }
    return Trial(
        kafka.bootstrap_servers,
        kafka.topic("static", partitions=PARTITIONS),
        kafka.group("static"),
        folder,
        partitions=PARTITIONS,
        total=TOTAL,
        rate=300,
        options=options,
        sends_at_once=False,
    )
