"""Typical uses of the public API. `mypy --strict` checks them; nothing runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypedDict, assert_type

import msgspec

from streamworker import (
    Adaptive,
    AsyncReader,
    Avro,
    Batch,
    BatchFailed,
    BatchHandler,
    Breaker,
    Bulkhead,
    BulkheadFull,
    Bytes,
    Cache,
    CallKilled,
    CircuitOpen,
    Context,
    DeadLetter,
    DecodeError,
    Delete,
    Delivery,
    Dependency,
    Ending,
    Execution,
    Fallback,
    FatalError,
    Handler,
    HandlerTimeout,
    Headers,
    Idempotency,
    Json,
    KafkaRecord,
    KafkaSink,
    Listener,
    OnExhausted,
    Ordering,
    Origin,
    PoisonError,
    PostgresSink,
    Rate,
    Read,
    Reader,
    Reading,
    Record,
    Records,
    Retry,
    RetryableError,
    RetryBudget,
    RetryTopic,
    Rule,
    Serde,
    SinkHandler,
    SqliteSink,
    Text,
    TopicPartition,
    repair,
)
from streamworker.idempotency import Fence, Hold, RedisLock, Transitions
from streamworker.redis_client import redis_client
from streamworker.testing import TestRecord, run_handler

if TYPE_CHECKING:
    from collections.abc import Callable


class Order(msgspec.Struct):
    """A value as a msgspec Struct."""

    id: str
    quantity: int


@dataclass
class Payment:
    """A value as a dataclass."""

    order: str
    cents: int


class Click(TypedDict):
    """A value as a TypedDict."""

    page: str


class Orders(Handler[Order]):
    """JSON into a Struct."""

    topics = ("orders",)
    value = Json(Order)
    key = Text()

    def preview(self, record: Record[Order]) -> str:
        return f"would store {record.value.quantity}"

    def handle(self, record: Record[Order]) -> None:
        assert_type(record.value, Order)
        assert_type(record.value.quantity, int)
        assert_type(record.key, object)
        assert_type(record.raw_value, bytes | None)
        assert_type(record.timestamp, datetime | None)
        assert_type(record.headers, Headers)
        assert_type(record.headers.last("trace"), bytes | None)
        if record.value.quantity < 0:
            raise PoisonError(f"negative quantity in {TopicPartition(record.topic, record.partition)}")


class Clicks(Handler[Click]):
    """JSON into a TypedDict, in the order of keys, with every option said."""

    topics = ("clicks", "^clicks-.*")
    value = Json(Click, max_depth=4)
    ordering = Ordering.KEY
    concurrency = 16
    lanes = 64
    retry = Retry(attempts=10, base_s=0.5, cap_s=60.0)
    dead_letter = DeadLetter("clicks-dlq", on_exhausted=OnExhausted.BLOCK)
    rules = (
        Rule.skip(KeyError),
        Rule.retry((TimeoutError, ConnectionError)),
        Rule.dead_letter(lambda error: "bad" in str(error)),
        Rule.stop(MemoryError),
    )

    def handle(self, record: Record[Click]) -> None:
        assert_type(record.value["page"], str)
        raise RetryableError("come back", retry_after_s=30.0)


class ByName(Handler[bytes]):
    """Options by their names, as in a file."""

    topics = ("named",)
    ordering = "unordered"
    max_age_s = 600
    retry = Retry(topics=(RetryTopic(delay_s=60), RetryTopic(delay_s=600, attempts=2)))
    dead_letter = DeadLetter("named-dlq", on_exhausted="dlq")
    preview = "handle"

    def handle(self, record: Record[bytes]) -> None:
        assert_type(record.attempt, int)
        assert_type(record.origin, Origin)
        assert_type(record.origin.offset, int)


class Payments(Handler[Payment]):
    """Avro with a schema of its own."""

    topics = ("payments",)
    value = Avro("payment.avsc", into=Payment)

    def handle(self, record: Record[Payment]) -> None:
        assert_type(record.value.cents, int)


class Refunds(Handler[Payment]):
    """Avro that names its schema in a registry."""

    topics = ("refunds",)
    value = Avro.registry(url="https://registry.example", into=Payment)
    key = Avro.registry(url="https://registry.example", subjects=("{topic}-key",))

    def handle(self, record: Record[Payment]) -> None:
        assert_type(record.value.order, str)


class Raw(Handler[bytes | None]):
    """Bytes as they are; tombstones are None."""

    topics = ("raw",)
    value = Bytes()

    def handle(self, record: Record[bytes | None]) -> None:
        if record.value is None:
            raise FatalError("a tombstone where none can be")
        assert_type(record.value, bytes)


class Rows(BatchHandler[Order]):
    """A batch into a table."""

    topics = ("rows",)
    value = Json(Order)
    batch = Batch(max_records=1000, max_bytes=1_000_000, max_wait_s=1.0)

    def open(self, context: Context) -> None:
        self.table = context.shared("table", dict[str, int])
        assert_type(self.table, dict[str, int])
        assert_type(context.app["table"], object)

    def handle(self, records: Records[Order]) -> None:
        assert_type(records.values(), Sequence[Order])
        assert_type(records[0], Record[Order])
        assert_type(records[1:], Records[Order])
        for index, record in enumerate(records):
            try:
                self.table[record.value.id] = record.value.quantity
            except KeyError as error:
                raise BatchFailed(index, error) from error

    def close(self) -> None:
        self.table.clear()


class Celsius:
    """A serde of one's own."""

    def decode(self, data: bytes, topic: str) -> float:
        try:
            return float(data)
        except ValueError as error:
            raise DecodeError(f"expected degrees in {topic}") from error

    def encode(self, value: float, topic: str) -> bytes:
        return f"{value:.1f}".encode()


