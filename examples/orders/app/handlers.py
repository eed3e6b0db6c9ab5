"""What a user of streamworker writes: orders from Kafka to a table of PostgreSQL, each once."""

from __future__ import annotations

import msgspec

from streamworker import Breaker, DeadLetter, Handler, Json, Ordering, PoisonError, PostgresSink, Record

COLUMNS = {"order_id": "bigint", "customer": "text", "cents": "bigint"}


class Order(msgspec.Struct, frozen=True):
    """An order of a customer."""

    order_id: int
    customer: str
    cents: int


class StoreOrders(Handler[Order]):
    """Stores orders, those of a customer one after the other."""

    topics = ("orders",)
    value = Json(Order)
    ordering = Ordering.KEY
    concurrency = 4
    sink = PostgresSink("warehouse", table="orders", key=("order_id",), columns=COLUMNS)
    breaker = Breaker("warehouse")
    dead_letter = DeadLetter("orders.dlq")

    def handle(self, record: Record[Order]) -> Order:
        """The row, which the sink writes."""
        if record.value.cents < 0:
            raise PoisonError(f"order {record.value.order_id} costs {record.value.cents}")
        return record.value
