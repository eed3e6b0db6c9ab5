"""Topics that benchmarks read from."""

from __future__ import annotations

import json
import time
import uuid
from io import BytesIO
from typing import TYPE_CHECKING

import fastavro
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARTITIONS, VALUE_BYTES = 4, 200
POISON = b"poison"
_AVRO_BYTES = 1024
_CREATION_S, _FLUSH_S = 30, 120


def new_topic(bootstrap_servers: str, *, beside: str = "") -> str:
    """Name of an empty topic that was just made; `beside` is the end of the name of another beside it."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    names = [name, *([name + beside] if beside else [])]
    for created in admin.create_topics([NewTopic(one, PARTITIONS, 1) for one in names]).values():
        created.result(_CREATION_S)
    return name


def fill(
    bootstrap_servers: str, topic: str, records: int, keys: int, value: Callable[[int], bytes] | None = None
) -> None:
    """Produce `records` values, of `VALUE_BYTES` of JSON if nothing is said, with `keys` keys in turn."""
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": records + 1}
    )
    plain = json.dumps({"text": "x" * (VALUE_BYTES - len('{"text": ""}'))}).encode()
    for number in range(records):
        producer.produce(topic, plain if value is None else value(number), key=b"key-%d" % (number % keys))
        if number % 10_000 == 0:
            producer.poll(0)
    producer.flush(_FLUSH_S)


def poisoned(every: int) -> Callable[[int], bytes]:
    """Values of which one in `every` is poison."""
    plain = b"x" * VALUE_BYTES
    return lambda number: POISON if number % every == 0 else plain


def avro_value(schema: Path) -> bytes:
    """An order of a KiB."""
    line = {"article": "A-1234567890", "text": "a thing that somebody has ordered", "pieces": 3, "cents": 129_900}
    order = {
        "order_id": uuid.UUID(int=1).hex,
        "customer": "C-0000012345",
        "cents": 1_299_000,
        "placed_ms": 1_700_000_000_000,
        "weight_kg": 12.5,
        "paid": True,
        "note": None,
        "lines": [line] * 18,
    }
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.schema.load_schema(schema), order)
    assert abs(stream.tell() - _AVRO_BYTES) < _AVRO_BYTES / 10, f"the value has {stream.tell()} bytes"
    return stream.getvalue()


def send_at_a_steady_rate(bootstrap_servers: str, topic: str, records: int, rate: float) -> None:
    """Produce `records`, so many a second, each with the monotonic time of its sending in ns."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 0})
    began_s = time.perf_counter()
    for number in range(records):
        producer.poll(0)
        time.sleep(max(0.0, began_s + number / rate - time.perf_counter()))  # a poll would end with each report
        producer.produce(topic, str(time.monotonic_ns()).encode(), partition=number % PARTITIONS)
    producer.flush(_FLUSH_S)
