"""What one writes by hand for calls that wait: 64 key lanes and a sliding window, with threads and with asyncio.

As at least once asks for it: of each partition the lowest offset that is not done is committed, once a second.
"""

from __future__ import annotations

import asyncio
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING

from confluent_kafka import TopicPartition

from benchmarks.pause import pause_s
from benchmarks.window import LANES, WINDOW, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer, Message


def wait(message: Message) -> None:
    """Take as long as a service would."""
    time.sleep(pause_s(message.offset() or 0))


def _begin(window: Window, message: Message) -> int:
    return window.begin(message.partition() or 0, message.offset() or 0, message.key() or b"")


def _end(window: Window, message: Message) -> None:
    window.end(message.partition() or 0, message.offset() or 0)


def _commit(window: Window, consumer: Consumer, topic: str) -> None:
    offsets = [TopicPartition(topic, *where) for where in window.take_committable().items()]
    if offsets:
        consumer.commit(offsets=offsets, asynchronous=True)


def raw_waits(
    consumer: Consumer, topic: str, records: int, handle: Callable[[Message], None] = wait
) -> tuple[float, float]:
    """Threads; the seconds it took, and of CPU."""
    lanes: list[SimpleQueue[Message]] = [SimpleQueue() for _ in range(LANES)]
    done: SimpleQueue[Message] = SimpleQueue()

    def live(lane: SimpleQueue[Message]) -> None:
        while True:
            message = lane.get()
            handle(message)
            done.put(message)

    for lane in lanes:
        threading.Thread(target=live, args=(lane,), daemon=True).start()
    window, left, began_s, began_cpu_s, committed_s = Window(), records, 0.0, 0.0, 0.0
    while left:
        if window.records < WINDOW:
            for message in consumer.consume(500, 0.005):
                lanes[_begin(window, message)].put(message)
        while not done.empty():
            if not began_s:
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
            _end(window, done.get())
            left -= 1
        if time.perf_counter() > committed_s + 1:
            committed_s = time.perf_counter()
            _commit(window, consumer, topic)
    return time.perf_counter() - began_s, time.process_time() - began_cpu_s


def raw_waits_async(consumer: Consumer, topic: str, records: int) -> tuple[float, float]:
    """The same with a task per lane, all in one thread."""
    return asyncio.run(_waits(consumer, topic, records))


async def _waits(consumer: Consumer, topic: str, records: int) -> tuple[float, float]:
    lanes: list[asyncio.Queue[Message]] = [asyncio.Queue() for _ in range(LANES)]
    window, left, began_s, began_cpu_s, committed_s = Window(), records, 0.0, 0.0, 0.0

    async def live(lane: asyncio.Queue[Message]) -> None:
        nonlocal left, began_s, began_cpu_s
        while True:
            message = await lane.get()
            await asyncio.sleep(pause_s(message.offset() or 0))
            if not began_s:
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
            _end(window, message)
            left -= 1

    tasks = [asyncio.create_task(live(lane)) for lane in lanes]
    while left:
        if window.records < WINDOW:
            for message in consumer.consume(500, 0):
                lanes[_begin(window, message)].put_nowait(message)
        await asyncio.sleep(0.002)
        if time.perf_counter() > committed_s + 1:
            committed_s = time.perf_counter()
            _commit(window, consumer, topic)
    for task in tasks:
        task.cancel()
    return time.perf_counter() - began_s, time.process_time() - began_cpu_s
