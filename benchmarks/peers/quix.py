"""Quix Streams: one record after the other in the thread that polls, with a checkpoint once a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quixstreams import Application, message_context

from benchmarks.pause import pause_s
from benchmarks.peers.task import COMMIT_EVERY_S, FETCH_QUEUE_BACKOFF_MS, PREFETCH_RECORDS, Task, stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    task = Task.asked()
    application = Application(
        broker_address=task.bootstrap_servers,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        commit_interval=COMMIT_EVERY_S,
        consumer_extra_config={
            "fetch.queue.backoff.ms": FETCH_QUEUE_BACKOFF_MS,
            "queued.min.messages": PREFETCH_RECORDS,
        },
        loglevel="ERROR",
        use_changelog_topics=False,
    )
    topic = application.topic(task.topic, key_deserializer="bytes", value_deserializer="bytes")
    application.dataframe(topic).update(_handler(task.row, stopwatch(task)))
    application.run()


def _handler(row: str, handled: Callable[[], None]) -> Callable[[bytes], None]:
    def do_nothing(_value: bytes) -> None:
        handled()

    def wait(_value: bytes) -> None:
        time.sleep(pause_s(message_context().offset))
        handled()

    return wait if row == "waits" else do_nothing


if __name__ == "__main__":
    main()
