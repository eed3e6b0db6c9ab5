"""Workers that die at any instant, on a real Kafka."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from fleet.workers import CommitWatcher, Fleet, broken_promises, produce, terminate

if TYPE_CHECKING:
    from pathlib import Path

    from servers.kafka import SharedKafka

PARTITIONS = 4
KEYS = 50


def _records(count: int) -> list[tuple[str | None, str]]:
    return [(f"k{number % KEYS}", f"flaky{number}" if number % 97 == 0 else str(number)) for number in range(count)]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_sigkill_loses_nothing_and_keeps_the_order_of_every_key(
    kafka: SharedKafka, tmp_path: Path, protocol: str
) -> None:
    """Edge cases 1, 2, 3, 27: two workers, one of them killed and replaced three times over."""
    topic, group = kafka.topic("orders", partitions=PARTITIONS), kafka.group("kill")
    total = 3000
    options = {"kafka.group_protocol": protocol, "app.work_s": 0.004}
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)

    with (
        Fleet(kafka.bootstrap_servers, group, topic, tmp_path, options=options) as fleet,
        CommitWatcher(kafka.bootstrap_servers, group, topic, PARTITIONS) as watcher,
    ):
        fleet.start(), fleet.start()
        ends = _ends(produce(kafka.bootstrap_servers, topic, _records(total), PARTITIONS), total)
        for kill in range(3):
            fleet.wait(lambda kill=kill: len(fleet.lines()) > total * (kill + 1) // 5, "progress")
            victim = draw.choice([worker for worker in fleet.workers if worker.poll() is None])
            victim.kill()
            fleet.start()
        fleet.wait(lambda: watcher.committed() == ends, f"all committed {ends}", timeout_s=60)

    assert broken_promises(fleet.lines(), ends, watcher) == []


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_stop_in_order_repeats_nothing(kafka: SharedKafka, tmp_path: Path, protocol: str) -> None:
    """Promises of a bounded repeat and of a drain: a rolling restart under load handles each record once."""
    topic, group = kafka.topic("orders", partitions=PARTITIONS), kafka.group("roll")
    total = 2000
    options = {"kafka.group_protocol": protocol, "app.work_s": 0.004}

    with (
        Fleet(kafka.bootstrap_servers, group, topic, tmp_path, options=options) as fleet,
        CommitWatcher(kafka.bootstrap_servers, group, topic, PARTITIONS) as watcher,
    ):
        first, second = fleet.start(), fleet.start()
        ends = _ends(produce(kafka.bootstrap_servers, topic, _records(total), PARTITIONS), total)
        codes = []
        for part, worker in ((4, first), (2, second)):
            fleet.wait(lambda part=part: len(fleet.lines()) > total // part, "progress")
            fleet.start()
            codes.append(terminate(worker))
        fleet.wait(lambda: watcher.committed() == ends, f"all committed {ends}")

    assert codes == [0, 0]
    assert broken_promises(fleet.lines(), ends, watcher) == []
    assert len(fleet.lines()) == total


def _ends(acknowledged: int, total: int) -> dict[int, int]:
    """End offsets of the partitions, given that all of `_records` were written."""
    assert acknowledged == total
    ends = dict.fromkeys(range(PARTITIONS), 0)
    for key, _ in _records(total):
        ends[sum(str(key).encode()) % PARTITIONS] += 1
    return ends
