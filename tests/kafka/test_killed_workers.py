"""Workers that die at any instant and others that stop in order, on a real Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.trial import Trial
from fleet.workers import terminate
from sizes import SOAK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka

PARTITIONS = 4


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_sigkill_loses_nothing_and_keeps_the_order_of_every_key(
    kafka: SharedKafka, tmp_path: Path, protocol: str, figures: Callable[..., None]
) -> None:
    """F-01. Edge cases 1, 2, 3, 27: two workers, one of them killed and replaced three times over.

    A record that is in work at all three deaths becomes a dead letter.
    """
    kills = 3 * SOAK

    with _trial(kafka, tmp_path, protocol, total=1000 * kills) as trial:
        trial.fleet.start()
        trial.fleet.start()
        for kill in range(kills):
            trial.wait_for_progress((kill + trial.draw.random()) / (kills + 1))
            trial.fleet.kill(trial.draw.choice(trial.fleet.living()))
            trial.fleet.start()
        verdict = trial.verdict()

    assert verdict.broken() == []
    figures("F-01", f"SIGKILL on Kafka, {protocol}", kills=kills, **verdict.figures())


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_stop_in_order_repeats_nothing(
    kafka: SharedKafka, tmp_path: Path, protocol: str, figures: Callable[..., None]
) -> None:
    """F-24. Promises of a bounded repeat and of a drain: a rolling restart under load handles each record once."""
    with _trial(kafka, tmp_path, protocol, total=2000) as trial:
        first, second = trial.fleet.start(), trial.fleet.start()
        trial.fleet.wait(lambda: trial.fleet.logs().count('"started"') == 2, "both heed signals")
        codes = []
        for share, worker in ((0.25, first), (0.5, second)):
            trial.wait_for_progress(share)
            trial.fleet.start()
            codes.append(terminate(worker))
        verdict = trial.verdict()

    assert codes == [0, 0]
    assert verdict.broken() == []
    assert verdict.repeats == 0
    figures("F-24", f"rolling restart on Kafka, {protocol}", stops=2, **verdict.figures())


def _trial(kafka: SharedKafka, folder: Path, protocol: str, *, total: int) -> Trial:
    topic = kafka.topic("orders", partitions=PARTITIONS)
    kafka.dead_letters(topic)
    return Trial(
        kafka.bootstrap_servers,
        topic,
        kafka.group("orders"),
        folder,
        handler="fleet.apps:LedgerWithDeadLetters",
        letter_partitions=1,
        partitions=PARTITIONS,
        total=total,
        deeds={"flaky": 0.01},
        options={"kafka.group_protocol": protocol, "app.work_s": 0.004},
    )
