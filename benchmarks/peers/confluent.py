"""What one writes by hand on confluent-kafka: `consume(500)`, and for calls that wait 64 lanes of keys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import Consumer

from benchmarks.peers.task import COMMIT_EVERY_S, FETCH_QUEUE_BACKOFF_MS, PREFETCH_RECORDS, Task, stopwatch
from benchmarks.waits import raw_waits, wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message


def main() -> None:
    task = Task.asked()
    consumer = Consumer(
        {
            "bootstrap.servers": task.bootstrap_servers,
            "group.id": task.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": FETCH_QUEUE_BACKOFF_MS,
            "queued.min.messages": PREFETCH_RECORDS,
        }
    )
    consumer.subscribe([task.topic])
    handled = stopwatch(task)

    def handle(message: Message) -> None:
        if task.row == "waits":
            wait(message)
        handled()

    if task.row == "waits":
        raw_waits(consumer, task.topic, task.records, handle)
    else:
        _one_after_the_other(consumer, handle)


def _one_after_the_other(consumer: Consumer, handle: Callable[[Message], None]) -> None:
    committed_s = 0.0
    while True:
        messages = consumer.consume(500, 0.1)
        for message in messages:
            handle(message)
        if messages and time.perf_counter() > committed_s + COMMIT_EVERY_S:
            committed_s = time.perf_counter()
            consumer.commit(asynchronous=True)


if __name__ == "__main__":
    main()
