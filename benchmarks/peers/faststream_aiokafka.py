"""FastStream on aiokafka: one record at a time, four consumers in one process, or the keys of a batch at once."""

from __future__ import annotations

from faststream.kafka import KafkaBroker

from benchmarks.peers.faststream import AT_ONCE, run, undecoded
from benchmarks.peers.task import Task

_WORKERS = 4  # a consumer each, so not more than there are partitions


def main() -> None:
    task = Task.asked()
    broker = KafkaBroker(task.bootstrap_servers, logger=None, apply_types=False, decoder=undecoded)
    options = {"batch": True, "max_records": AT_ONCE[task.row]} if task.row in AT_ONCE else {}
    if task.row == "waits":
        options = {"max_workers": _WORKERS}
    run(broker, task, options, key=lambda record: record.key, offset=lambda record: record.offset)


if __name__ == "__main__":
    main()
