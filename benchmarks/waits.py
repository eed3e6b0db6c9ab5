"""What one writes by hand for calls that wait: 64 key lanes and a sliding window, with threads and with asyncio.

As at least once asks for it: of each partition the lowest offset that is not done is committed, once a second.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections import defaultdict
from queue import SimpleQueue
from typing import TYPE_CHECKING
from zlib import crc32

from confluent_kafka import TopicPartition

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

LANES, WINDOW = 64, 10_000
_SHORTEST_S, _LONGEST_S = 0.002, 0.008


def pause_s(offset: int) -> float:
    """How long the call for a record waits; the same in every run."""
    return _SHORTEST_S + (_LONGEST_S - _SHORTEST_S) * (crc32(b"%d" % offset) % 1000) / 1000


class _Window:
    """What is under way of each partition."""

    def __init__(self) -> None:
        self.records = 0
        self._open: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        self._done: defaultdict[tuple[str, int], set[int]] = defaultdict(set)

    def begin(self, message: Message) -> int:
        """A record goes to its lane, of which this is the number."""
        heapq.heappush(self._open[_of(message)], message.offset() or 0)
        self.records += 1
        return crc32(message.key() or b"") % LANES

    def end(self, message: Message) -> None:
        """A record is done."""
        self._done[_of(message)].add(message.offset() or 0)
        self.records -= 1

    def commit(self, consumer: Consumer) -> None:
        """Commit as far as all is done."""
        offsets = []
        for key, opened in self._open.items():
            done, last = self._done[key], -1
            while opened and opened[0] in done:
                last = heapq.heappop(opened)
                done.discard(last)
            if last >= 0:
                offsets.append(TopicPartition(*key, last + 1))
        if offsets:
            consumer.commit(offsets=offsets, asynchronous=True)


def _of(message: Message) -> tuple[str, int]:
    return message.topic() or "", message.partition() or 0


def raw_waits(consumer: Consumer, records: int) -> tuple[float, float]:
    """Threads; the seconds it took, and of CPU."""
    lanes: list[SimpleQueue[Message]] = [SimpleQueue() for _ in range(LANES)]
    done: SimpleQueue[Message] = SimpleQueue()

    def live(lane: SimpleQueue[Message]) -> None:
        while True:
            message = lane.get()
            time.sleep(pause_s(message.offset() or 0))
            done.put(message)

    for lane in lanes:
        threading.Thread(target=live, args=(lane,), daemon=True).start()
    window, left, began_s, began_cpu_s, committed_s = _Window(), records, 0.0, 0.0, 0.0
    while left:
        if window.records < WINDOW:
            for message in consumer.consume(500, 0.005):
                lanes[window.begin(message)].put(message)
        while not done.empty():
            if not began_s:
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
            window.end(done.get())
            left -= 1
        if time.perf_counter() > committed_s + 1:
            committed_s = time.perf_counter()
            window.commit(consumer)
    return time.perf_counter() - began_s, time.process_time() - began_cpu_s


def raw_waits_async(consumer: Consumer, records: int) -> tuple[float, float]:
    """The same with a task per lane, all in one thread."""
    return asyncio.run(_waits(consumer, records))


async def _waits(consumer: Consumer, records: int) -> tuple[float, float]:
    lanes: list[asyncio.Queue[Message]] = [asyncio.Queue() for _ in range(LANES)]
    window, left, began_s, began_cpu_s, committed_s = _Window(), records, 0.0, 0.0, 0.0

    async def live(lane: asyncio.Queue[Message]) -> None:
        nonlocal left, began_s, began_cpu_s
        while True:
            message = await lane.get()
            await asyncio.sleep(pause_s(message.offset() or 0))
            if not began_s:
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
            window.end(message)
            left -= 1

    tasks = [asyncio.create_task(live(lane)) for lane in lanes]
    while left:
        if window.records < WINDOW:
            for message in consumer.consume(500, 0):
                lanes[window.begin(message)].put_nowait(message)
        await asyncio.sleep(0.002)
        if time.perf_counter() > committed_s + 1:
            committed_s = time.perf_counter()
            window.commit(consumer)
    for task in tasks:
        task.cancel()
    return time.perf_counter() - began_s, time.process_time() - began_cpu_s
