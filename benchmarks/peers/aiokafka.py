"""What one writes by hand on aiokafka: `getmany`, and for calls that wait 64 lanes of keys."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from benchmarks.pause import pause_s
from benchmarks.peers.task import COMMIT_EVERY_S, Task, stopwatch
from benchmarks.window import LANES, WINDOW, Window

if TYPE_CHECKING:
    from collections.abc import Callable

_AT_ONCE = 500
_PATIENCE_MS = 100


async def main() -> None:
    task = Task.asked()
    consumer = AIOKafkaConsumer(
        task.topic,
        bootstrap_servers=task.bootstrap_servers,
        group_id=task.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    work = _in_lanes if task.row == "waits" else _one_after_the_other
    await work(consumer, task.topic, stopwatch(task))


async def _one_after_the_other(consumer: AIOKafkaConsumer, _topic: str, handled: Callable[[], None]) -> None:
    async def handle(_record: ConsumerRecord) -> None:
        handled()

    committed_s = time.perf_counter()
    while True:
        fetched = await consumer.getmany(timeout_ms=_PATIENCE_MS, max_records=_AT_ONCE)
        for records in fetched.values():
            for record in records:
                await handle(record)
        if fetched and time.perf_counter() > committed_s + COMMIT_EVERY_S:
            committed_s = time.perf_counter()
            await consumer.commit()


async def _in_lanes(consumer: AIOKafkaConsumer, topic: str, handled: Callable[[], None]) -> None:
    lanes: list[asyncio.Queue[ConsumerRecord]] = [asyncio.Queue() for _ in range(LANES)]
    window, committed_s = Window(), time.perf_counter()

    async def live(lane: asyncio.Queue[ConsumerRecord]) -> None:
        while True:
            record = await lane.get()
            await asyncio.sleep(pause_s(record.offset))
            handled()
            window.end(record.partition, record.offset)

    tasks = [asyncio.create_task(live(lane)) for lane in lanes]
    while tasks:
        if window.records < WINDOW:
            for records in (await consumer.getmany(max_records=_AT_ONCE)).values():
                for record in records:
                    lanes[window.begin(record.partition, record.offset, record.key)].put_nowait(record)
        await asyncio.sleep(0.002)
        if time.perf_counter() > committed_s + COMMIT_EVERY_S:
            committed_s = time.perf_counter()
            if offsets := window.take_committable():
                await consumer.commit({TopicPartition(topic, one): offset for one, offset in offsets.items()})


if __name__ == "__main__":
    asyncio.run(main())
