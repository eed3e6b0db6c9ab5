"""One row of `benchmarks.enrich`, in a process of its own: flights of a topic, with so much done for each.

The handler is that of `examples/enrich`, with its lookups and its sink taken away or put in another way. What a
row has read is committed in the end, and what it has written is in the table, or the row fails.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, ClassVar

import msgspec
import psycopg
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition

from benchmarks.asked import Asked, answer, rate
from benchmarks.by_hand import consume, consumer_of
from benchmarks.enrich_results import BATCH, LOCAL
from benchmarks.topics import PARTITIONS
from benchmarks.workers import Stopwatch
from streamworker import Batch, BatchHandler, Json, PostgresSink
from streamworker.assembly import assemble
from streamworker.cache.caches import BREAKER, Caches
from streamworker.clock import SystemClock
from streamworker.config import CacheConfig, Config, HttpConfig, KafkaConfig, LogConfig
from streamworker.observability import logs
from streamworker.resilience.breaker import CircuitBreaker

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "enrich"))
from handlers import ENRICHED
from model import Airport, Flight, Plane, enriched
from reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from model import Enriched

    from streamworker import Context, Records

TABLE = "enriched"
READS = 200
_COMMITTED_S = 10.0
_LINKED_S = 5.0
_SOMEWHERE = Airport("EWR", 0, 1)
_SOMETHING = Plane("N1", "UA", "EWR", 0)


class Rows(BatchHandler[Flight]):
    """Makes a row of each flight, of what is always the same: what a worker does without a lookup."""

    topics: ClassVar[Sequence[str]] = ("the row's own",)
    value = Json(Flight)
    ordering = "key"
    concurrency = 4
    batch = Batch(max_records=BATCH)

    def handle(self, records: Records[Flight]) -> Sequence[Enriched] | None:
        rows = [enriched(one, _SOMEWHERE, _SOMEWHERE, _SOMETHING) for one in records.values()]
        return None if self.sink is None else rows


class LooksUp(Rows):
    """Makes them of the airports and the plane of each, and asks the database for each batch."""

    airports: Callable[[set[str]], Mapping[str, Airport]]
    planes: Callable[[set[str]], Mapping[str, Plane]]

    def open(self, context: Context) -> None:
        # One for each instance: four threads have four connections, as one would write it by hand.
        reference = Reference(context.connection("warehouse"))
        self.airports = lambda codes: reference.airports(list(codes))
        self.planes = lambda tailnums: reference.planes(list(tailnums))

    def handle(self, records: Records[Flight]) -> Sequence[Enriched] | None:
        flights = records.values()
        airports = self.airports({code for one in flights for code in (one.origin, one.dest)})
        planes = self.planes({one.tailnum or "" for one in flights})
        rows = [enriched(one, airports[one.origin], airports[one.dest], planes[one.tailnum or ""]) for one in flights]
        return None if self.sink is None else rows


class LooksUpInCaches(LooksUp):
    """The same by way of caches."""

    def open(self, context: Context) -> None:
        reference = context.shared("reference", lambda: Reference(context.connection("warehouse")))
        self.airports = context.cache("airports", load_many=reference.airports).get_many
        self.planes = context.cache(
            "planes", load_many=reference.planes, version=lambda plane: plane.sw_version
        ).get_many


@dataclass(frozen=True, slots=True)
class Way:
    """How a row does it."""

    handler: type[Rows]
    guard: str | None = None
    sink: bool = False
    redis: bool = False


WAYS: Mapping[str, Way] = {
    "no lookup": Way(Rows),
    "database": Way(LooksUp),
    "cache": Way(LooksUpInCaches),
    "cache, Redis": Way(LooksUpInCaches, redis=True),
    "sink": Way(Rows, sink=True),
    "sink, mark": Way(Rows, "mark", sink=True),
    "cache, sink, mark": Way(LooksUpInCaches, "mark", sink=True),
}


def sink_of(guard: str | None) -> PostgresSink:
    return PostgresSink("warehouse", table=TABLE, mode="insert", guard=guard, columns=ENRICHED)


def _run(asked: Asked, way: Way, warehouse: str) -> Mapping[str, float]:
    handler = way.handler
    handler.topics = (asked.topic,)
    if way.sink:
        handler.sink = sink_of(way.guard)
    group = uuid.uuid4().hex
    config = Config(
        kafka=KafkaConfig(bootstrap_servers=asked.bootstrap_servers, group=group),
        http=HttpConfig(host="127.0.0.1", port=0),
        log=LogConfig(level="ERROR"),
        sinks={"warehouse": warehouse},
        cache=CacheConfig(redis=asked.redis_url if way.redis else None),
    )
    logs.configure(config.log, sys.stderr)
    with psycopg.connect(warehouse, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {TABLE}")
    stopwatch = Stopwatch(asked.records, lambda: application.stop("measured"))
    application = assemble(config, [handler], listeners=[stopwatch])
    application.run()
    _check(asked, group, stopwatch.ended_records, warehouse if way.sink else None)
    return rate(asked.records, stopwatch.seconds, stopwatch.cpu_s)


def _check(asked: Asked, group: str, ended: int, warehouse: str | None) -> None:
    client = Consumer({"bootstrap.servers": asked.bootstrap_servers, "group.id": group})
    try:
        found = client.committed([ClientPartition(asked.topic, p) for p in range(PARTITIONS)], timeout=_COMMITTED_S)
    finally:
        client.close()
    committed = written = sum(one.offset for one in found if one.offset > 0)
    if warehouse is not None:
        with psycopg.connect(warehouse) as connection:
            ((written,),) = connection.execute(f"SELECT count(*) FROM {TABLE}").fetchall()
    if committed != ended or written != ended or ended < asked.records:
        sys.exit(f"{asked.row}: {committed} of {ended} committed, {written} written")


def _by_hand(asked: Asked) -> Mapping[str, float]:
    decode = msgspec.json.Decoder(Flight).decode

    def handle(messages: list[object]) -> None:
        for message in messages:
            enriched(decode(message.value()), _SOMEWHERE, _SOMEWHERE, _SOMETHING)  # type: ignore[attr-defined]

    return consume(asked, consumer_of(asked), handle)  # type: ignore[arg-type]  # a message of the client


def _reads(redis_url: str) -> Mapping[str, float]:
    """Milliseconds of a read of a batch of which Redis has a tenth and the process the rest."""
    clock, app = SystemClock(), uuid.uuid4().hex
    planes = {f"N{number}": Plane(f"N{number}", "UA", "EWR", 0) for number in range(LOCAL + READS * (BATCH - LOCAL))}

    def load(keys: Sequence[str]) -> dict[str, Plane]:
        return {key: planes[key] for key in keys}

    def never(keys: Sequence[str]) -> dict[str, Plane]:
        sys.exit(f"reads: Redis did not have {len(keys)} keys")

    def caches() -> Caches:
        return Caches(CacheConfig(redis=redis_url), app=app, clock=clock, gate=CircuitBreaker(BREAKER, clock=clock))

    filling, reading = caches(), caches()
    try:
        filled = filling.cache("planes", load_many=load, type_=Plane)
        keys = list(planes)
        for first in range(0, len(keys), BATCH):
            filled.get_many(keys[first : first + BATCH])
        read = reading.cache("planes", load_many=never, type_=Plane)
        until_s = time.monotonic() + _LINKED_S
        while not read.stats().linked:  # before that the process keeps a value for a second only
            if time.monotonic() > until_s:
                sys.exit("reads: the link to Redis is not up")
            time.sleep(0.01)
        local, taken_ms = keys[:LOCAL], []
        read.get_many(local)
        for first in range(LOCAL, len(keys), BATCH - LOCAL):
            batch = random.sample([*local, *keys[first : first + BATCH - LOCAL]], BATCH)
            began_s = time.perf_counter()
            found = read.get_many(batch)
            taken_ms.append((time.perf_counter() - began_s) * 1000)
            assert len(found) == BATCH
        requests = read.stats().requests
        assert requests["l2", "hit"] == len(keys), requests
    finally:
        filling.close()
        reading.close()
    return {"p50_ms": median(taken_ms), "p90_ms": quantiles(taken_ms, n=10)[-1]}


def main() -> None:
    asked, warehouse = Asked.here(), sys.argv[2]
    match asked.row:
        case "raw":
            answer(_by_hand(asked))
        case "reads":
            answer(_reads(asked.redis_url or ""))
        case row:
            answer(_run(asked, WAYS[row], warehouse))


if __name__ == "__main__":
    main()