CELSIUS: Serde[float] = Celsius()


def timed(call: Callable[[object], object]) -> Callable[[object], object]:
    """Middleware: what it is given is a `Record`, or `Records` in a batch handler."""

    def wrapped(record: object) -> object:
        return call(record)

    return wrapped


class Temperatures(Handler[float]):
    """A serde of one's own, and middleware."""

    topics = ("temperatures",)
    value = CELSIUS
    middleware = (timed,)

    def handle(self, record: Record[float]) -> None:
        assert_type(record.value, float)


class Punctual(Handler[bytes]):
    """Calls with an end."""

    topics = ("requests",)
    timeout_s = 10
    rate = Rate(50, burst=5)
    adaptive = Adaptive(least=2, counts=OSError)
    retry_budget = RetryBudget(ratio=0.1)
    rules = (Rule.dead_letter(HandlerTimeout),)
    dead_letter = DeadLetter("requests.dlq")

    def open(self, context: Context) -> None:
        self.context = context

    def handle(self, record: Record[bytes]) -> None:
        assert_type(self.context.remaining_s(), float | None)
        assert_type(self.context.remaining_s(2.5), float)
        assert_type(self.context.deadline_s(), float)


class Computing(Handler[bytes]):
    """Calls in child processes."""

    topics = ("images",)
    execution = Execution.PROCESS
    concurrency = 4
    rules = (Rule.dead_letter(CallKilled),)
    dead_letter = DeadLetter("images.dlq")

    def handle(self, record: Record[bytes]) -> None:
        assert_type(record.value, bytes)


class Counting(Listener):
    """What a worker reports."""

    def ended(self, handler: str, partition: TopicPartition, ending: Ending, records: int, seconds: float) -> None:
        assert_type(ending, Ending)


class Located(Handler[bytes]):
    """Breakers around single calls."""

    topics = ("addresses",)
    dependencies = (Breaker("geo-api", bulkhead=Bulkhead(4, max_wait_s=0.1)), Breaker("prices", counts=OSError))

    def open(self, context: Context) -> None:
        self.geo = context.dependency("geo-api")
        assert_type(self.geo, Dependency)

    def handle(self, record: Record[bytes]) -> None:
        assert_type(self.geo.call(int, "11", base=2), int)
        try:
            with self.geo:
                print(record.offset)
        except CircuitOpen as error:
            assert_type(error.retry_in_s, float)
        except BulkheadFull as error:
            assert_type(error.name, str)


class Priced(Handler[Order]):
    """Reads that may do without what they ask."""

    topics = ("prices",)
    value = Json(Order)
    dependencies = (Breaker("prices", counts=OSError),)
    reads = (
        Read("price", ("cached", Fallback.DEFAULT), dependency="prices", max_stale_s=60),
        Read("discount", (Fallback.FAIL_FAST, Fallback.SKIP), dependency="prices", max_entries=100),
    )

    def open(self, context: Context) -> None:
        self.price: Reader[str, int] = context.read("price", self.find, default=100)
        self.discount = context.read("discount", self.find)
        assert_type(context.read("price", self.find, default=len), Reader[str, int])

    @staticmethod
    def find(order: str) -> int:
        return len(order)

    def handle(self, record: Record[Order]) -> None:
        found = self.price(record.value.id)
        assert_type(found, Reading[int])
        assert_type(found.value, int | None)
        assert_type(found.degraded, Fallback | None)
        assert_type(found.headers, Sequence[tuple[str, bytes | None]])
        assert_type(self.discount(record.value.id).value, int | None)


