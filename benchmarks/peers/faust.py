"""faust-streaming: an agent, several actors of it, or one for each partition, with a commit once a second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import faust

from benchmarks.pause import pause_s
from benchmarks.peers.task import COMMIT_EVERY_S, Task, stopwatch

if TYPE_CHECKING:
    from faust.types import StreamT

_OPTIONS = {
    "nothing": {},
    "waits": {"concurrency": 64},
    "waits, isolated": {"isolated_partitions": True},
}


def main() -> None:
    task = Task.asked()
    handled = stopwatch(task)
    app = faust.App(
        task.group,
        broker=f"kafka://{task.bootstrap_servers}",
        store="memory://",
        datadir="build/peers/faust/data",
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=COMMIT_EVERY_S,
        broker_commit_every=1_000_000,  # so that the interval decides
    )

    async def do_nothing(stream: StreamT[bytes]) -> None:
        async for _value in stream:
            handled()

    async def wait(stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            await asyncio.sleep(pause_s(event.message.offset))
            handled()

    topic = app.topic(task.topic, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")
    app.agent(topic, name="handler", **_OPTIONS[task.row])(do_nothing if task.row == "nothing" else wait)
    faust.Worker(app, loglevel="ERROR", quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
