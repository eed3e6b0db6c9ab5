"""Answers and requests that are lost between a worker and a Kafka that has taken them, or never sees them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # the package does not list what it exports
from fleet.checker import Anomaly
from fleet.trial import Trial
from fleet.workers import let_pass
from servers.kafka import SharedKafka
from servers.proxy import FaultProxy
from sizes import SOAK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka_cluster import KafkaCluster

PARTITIONS = 2
POISON = 0.5  # the share of records that become dead letters
LOST_S = 1.0
# As they are by default: what is not acknowledged in this time is a new letter, which may be a copy.
OPTIONS = {"dead_letters.delivery_timeout_s": 15, "lifecycle.drain_timeout_s": 25}
TIMEOUT_S = 30.0


@pytest.mark.timeout(120 * SOAK)
def test_what_a_broker_has_taken_it_does_not_take_again(
    behind_a_proxy: tuple[KafkaCluster, FaultProxy], tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-38. One dead letter for each record that cannot be handled, though the producer has to send some twice."""
    cluster, proxy = behind_a_proxy
    names = SharedKafka(cluster)
    topic = names.topic("in", partitions=PARTITIONS)
    names.admin.create_topics([NewTopic(f"{topic}.dlq", 1)])[f"{topic}.dlq"].result(TIMEOUT_S)
    faults = [FaultProxy.drop_down, FaultProxy.drop_up, FaultProxy.drop_down] * SOAK

    with Trial(
        cluster.bootstrap_servers,
        topic,
        names.group("lost"),
        tmp_path,
        partitions=PARTITIONS,
        total=250 * len(faults),
        rate=150,
        deeds={"poison": POISON},
        handler="fleet.apps:LedgerWithDeadLetters",
        letter_partitions=1,
        options=OPTIONS,
        watch=cluster.direct_servers,
    ) as trial:
        trial.fleet.start()
        for number, lose in enumerate(faults):
            trial.wait_for_progress((1 - POISON) * (number + 0.1) / len(faults))
            trial.fleet.strike("answers or requests are lost")
            lose(proxy)
            let_pass(LOST_S)
            proxy.heal()
        verdict = trial.verdict()
        copies = Counter(trial.copies())

    # A commit whose answer is lost is sent again by the client, perhaps after a newer one; the worker repeats that one.
    assert verdict.broken(Anomaly.COMMIT_REGRESS) == []
    assert verdict.repeats == 0
    assert set(copies.values()) == {1}
    letters = {"dead_letters": len(copies), "copies": sum(copies.values())}
    figures("F-38", "answers and requests lost on Kafka", **letters, **verdict.figures())
