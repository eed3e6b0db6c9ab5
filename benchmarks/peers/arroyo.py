"""Arroyo: `RunTask`, or `RunTaskInThreads` with 64 threads, before `CommitOffsets` once a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from arroyo import Topic
from arroyo.backends.kafka import KafkaConsumer, build_kafka_consumer_configuration
from arroyo.commit import CommitPolicy
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategyFactory, RunTask, RunTaskInThreads

from benchmarks.pause import pause_s
from benchmarks.peers.task import COMMIT_EVERY_S, FETCH_QUEUE_BACKOFF_MS, PREFETCH_RECORDS, Task, stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arroyo.backends.kafka import KafkaPayload
    from arroyo.processing.strategies import ProcessingStrategy
    from arroyo.types import Commit, Message, Partition

_THREADS, _PENDING = 64, 10_000


class Steps(ProcessingStrategyFactory):
    """The steps of one row."""

    def __init__(self, row: str, handled: Callable[[], None]) -> None:
        self._row = row
        self._handled = handled

    def create_with_partitions(self, commit: Commit, partitions: Mapping[Partition, int]) -> ProcessingStrategy:
        if self._row == "waits":
            return RunTaskInThreads(self._wait, _THREADS, _PENDING, CommitOffsets(commit))
        return RunTask(self._do_nothing, CommitOffsets(commit))

    def _do_nothing(self, _message: Message[KafkaPayload]) -> None:
        self._handled()

    def _wait(self, message: Message[KafkaPayload]) -> None:
        time.sleep(pause_s(message.value.offset))
        self._handled()


def main() -> None:
    task = Task.asked()
    configuration = build_kafka_consumer_configuration(
        {"fetch.queue.backoff.ms": FETCH_QUEUE_BACKOFF_MS},
        task.group,
        auto_offset_reset="earliest",
        queued_min_messages=PREFETCH_RECORDS,
        bootstrap_servers=[task.bootstrap_servers],
        enable_auto_commit=False,  # what it calls so stores offsets in the client, record by record
    )
    StreamProcessor(
        consumer=KafkaConsumer(configuration),
        topic=Topic(task.topic),
        processor_factory=Steps(task.row, stopwatch(task)),
        commit_policy=CommitPolicy(COMMIT_EVERY_S, None),
    ).run()


if __name__ == "__main__":
    main()
