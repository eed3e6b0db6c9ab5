"""Topics and partitions that are made while the worker runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import NewPartitions, NewTopic
from fleet.in_process import Running, committed, config
from fleet.workers import produce

from streamworker import Handler

if TYPE_CHECKING:
    from servers.kafka import SharedKafka

    from streamworker import Record

TIMEOUT_S = 30.0
QUICK_REFRESH = {"kafka__librdkafka__topic.metadata.refresh.interval.ms": 500}


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_topics_and_partitions_that_come_later_are_read_from_their_beginning(
    kafka: SharedKafka, protocol: str, start: str
) -> None:
    """Edge cases 29, 100: a new partition of a known topic has nothing that the group was not to see."""
    servers, group = kafka.bootstrap_servers, kafka.group("later")
    first = kafka.topic("in")
    later = f"{first}.later"
    values: list[bytes] = []

    class Seen(Handler[bytes]):
        topics = (first, later)

        def handle(self, record: Record[bytes]) -> None:
            values.append(record.value)

    settings = config(servers, group, kafka__group_protocol=protocol, kafka__start=start, **QUICK_REFRESH)
    with Running(settings, Seen) as worker:
        worker.wait(lambda: worker.recorder.of("assigned"), "assigned")
        if start == "latest":
            worker.wait(lambda: committed(servers, group, first, 1) == {0: 0}, "the start is committed")
        kafka.admin.create_partitions([NewPartitions(first, 2)])[first].result(TIMEOUT_S)
        produce(servers, first, [(None, "a")] * 10, 2)
        worker.wait(lambda: values.count(b"a") == 10, "the new partition", timeout_s=30)
        if start == "earliest":
            kafka.admin.create_topics([NewTopic(later, 1)])[later].result(TIMEOUT_S)
            produce(servers, later, [(None, "b")] * 10, 1)
            worker.wait(lambda: values.count(b"b") == 10, "the new topic", timeout_s=30)
            kafka.admin.delete_topics([later])[later].result(TIMEOUT_S)
        assert worker.stop() == 0
