"""Brokers that slow a worker down because it has used its quota up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from fleet.trial import Trial
from missing import obtained
from servers.kafka import run_tool
from servers.kafka_jars import require_java
from sizes import SOAK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers.kafka import SharedKafka

PARTITIONS = 4
PADDING = "x" * 500  # most of a record
BYTES_PER_S = 100_000
# Brokers count over eleven windows of one second (quota.window.num): what is for ten seconds may come at once, and then
# nothing until it is long enough ago.
AT_ONCE_S = 10
THROTTLED_S = 4 * SOAK
RECORDS = (AT_ONCE_S + THROTTLED_S) * BYTES_PER_S // len(PADDING)


@pytest.fixture
def throttled(kafka: SharedKafka) -> Iterator[str]:
    """Name of clients that may fetch no more than `BYTES_PER_S` together."""
    client_id = kafka.group("throttled")
    obtained(require_java)
    obtained(lambda: _alter_quota(kafka, client_id, "--add-config", f"consumer_byte_rate={BYTES_PER_S}"))
    yield client_id
    _alter_quota(kafka, client_id, "--delete-config", "consumer_byte_rate")


def _alter_quota(kafka: SharedKafka, client_id: str, *change: str) -> None:
    """By Kafka's own tool: the client has no such request."""
    entity = ("--entity-type", "clients", "--entity-name", client_id)
    run_tool("kafka.admin.ConfigCommand", "--bootstrap-server", kafka.bootstrap_servers, "--alter", *entity, *change)


@pytest.mark.timeout(120 * SOAK)
def test_a_quota_slows_workers_down_and_does_nothing_else(
    kafka: SharedKafka, throttled: str, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-3F."""
    options = {
        "kafka.librdkafka.client.id": throttled,
        "kafka.librdkafka.max.partition.fetch.bytes": BYTES_PER_S // PARTITIONS,  # not all at once
    }

    with Trial(
        kafka.bootstrap_servers,
        kafka.topic("in", partitions=PARTITIONS),
        kafka.group("quota"),
        tmp_path,
        partitions=PARTITIONS,
        total=RECORDS,
        deeds={PADDING: 1.0},
        options=options,
        workload_settings={"batch.num.messages": 20},  # a batch is fetched as a whole
        sends_at_once=False,
    ) as trial:
        trial.fleet.start()
        trial.fleet.start()
        trial.wait_for_owners(2)
        trial.send()
        trial.workload.finish()
        verdict = trial.verdict()
        called_s = sorted(effect.began_s for effect in trial.fleet.effects())
        lines = [line for line in trial.fleet.logs().splitlines() if line]

    took_s = called_s[-1] - called_s[0]
    assert verdict.broken() == []
    assert verdict.repeats == 0
    assert [line for line in lines if json.loads(line)["level"] in ("error", "critical")] == []
    assert took_s > THROTTLED_S / 2
    rate = round(RECORDS * len(PADDING) / 1000 / took_s)
    figures("F-3F", f"quota of {BYTES_PER_S // 1000} kB/s", kb_per_s=rate, took_s=round(took_s, 1), **verdict.figures())
