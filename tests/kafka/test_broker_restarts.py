"""A broker that is killed in the middle of the work and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.in_process import committed
from fleet.workers import CommitWatcher, Fleet, broken_promises, produce

if TYPE_CHECKING:
    from pathlib import Path

    from servers.kafka import SharedKafka

HALF = 300


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_broker_killed_in_the_middle_costs_no_record(kafka: SharedKafka, tmp_path: Path, protocol: str) -> None:
    """Edge cases 2, 14, 17, 97: the workers find it again by themselves."""
    if not kafka.server.owned:
        pytest.skip("the Kafka was given, so it is not killed")
    servers, topic, group = kafka.bootstrap_servers, kafka.topic("in", partitions=2), kafka.group("restart")
    records = [(f"k{number % 20}", str(number)) for number in range(HALF)]
    ends = dict.fromkeys((0, 1), 0)
    for key, _ in records * 2:
        ends[sum(key.encode()) % 2] += 1
    options = {"kafka.group_protocol": protocol, "app.work_s": 0.01, "kafka.librdkafka.reconnect.backoff.max.ms": 500}

    with (
        Fleet(servers, group, topic, tmp_path, options=options) as fleet,
        CommitWatcher(servers, group, topic, 2) as watcher,
    ):
        fleet.start(), fleet.start()
        assert produce(servers, topic, records, 2) == HALF
        fleet.wait(lambda: len(fleet.lines()) > HALF // 3, "progress")
        kafka.server.kill()
        kafka.server.restart()
        assert produce(servers, topic, records, 2) == HALF
        fleet.wait(lambda: committed(servers, group, topic, 2) == ends, f"all committed {ends}", timeout_s=60)

        assert [worker.poll() for worker in fleet.workers] == [None, None]
    assert broken_promises(fleet.lines(), ends, watcher) == []
