"""Bytewax: a dataflow with recovery, a snapshot of the offsets once a second; for keys one worker thread per lane."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from benchmarks.pause import pause_s
from benchmarks.peers.task import COMMIT_EVERY_S, FETCH_QUEUE_BACKOFF_MS, PREFETCH_RECORDS, Task, stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bytewax.connectors.kafka import KafkaSourceMessage
    from bytewax.operators import KeyedStream

_SNAPSHOTS = Path("build/peers/bytewax/snapshots")
_WORKERS = {"nothing": 1, "waits": 64}


class Nowhere(DynamicSink):
    """Takes what was handled. A dataflow must end in a sink."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition:
        return _NowherePartition()


class _NowherePartition(StatelessSinkPartition):
    def write_batch(self, items: Sequence[object]) -> None:
        """Leave them."""


def main() -> None:
    task = Task.asked()
    shutil.rmtree(_SNAPSHOTS, ignore_errors=True)  # of the run before, which would be resumed
    _SNAPSHOTS.mkdir()
    init_db_dir(_SNAPSHOTS, 1)
    cli_main(
        _dataflow(task, stopwatch(task)),
        workers_per_process=_WORKERS[task.row],
        epoch_interval=timedelta(seconds=COMMIT_EVERY_S),
        recovery_config=RecoveryConfig(_SNAPSHOTS),
    )


def _dataflow(task: Task, handled: Callable[[], None]) -> Dataflow:
    def do_nothing(message: KafkaSourceMessage) -> KafkaSourceMessage:
        handled()
        return message

    def wait(_state: None, message: KafkaSourceMessage) -> tuple[None, KafkaSourceMessage]:
        time.sleep(pause_s(message.offset))
        handled()
        return None, message

    flow = Dataflow("handler")
    records = op.input("records", flow, _source(task))
    if task.row == "waits":
        keyed: KeyedStream[KafkaSourceMessage] = op.key_on("key", records, lambda message: message.key.decode())
        op.output("nowhere", op.stateful_map("wait", keyed, wait), Nowhere())
    else:
        op.output("nowhere", op.map("do nothing", records, do_nothing), Nowhere())
    return flow


def _source(task: Task) -> KafkaSource:
    client = {"fetch.queue.backoff.ms": str(FETCH_QUEUE_BACKOFF_MS), "queued.min.messages": str(PREFETCH_RECORDS)}
    return KafkaSource([task.bootstrap_servers], [task.topic], add_config=client)


if __name__ == "__main__":
    main()
