"""One measurement, in a process of its own: `python -m benchmarks.rows ROW BOOTSTRAP TOPIC RECORDS`.

Prints one line of JSON. Throughput is timed from the first record handled to the last. A `raw` row is what
one writes by hand on confluent-kafka for the same work: `consume(500)`, and a commit once a second.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import TYPE_CHECKING, ClassVar

import msgspec
from confluent_kafka import Consumer, Producer

from benchmarks.pause import pause_s
from benchmarks.waits import raw_waits, raw_waits_async
from streamworker import Batch, BatchHandler, Handler, Json, Ordering
from streamworker.assembly import assemble
from streamworker.config import Config, HttpConfig, KafkaConfig, LogConfig
from streamworker.events import Listener
from streamworker.observability import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import Message

    from streamworker import Ending, Record, Records, TopicPartition

LATENCY_RATE = 500  # records a second
_WARM_UP_S = 4  # starting and joining the group, while records pile up
_FETCH_BACKOFF_MS = 10  # the client's default of 1000 would dominate every row


class Single(Handler[bytes]):
    """Does nothing, one record at a time."""

    topics: ClassVar[Sequence[str]] = ("set by main",)

    def handle(self, record: Record[bytes]) -> None: ...


class Keyed(Single):
    """The same in key order over 16 lanes."""

    ordering = Ordering.KEY
    concurrency = 16


class Many(BatchHandler[bytes]):
    """Does nothing, 500 at a time."""

    topics: ClassVar[Sequence[str]] = ("set by main",)
    batch = Batch(max_records=500)

    def handle(self, records: Records[bytes]) -> None: ...


class Text(msgspec.Struct, frozen=True):
    """What the values are."""

    text: str


class Decoded(BatchHandler[Text]):
    """Does nothing with what was decoded."""

    topics: ClassVar[Sequence[str]] = ("set by main",)
    batch = Batch(max_records=500)
    value = Json(Text)

    def handle(self, records: Records[Text]) -> None:
        records.values()


class Waiting(Single):
    """Waits as for a service, in key order."""

    ordering = Ordering.KEY
    concurrency = 64

    def handle(self, record: Record[bytes]) -> None:
        time.sleep(pause_s(record.offset))


class Awaiting(Single):
    """The same as `async def`."""

    ordering = Ordering.KEY
    concurrency = 64

    async def handle(self, record: Record[bytes]) -> None:  # type: ignore[override]  # one of the two kinds
        await asyncio.sleep(pause_s(record.offset))


class Timed(Single):
    """Notes how old each record is; its value is the monotonic time of its sending in ns."""

    ages_ns: ClassVar[list[int]] = []

    def handle(self, record: Record[bytes]) -> None:
        self.ages_ns.append(time.monotonic_ns() - int(record.value))


HANDLERS: dict[str, type[Handler[bytes]] | type[BatchHandler[bytes]] | type[BatchHandler[Text]]] = {
    "batch": Many,
    "single": Single,
    "key": Keyed,
    "json": Decoded,
    "waits": Waiting,
    "waits async": Awaiting,
}


class _Stopwatch(Listener):
    """Measures from the first record that ended to the last of `records`."""

    def __init__(self, records: int, finished: Callable[[], None]) -> None:
        self._left = records
        self._finished = finished
        self.began_s = self.began_cpu_s = 0.0
        self.seconds = self.cpu_s = 0.0

    def ended(self, handler: str, partition: TopicPartition, ending: Ending, records: int, seconds: float) -> None:
        if not self.began_s:
            self.began_s, self.began_cpu_s = time.perf_counter(), time.process_time()
        self._left -= records
        if self._left <= 0:
            self.seconds = time.perf_counter() - self.began_s
            self.cpu_s = time.process_time() - self.began_cpu_s
            self._finished()


def main() -> None:
    row, bootstrap_servers, topic, records = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    if row == "raw":
        figures = _raw(bootstrap_servers, topic, records, _leave)
    elif row == "raw json":
        figures = _raw(bootstrap_servers, topic, records, _decode)
    elif row in ("raw waits", "raw waits async"):
        consumer = _raw_consumer(bootstrap_servers)
        consumer.subscribe([topic])
        waits = raw_waits if row == "raw waits" else raw_waits_async
        figures = _figures(records, *waits(consumer, topic, records))
    elif row == "raw latency":
        figures = _raw_latency(bootstrap_servers, topic, records)
    elif row == "latency":
        figures = _latency(bootstrap_servers, topic, records)
    else:
        name, _, queued = row.partition(" queued ")
        figures = _worker(HANDLERS[name], bootstrap_servers, topic, records, int(queued or 0))
    sys.stdout.write(json.dumps(figures) + "\n")


def _raw_consumer(bootstrap_servers: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": _FETCH_BACKOFF_MS,
        }
    )


def _leave(_messages: list[Message]) -> None:
    """Do nothing with them."""


_decoder = msgspec.json.Decoder(Text)


def _decode(messages: list[Message]) -> None:
    decode = _decoder.decode
    for message in messages:
        decode(message.value() or b"")


def _figures(records: int, seconds: float, cpu_s: float) -> dict[str, float]:
    return {"rate": records / seconds, "cpu_ns": 1e9 * cpu_s / records}


def _raw(bootstrap_servers: str, topic: str, records: int, handle: Callable[[list[Message]], None]) -> dict[str, float]:
    consumer = _raw_consumer(bootstrap_servers)
    consumer.subscribe([topic])
    began_s = began_cpu_s = last_commit_s = 0.0
    left = records
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
    return _figures(records, seconds, cpu_s)


def _config(bootstrap_servers: str, queued: int = 0) -> Config:
    kafka = {"queued_min_messages": queued} if queued else {}
    return Config(
        kafka=KafkaConfig(bootstrap_servers=bootstrap_servers, group=uuid.uuid4().hex, **kafka),
        http=HttpConfig(host="127.0.0.1", port=0),
        log=LogConfig(level="ERROR"),
    )


def _worker(
    handler: type[Handler[bytes]] | type[BatchHandler[bytes]] | type[BatchHandler[Text]],
    bootstrap_servers: str,
    topic: str,
    records: int,
    queued: int,
) -> dict[str, float]:
    handler.topics = (topic,)
    config = _config(bootstrap_servers, queued)
    logs.configure(config.log, sys.stderr)
    stopwatch = _Stopwatch(records, lambda: application.stop("measured"))
    application = assemble(config, [handler], listeners=[stopwatch])
    application.run()
    return _figures(records, stopwatch.seconds, stopwatch.cpu_s)


def _latency(bootstrap_servers: str, topic: str, records: int) -> dict[str, float]:
    Timed.topics = (topic,)
    config = _config(bootstrap_servers)
    logs.configure(config.log, sys.stderr)
    stopwatch = _Stopwatch(records, lambda: application.stop("measured"))
    application = assemble(config, [Timed], listeners=[stopwatch])
    application.run()
    return _percentiles(Timed.ages_ns)


def _raw_latency(bootstrap_servers: str, topic: str, records: int) -> dict[str, float]:
    consumer = _raw_consumer(bootstrap_servers)
    consumer.subscribe([topic])
    ages_ns: list[int] = []
    last_commit_s = 0.0
    while len(ages_ns) < records:
        message = consumer.poll(0.1)
        if message is None or message.error():
            continue
        ages_ns.append(time.monotonic_ns() - int(message.value() or 0))
        now_s = time.perf_counter()
        if now_s > last_commit_s + 1:
            last_commit_s = now_s
            consumer.commit(asynchronous=True)
    consumer.close()
    return _percentiles(ages_ns)


def _percentiles(ages_ns: list[int]) -> dict[str, float]:
    ages_ns = sorted(ages_ns[_WARM_UP_S * LATENCY_RATE :])
    return {"p50_ms": ages_ns[len(ages_ns) // 2] / 1e6, "p99_ms": ages_ns[len(ages_ns) * 99 // 100] / 1e6}


def send_at_a_steady_rate(bootstrap_servers: str, topic: str, records: int) -> None:
    """Produce `records` at `LATENCY_RATE`, each with the time of its sending."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 0})
    began_s = time.perf_counter()
    for number in range(records):
        producer.poll(max(0.0, began_s + number / LATENCY_RATE - time.perf_counter()))
        producer.produce(topic, str(time.monotonic_ns()).encode(), partition=number % 4)
    producer.flush(10)


if __name__ == "__main__":
    main()
