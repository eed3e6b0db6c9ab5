"""Two processes with one instance id: one of them is fenced and ends, and nothing is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from fleet.checker import Anomaly
from fleet.trial import Trial

from streamworker.exit_code import ExitCode

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka

PARTITIONS = 4
TOTAL = 900


@pytest.mark.parametrize(("protocol", "busy"), [("classic", True), ("classic", False), ("consumer", True)])
def test_of_two_processes_with_one_instance_id_the_fenced_one_ends(
    kafka: SharedKafka, tmp_path: Path, protocol: str, busy: bool, figures: Callable[..., None]
) -> None:
    """F-22. The older one of a classic group, which may be idle, the newer one of the other protocol."""
    with trial_on(kafka, tmp_path, protocol) as trial:
        first = trial.fleet.start()
        trial.wait_for_owners(1)
        if busy:
            trial.send()
            trial.wait_for_progress(0.2)
        trial.fleet.strike("fenced", first)
        second = trial.fleet.start()
        fenced, stays = (first, second) if protocol == "classic" else (second, first)
        ended_s = seconds_to_the_end_of(fenced, trial)
        if not busy:
            trial.send()
        verdict = trial.verdict()

        assert fenced.returncode == ExitCode.FENCED
        assert stays.poll() is None
    # Until it hears of the other one, the older member goes on with its calls.
    heard_late = (Anomaly.KEY_OVERLAP, Anomaly.FOREIGN_EFFECT) if (protocol, busy) == ("classic", True) else ()
    assert verdict.broken(*heard_late) == []
    what = f"a second one with the same instance id, {protocol}, {'busy' if busy else 'idle'}"
    figures("F-22", what, ended_s=ended_s, **verdict.figures())


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
