"""FastStream on confluent-kafka: one record at a time, or the keys of a batch at once."""

from __future__ import annotations

from faststream.confluent import KafkaBroker

from benchmarks.peers.faststream import AT_ONCE, run, undecoded
from benchmarks.peers.task import FETCH_QUEUE_BACKOFF_MS, PREFETCH_RECORDS, Task


def main() -> None:
    task = Task.asked()
    client = {"fetch.queue.backoff.ms": FETCH_QUEUE_BACKOFF_MS, "queued.min.messages": PREFETCH_RECORDS}
    broker = KafkaBroker(task.bootstrap_servers, config=client, logger=None, apply_types=False, decoder=undecoded)
    options = {"batch": True, "max_records": AT_ONCE[task.row]} if task.row in AT_ONCE else {}
    run(broker, task, options, key=lambda record: record.key(), offset=lambda record: record.offset())


if __name__ == "__main__":
    main()
