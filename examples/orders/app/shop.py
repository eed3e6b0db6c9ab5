"""Sends orders to topic `orders` until it is told to stop: `python -m app.shop`.

One in a hundred costs less than nothing, so that there are dead letters to look at. Whenever the brokers have taken all
that was sent, it touches a file, for whoever wants to know that it lives.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from app.handlers import Order

if TYPE_CHECKING:
    from types import FrameType

ALIVE = Path(tempfile.gettempdir()) / "sent"
_CUSTOMERS = ("ann", "bob", "cem", "dora", "elif", "finn")
_PER_S = 100
_FLUSH_TIMEOUT_S = 10.0


def main() -> None:
    """Send a second's orders each second."""
    signal.signal(signal.SIGTERM, _end)
    producer = Producer({"bootstrap.servers": os.environ["STREAMWORKER__KAFKA__BOOTSTRAP_SERVERS"], "linger.ms": 20})
    failures: list[KafkaError] = []

    def note(error: KafkaError | None, _sent: Message) -> None:
        if error is not None:
            failures.append(error)

    numbers = count(random.getrandbits(40) << 20)
    while True:
        for _ in range(_PER_S):
            order = random_order(next(numbers))
            producer.produce("orders", msgspec.json.encode(order), order.customer.encode(), on_delivery=note)
        left = producer.flush(_FLUSH_TIMEOUT_S)
        if failures:
            sys.exit(f"orders were not taken: {failures[0]}")
        if left == 0:
            ALIVE.touch()
        time.sleep(1)


def random_order(number: int) -> Order:
    """An order of somebody."""
    cents = -1 if random.random() < 0.01 else random.randrange(100, 10_000)  # noqa: S311 - made-up orders
    return Order(number, random.choice(_CUSTOMERS), cents)  # noqa: S311 - likewise


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit()


if __name__ == "__main__":
    main()
