"""A broker that is killed in the middle of the work and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.checker import Anomaly
from fleet.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_broker_killed_in_the_middle_costs_no_record(
    kafka: SharedKafka, tmp_path: Path, protocol: str, figures: Callable[..., None]
) -> None:
    """F-30. Edge cases 2, 14, 17, 97: the workers, and the producer, find it again by themselves."""
    if not kafka.server.owned:
        pytest.skip("the Kafka was given, so it is not killed")
    topic, group = kafka.topic("in", partitions=2), kafka.group("restart")
    options = {"kafka.group_protocol": protocol, "app.work_s": 0.01, "kafka.librdkafka.reconnect.backoff.max.ms": 500}

    with Trial(
        kafka.bootstrap_servers,
        topic,
        group,
        tmp_path,
        partitions=2,
        total=900,
        rate=100,
        options=options,
        workload_settings={"reconnect.backoff.max.ms": 500},
    ) as trial:
        trial.fleet.start()
        trial.fleet.start()
        trial.wait_for_progress(0.15)
        trial.fleet.strike("broker killed")
        kafka.server.kill()
        kafka.server.restart()
        verdict = trial.verdict()

        assert [worker.poll() for worker in trial.fleet.workers] == [None, None]
    # The client sends a commit again that found no coordinator; it may land after a newer one, which goes again then.
    assert verdict.broken(Anomaly.COMMIT_REGRESS) == []
    figures("F-30", f"SIGKILL of the only broker, {protocol}", **verdict.figures())
