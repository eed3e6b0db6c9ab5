"""What the benchmarks send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import Consumer, TopicPartition

from benchmarks.topics import PARTITIONS, send_at_a_steady_rate
from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORDS, RATE = 30, 100


def test_no_record_is_sent_before_its_time() -> None:
    """A delivery report that comes in ends no wait."""
    with MockKafka(topics={"steady": PARTITIONS}) as kafka:
        send_at_a_steady_rate(kafka.bootstrap_servers, "steady", RECORDS, RATE)

        sent_ns = [int(value) for value in _values(kafka.bootstrap_servers)]
    assert max(sent_ns) - min(sent_ns) > 1e9 * RECORDS / RATE / 2


def _values(bootstrap_servers: str) -> Sequence[bytes]:
    client = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "any"})
    client.assign([TopicPartition("steady", number, 0) for number in range(PARTITIONS)])
    found: list[bytes] = []
    while len(found) < RECORDS:
        found += [message.value() or b"" for message in client.consume(RECORDS, 1.0) if message.error() is None]
    client.close()
    return found
