"""Where a group without offsets begins is committed before a record of it is handled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import Producer
from fleet.in_process import Running, committed, config
from fleet.workers import Fleet, produce

from streamworker import Handler

if TYPE_CHECKING:
    from pathlib import Path

    from servers.kafka import SharedKafka

    from streamworker import Record

NOON_MS = 1_577_880_000_000  # 2020-01-01T12:00:00Z


def test_a_start_at_the_end_survives_a_crash_before_the_first_record(kafka: SharedKafka, tmp_path: Path) -> None:
    """Edge case 29: otherwise the next worker would begin at a later end, and skip."""
    servers, topic, group = kafka.bootstrap_servers, kafka.topic("in", partitions=2), kafka.group("latest")
    produce(servers, topic, [(None, "old")] * 20, 2)
    options = {"kafka.group_protocol": "classic", "kafka.start": "latest"}

    with Fleet(servers, group, topic, tmp_path, handler="fleet.apps:LedgerInOrder", options=options) as fleet:
        victim = fleet.start()
        fleet.wait(lambda: committed(servers, group, topic, 2) == {0: 10, 1: 10}, "the start is committed")
        victim.kill()
        victim.wait()
        produce(servers, topic, [(None, "new")] * 20, 2)
        fleet.start()
        fleet.wait(lambda: committed(servers, group, topic, 2) == {0: 20, 1: 20}, "all committed")

    assert sorted((line.partition, line.offset) for line in fleet.effects()) == [
        (partition, offset) for partition in (0, 1) for offset in range(10, 20)
    ]


def test_a_start_at_a_time_takes_the_records_since_then(kafka: SharedKafka) -> None:
    """Edge case 29: partition 1 has none, so it begins at its end."""
    servers, group = kafka.bootstrap_servers, kafka.group("timestamp")
    topic = kafka.topic("in", partitions=2, retention_ms="-1")
    producer = Producer({"bootstrap.servers": servers})
    for partition, timestamp_ms in [(0, NOON_MS - 1), (0, NOON_MS), (0, NOON_MS + 1), (1, NOON_MS - 5)]:
        producer.produce(topic, b"x", partition=partition, timestamp=timestamp_ms)
    assert producer.flush(30) == 0
    seen: list[tuple[int, int]] = []
    committed_before: list[dict[int, int]] = []

    class Seen(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            if not seen:
                committed_before.append(committed(servers, group, topic, 2))
            seen.append((record.partition, record.offset))

    with Running(config(servers, group, kafka__start="timestamp:2020-01-01T12:00:00Z"), Seen) as worker:
        worker.wait(lambda: committed(servers, group, topic, 2) == {0: 3, 1: 1}, "all committed")
        assert worker.stop() == 0

    assert seen == [(0, 1), (0, 2)]
    assert committed_before[0][0] == 1
