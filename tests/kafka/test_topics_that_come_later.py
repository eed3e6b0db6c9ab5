"""Topics and partitions that are made while the worker runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import NewPartitions, NewTopic
from fleet.in_process import Running, committed, config
from fleet.workers import produce

from streamworker import Handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers.kafka import SharedKafka

    from streamworker import Record

TIMEOUT_S = 30.0
QUICK_REFRESH = {"kafka__librdkafka__topic.metadata.refresh.interval.ms": 500}


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_topics_and_partitions_that_come_later_are_read_from_their_beginning(
    kafka: SharedKafka, protocol: str, start: str, figures: Callable[..., None]
) -> None:
    """F-3D. Edge cases 29, 100: a new partition of a known topic has nothing that the group was not to see."""
    servers, group = kafka.bootstrap_servers, kafka.group("later")
    first = kafka.topic("in")
    later = f"{first}.later"
    values: list[bytes] = []

    class Seen(Handler[bytes]):
        topics = (first, later)

        def handle(self, record: Record[bytes]) -> None:
            values.append(record.value)

    settings = config(servers, group, kafka__group_protocol=protocol, kafka__start=start, **QUICK_REFRESH)
    produce(servers, first, [(None, "old")], 1)
    with Running(settings, Seen) as worker:
        worker.wait(lambda: worker.recorder.of("assigned"), "assigned")
        worker.wait(lambda: committed(servers, group, first, 1) == {0: 1}, "the start is committed")
        kafka.admin.create_partitions([NewPartitions(first, 2)])[first].result(TIMEOUT_S)
        began_s = time.monotonic()
        produce(servers, first, [(None, "a")] * 10, 2)
        worker.wait(lambda: values.count(b"a") == 10, "the new partition", timeout_s=30)
        figures("F-3D", f"a new partition, {protocol}, {start}", read_after_s=round(time.monotonic() - began_s, 1))
        if start == "earliest":
            kafka.admin.create_topics([NewTopic(later, 1)])[later].result(TIMEOUT_S)
            produce(servers, later, [(None, "b")] * 10, 1)
            worker.wait(lambda: values.count(b"b") == 10, "the new topic", timeout_s=30)
            kafka.admin.delete_topics([later])[later].result(TIMEOUT_S)
        assert worker.stop() == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_pattern_takes_the_topics_that_match_it_as_a_whole(kafka: SharedKafka, protocol: str) -> None:
    """F-3D. Edge case 100: also those that come later."""
    shop, group = kafka.topic(f"shop-{protocol}"), kafka.group("pattern")
    longer = kafka.topic(f"shop-{protocol}.more")
    prefix = shop.rpartition(".")[0].replace(".", "\\.")
    seen: list[str] = []

    class Shops(Handler[bytes]):
        topics = (f"^{prefix}\\.[0-9]+$",)

        def handle(self, record: Record[bytes]) -> None:
            seen.append(record.topic)

    produce(kafka.bootstrap_servers, shop, [(None, "x")], 1)
    produce(kafka.bootstrap_servers, longer, [(None, "x")], 1)
    settings = config(kafka.bootstrap_servers, group, kafka__group_protocol=protocol, **QUICK_REFRESH)
    with Running(settings, Shops) as worker:
        worker.wait(lambda: seen == [shop], "the topic that matches")
        another = kafka.topic(f"shop-{protocol}")
        produce(kafka.bootstrap_servers, another, [(None, "x")], 1)
        worker.wait(lambda: seen == [shop, another], "the topic that came later")
        assert worker.stop() == 0
