"""Topics that benchmarks read from."""

from __future__ import annotations

import json
import uuid

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS, VALUE_BYTES = 4, 200
_CREATION_S, _FLUSH_S = 30, 120


def new_topic(bootstrap_servers: str) -> str:
    """Name of an empty topic that was just made."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(_CREATION_S)
    return name


def fill(bootstrap_servers: str, topic: str, records: int, keys: int) -> None:
    """Produce `records` JSON values of `VALUE_BYTES` each, `keys` keys in turn."""
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": records + 1}
    )
    value = json.dumps({"text": "x" * (VALUE_BYTES - len('{"text": ""}'))}).encode()
    for number in range(records):
        producer.produce(topic, value, key=b"key-%d" % (number % keys))
        if number % 10_000 == 0:
            producer.poll(0)
    producer.flush(_FLUSH_S)
