"""One row as one writes it by hand on the bare client, in a process of its own: `consume(500)`, a commit a second.

Imports nothing of streamworker, whose start and memory are measured beside it, and what a row needs only for that row.
"""

from __future__ import annotations

import time
import uuid
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Message

from benchmarks.asked import Asked, answer, peak_mib, percentiles, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Handle = Callable[[list[Message]], object]

SCHEMA = Path(__file__).with_name("order.avsc")
WARM_UP_RECORDS = 3000  # starting and joining the group, while records pile up
_FETCH_BACKOFF_MS = 10  # the client's default of 1000 would dominate every row


def consumer_of(asked: Asked) -> Consumer:
    """A member of a group of its own that reads all there is."""
    consumer = Consumer(
        {
            "bootstrap.servers": asked.bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": _FETCH_BACKOFF_MS,
        }
    )
    consumer.subscribe([asked.topic])
    return consumer


def consume(asked: Asked, consumer: Consumer, handle: Handle) -> Mapping[str, float]:
    """Hand all records over, timed from the first to the last."""
    began_s = began_cpu_s = last_commit_s = 0.0
    left = asked.records
    while left > 0:
        messages = consumer.consume(500, 0.1)
        now_s = time.perf_counter()
        if messages and not began_s:
            began_s, began_cpu_s = now_s, time.process_time()
        handle(messages)
        left -= len(messages)
        if now_s > last_commit_s + 1 and messages:
            last_commit_s = now_s
            consumer.commit(asynchronous=True)
    seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    consumer.close()
    return rate(asked.records, seconds, cpu_s)


def _leave(_messages: list[Message]) -> None:
    """Do nothing with them."""


def _errors(messages: list[Message]) -> None:
    """See whether something of them is an error and no record."""
    any(map(Message.error, messages))


def _runs(messages: list[Message]) -> None:
    """Also part them by partition."""
    _errors(messages)
    for _, run in groupby(messages, Message.partition):
        list(run)


def _sizes(messages: list[Message]) -> None:
    """Also look how large they are."""
    _runs(messages)
    sizes = list(map(len, messages))
    sum(sizes)
    max(sizes, default=0)


def _json() -> Handle:
    import msgspec

    class Text(msgspec.Struct, frozen=True):
        text: str

    decode = msgspec.json.Decoder(Text).decode

    def handle(messages: list[Message]) -> None:
        [decode(message.value() or b"") for message in messages]

    return handle


def _avro() -> Handle:
    import fastavro

    schema = fastavro.schema.load_schema(SCHEMA)

    def handle(messages: list[Message]) -> None:
        [fastavro.schemaless_reader(BytesIO(message.value() or b""), schema, None) for message in messages]

    return handle


def _redis(url: str) -> Handle:
    import redis

    client = redis.Redis.from_url(url)

    def handle(messages: list[Message]) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for message in messages:
                pipeline.hset(message.key() or b"", "value", message.value() or b"")
            pipeline.execute()

    return handle


def _latency(asked: Asked) -> Mapping[str, float]:
    consumer = consumer_of(asked)
    ages_ns: list[int] = []
    last_commit_s = 0.0
    while len(ages_ns) < asked.records:
        message = consumer.poll(0.1)
        if message is None or message.error():
            continue
        ages_ns.append(time.monotonic_ns() - int(message.value() or 0))
        now_s = time.perf_counter()
        if now_s > last_commit_s + 1:
            last_commit_s = now_s
            consumer.commit(asynchronous=True)
    consumer.close()
    return percentiles(ages_ns, WARM_UP_RECORDS)


def _memory(asked: Asked) -> Mapping[str, float]:
    """With the settings of a worker."""
    consumer = Consumer({**asked.client, "auto.offset.reset": "earliest"})
    consumer.subscribe([asked.topic])
    left, half_mib = asked.records, 0.0
    while left > 0:
        left -= len(consumer.consume(500, 0.1))
        if not half_mib and left < asked.records / 2:
            half_mib = peak_mib()
    most_mib = peak_mib()
    consumer.close()
    return {"mib": most_mib, "grown_mib": most_mib - half_mib}


def _start(asked: Asked) -> Mapping[str, float]:
    consumer = consumer_of(asked)
    while not consumer.consume(500, 0.1):
        pass
    seconds = (time.monotonic_ns() - asked.began_ns) / 1e9
    consumer.close()
    return {"start_s": seconds}


def main() -> None:
    asked = Asked.here()
    match asked.row.removeprefix("raw "):
        case "latency":
            answer(_latency(asked))
        case "memory":
            answer(_memory(asked))
        case "start":
            answer(_start(asked))
        case "waits" | "waits async" as row:
            from benchmarks.waits import raw_waits, raw_waits_async

            measure = raw_waits if row == "waits" else raw_waits_async
            answer(rate(asked.records, *measure(consumer_of(asked), asked.topic, asked.records)))
        case row:
            answer(consume(asked, consumer_of(asked), _handle(row, asked)))


def _computes() -> Handle:
    from benchmarks.computing import compute_by_hand

    return compute_by_hand


def _handle(row: str, asked: Asked) -> Handle:
    makes: dict[str, Callable[[], Handle]] = {
        "json": _json,
        "avro": _avro,
        "redis": lambda: _redis(asked.redis_url or ""),
        "computes": _computes,
        "errors": lambda: _errors,
        "runs": lambda: _runs,
        "sizes": lambda: _sizes,
    }
    return makes[row]() if row in makes else _leave


if __name__ == "__main__":
    main()