class Enriched(Handler[Order]):
    """What is returned goes to a topic."""

    topics = ("to-be-enriched",)
    value = Json(Order)
    sink = KafkaSink("enriched", value=Json(Order), key="id")

    def handle(self, record: Record[Order]) -> Order | Delete | KafkaRecord:
        if record.value.quantity == 0:
            return Delete(record.value)
        if record.value.quantity > 1000:
            return KafkaRecord(record.value, topic="enriched-large", headers={"why": "large"})
        return record.value


KafkaSink("copies", key=bytes.upper, key_serde=Text(), connection="other")
KafkaRecord(None, key=b"k", partition=0, headers=[("a", b"1"), ("b", None), ("c", "text")])


class Stored(Handler[Order]):
    """Looks up in caches, and writes each order once."""

    topics = ("stored",)
    value = Json(Order)
    sink = PostgresSink("warehouse", table="orders", key=("id",), version=True)

    def open(self, context: Context) -> None:
        self.names = context.cache("names", loader=self.name, ttl_s=60)
        assert_type(self.names, Cache[str, str])
        self.many = context.cache("many", load_many=self.names_of, on_write="invalidate")
        assert_type(self.many, Cache[str, str])

    def name(self, key: str) -> str | None:
        return key.title() or None

    def names_of(self, keys: Sequence[str]) -> dict[str, str]:
        return {key: key.title() for key in keys}

    def handle(self, record: Record[Order]) -> Order | Delete:
        assert_type(self.names.get(record.value.id), str | None)
        assert_type(self.many.get_many([record.value.id]), dict[str, str])
        self.names.put(record.value.id, "Anna")
        self.many.invalidate("a", "b")
        return Delete(record.value) if record.value.quantity == 0 else record.value


class StoredAsTheyAre(SinkHandler[Order]):
    """Needs no code."""

    topics = ("stored-as-they-are",)
    value = Json(Order)
    sink = SqliteSink("store", table="orders", key=("id",))


class Transacted(Handler[Order]):
    """Exactly once from topic to topic."""

    topics = ("transacted",)
    value = Json(Order)
    delivery = Delivery.TRANSACTIONAL
    sink = KafkaSink("enriched", value=Json(Order))

    def handle(self, record: Record[Order]) -> list[Order]:
        return [record.value]


class Awaited(Handler[Order]):
    """Awaits what it calls."""

    topics = ("awaited",)
    value = Json(Order)
    concurrency = 100
    dependencies = (Breaker("prices"),)
    reads = (Read("price", ("default",), dependency="prices"),)

    async def open(self, context: Context) -> None:
        self.price = context.read("price", self.find, default=100)
        assert_type(self.price, AsyncReader[str, int])

    async def find(self, order: str) -> int:
        return len(order)

    async def handle(self, record: Record[Order]) -> None:
        assert_type(await self.price(record.value.id), Reading[int])

    async def close(self) -> None: ...


class AwaitedBatches(BatchHandler[Order]):
    """The same in batches."""

    topics = ("awaited-batches",)
    value = Json(Order)

    async def handle(self, records: Records[Order]) -> None: ...


class Migrated(Handler[Order]):
    """Moves orders through states, claims them in Redis, and holds a lock while it opens."""

    topics = ("migrated",)
    value = Json(Order)
    idempotency = Idempotency.redis(id=lambda record: record.value.id, on_unavailable="pause")
    states = Transitions({"new": ("paid",), "paid": ()}, start=("new",))
    lock = RedisLock(redis_client("redis://localhost", timeout_s=0.5, connections=4, option="locks"), "migration")

    def open(self, context: Context) -> None:
        with self.lock.held(timeout_s=5.0) as hold:
            assert_type(hold, Hold)
            assert_type(hold.fence, Fence)
        assert_type(self.lock.acquire(0), Hold | None)

    def handle(self, record: Record[Order]) -> None:
        assert_type(self.states.check("new", "paid", entity=record.value.id), bool)


@repair("quantity-as-number")
def quantity_as_number(order: dict[str, object]) -> dict[str, object] | None:
    """What mends dead letters from the command line; None leaves a letter as it is."""
    quantity = order.get("quantity")
    return {**order, "quantity": int(quantity)} if isinstance(quantity, str) else None


assert_type(quantity_as_number({}), dict[str, object] | None)


RUN = run_handler(Orders, [b"{}", TestRecord({"id": "a", "quantity": 1}, key="a")])
assert_type(RUN.committed, Mapping[TopicPartition, int])
