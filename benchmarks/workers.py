"""One row of streamworker, in a process of its own, with metrics on and default settings.

A row is measured until so many records have ended. In the end the group has committed all that have, or the row fails.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar

import msgspec
import redis
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition

from benchmarks.asked import Asked, answer, peak_mib, percentiles, rate
from benchmarks.by_hand import SCHEMA, WARM_UP_RECORDS
from benchmarks.catalogue import POISON_EVERY
from benchmarks.computing import Computes
from benchmarks.pause import pause_s
from benchmarks.topics import PARTITIONS, POISON
from streamworker import Avro, Batch, BatchHandler, DeadLetter, Handler, Json, Ordering, PoisonError
from streamworker.assembly import assemble
from streamworker.config import Config, HttpConfig, KafkaConfig, LogConfig
from streamworker.events import Listener
from streamworker.observability import logs
from streamworker.record import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker import Context, Record, Records, TopicPartition

_TOPICS: Sequence[str] = ("the row's own",)
_COMMITTED_S = 10.0


class Single(Handler[bytes]):
    """Does nothing, one record at a time."""

    topics: ClassVar[Sequence[str]] = _TOPICS

    def handle(self, record: Record[bytes]) -> None: ...


class Keyed(Single):
    """The same in key order over 16 lanes."""

    ordering = Ordering.KEY
    concurrency = 16


class Many(BatchHandler[bytes]):
    """Does nothing, 500 at a time."""

    topics: ClassVar[Sequence[str]] = _TOPICS
    batch = Batch(max_records=500)

    def handle(self, records: Records[bytes]) -> None: ...


class ManyInline(Many):
    """The same on the loop thread."""

    execution = "inline"


class Text(msgspec.Struct, frozen=True):
    """What the plain values are."""

    text: str


class Decoded(BatchHandler[Text]):
    """Does nothing with what was decoded."""

    topics: ClassVar[Sequence[str]] = _TOPICS
    batch = Batch(max_records=500)
    value = Json(Text)

    def handle(self, records: Records[Text]) -> None:
        records.values()


class Orders(BatchHandler[object]):
    """The same with Avro."""

    topics: ClassVar[Sequence[str]] = _TOPICS
    batch = Batch(max_records=500)
    value = Avro(SCHEMA)

    def handle(self, records: Records[object]) -> None:
        records.values()


class Forwards(BatchHandler[bytes]):
    """Writes each batch to Redis."""

    topics: ClassVar[Sequence[str]] = _TOPICS
    batch = Batch(max_records=500)

    def open(self, context: Context) -> None:
        self._redis = redis.Redis.from_url(str(context.app["redis_url"]))

    def handle(self, records: Records[bytes]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for record in records:
                pipeline.hset(record.raw_key, "value", record.raw_value)
            pipeline.execute()


class Waits(Single):
    """Waits as for a service, in key order; notes where the order was broken."""

    ordering = Ordering.KEY
    concurrency = 64
    last: ClassVar[defaultdict[tuple[int, object], int]] = defaultdict(lambda: -1)
    reordered: ClassVar[list[int]] = []

    def handle(self, record: Record[bytes]) -> None:
        time.sleep(pause_s(record.offset))
        self.note(record)

    def note(self, record: Record[bytes]) -> None:
        key = record.partition, record.key
        if record.offset <= self.last[key]:
            self.reordered.append(record.offset)
        self.last[key] = record.offset


class WaitsAsync(Waits):
    """The same as `async def`."""

    async def handle(self, record: Record[bytes]) -> None:  # type: ignore[override]  # one of the two kinds
        await asyncio.sleep(pause_s(record.offset))
        self.note(record)


class Refuses(Single):
    """Cannot handle what is poison."""

    dead_letter = DeadLetter("the row's own")

    def handle(self, record: Record[bytes]) -> None:
        if record.value == POISON:
            raise PoisonError("poison")


class Accepts(Single):
    """Looks at the same and minds nothing."""

    def handle(self, record: Record[bytes]) -> None:
        if record.value == POISON:
            return


class Timed(Single):
    """Notes how old each record is; its value is the monotonic time of its sending in ns."""

    ages_ns: ClassVar[list[int]] = []

    def handle(self, record: Record[bytes]) -> None:
        self.ages_ns.append(time.monotonic_ns() - int(record.value))


AnyHandler = type[Handler[bytes]] | type[BatchHandler[bytes]] | type[BatchHandler[Text]] | type[BatchHandler[object]]
HANDLERS: Mapping[str, AnyHandler] = {
    "batch": Many,
    "single": Single,
    "key": Keyed,
    "inline": ManyInline,
    "json": Decoded,
    "avro": Orders,
    "redis": Forwards,
    "waits": Waits,
    "waits async": WaitsAsync,
    "computes": Computes,
    "clean": Accepts,
    "poison": Refuses,
    "latency": Timed,
    "memory": Keyed,
}


class Stopwatch(Listener):
    """Measures from the first record that ended to the last of `records`."""

    def __init__(self, records: int, finished: Callable[[], None]) -> None:
        self._records = self._left = records
        self.ended_records = 0
        self._finished = finished
        self.began_s = self.began_cpu_s = self.seconds = self.cpu_s = self.half_mib = self.most_mib = 0.0
        self.letters = 0

    def ended(self, handler: str, partition: TopicPartition, ending: Ending, records: int, seconds: float) -> None:
        if ending is Ending.RETRIED:
            return
        if not self.began_s:
            self.began_s, self.began_cpu_s = time.perf_counter(), time.process_time()
        self.ended_records += records
        self.letters += records if ending is Ending.DEAD_LETTERED else 0
        self._left -= records
        if not self.half_mib and self._left < self._records / 2:
            self.half_mib = peak_mib()
        if self._left <= 0 and not self.seconds:
            self.seconds = time.perf_counter() - self.began_s
            self.cpu_s = time.process_time() - self.began_cpu_s
            self.most_mib = peak_mib()
            self._finished()


def main() -> None:
    asked = Asked.here()
    name, _, queued = asked.row.partition(" queued ")
    stopwatch, group = _run(asked, HANDLERS[name], {"queued_min_messages": int(queued)} if queued else {})
    _check(asked, group, stopwatch)
    match name:
        case "latency":
            answer(percentiles(Timed.ages_ns, WARM_UP_RECORDS))
        case "memory":
            answer({"mib": stopwatch.most_mib, "grown_mib": stopwatch.most_mib - stopwatch.half_mib})
        case _:
            answer(rate(asked.records, stopwatch.seconds, stopwatch.cpu_s))


def _run(asked: Asked, handler: AnyHandler, kafka: Mapping[str, int]) -> tuple[Stopwatch, str]:
    handler.topics = (asked.topic,)
    if handler.dead_letter is not None:
        handler.dead_letter = DeadLetter(f"{asked.topic}.dlq")
    group = uuid.uuid4().hex
    config = Config(
        kafka=KafkaConfig(bootstrap_servers=asked.bootstrap_servers, group=group, **kafka),
        http=HttpConfig(host="127.0.0.1", port=0),
        log=LogConfig(level="ERROR"),
        app={"redis_url": asked.redis_url},
    )
    logs.configure(config.log, sys.stderr)
    stopwatch = Stopwatch(asked.records, lambda: application.stop("measured"))
    application = assemble(config, [handler], listeners=[stopwatch])
    application.run()
    return stopwatch, group


def _check(asked: Asked, group: str, stopwatch: Stopwatch) -> None:
    """Nothing lost: all is committed, and what is poison is in the dead letters. Nothing out of its order."""
    client = Consumer({"bootstrap.servers": asked.bootstrap_servers, "group.id": group})
    try:
        found = client.committed([ClientPartition(asked.topic, p) for p in range(PARTITIONS)], timeout=_COMMITTED_S)
        committed = sum(one.offset for one in found if one.offset > 0)
    finally:
        client.close()
    letters = asked.records // POISON_EVERY if asked.row == "poison" else 0
    ended = stopwatch.ended_records
    if committed != ended or ended < asked.records or stopwatch.letters != letters or Waits.reordered:
        sys.exit(
            f"{asked.row}: {committed} of {ended} committed, {stopwatch.letters} of {letters} dead letters,"
            f" {len(Waits.reordered)} out of order"
        )


if __name__ == "__main__":
    main()
