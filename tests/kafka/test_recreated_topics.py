"""A topic that is made anew has other records at the same offsets: none of them may be passed over in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import NewTopic
from fleet.in_process import Running, committed, config
from fleet.workers import produce

from streamworker import Handler
from streamworker.cluster import Cluster
from streamworker.interfaces import OffsetMark
from streamworker.librdkafka import admin_settings
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from servers.kafka import SharedKafka

    from streamworker import Record

TIMEOUT_S = 30.0
QUICK_REFRESH = {"kafka__librdkafka__topic.metadata.refresh.interval.ms": 500}


def make_anew(kafka: SharedKafka, topic: str) -> None:
    kafka.admin.delete_topics([topic])[topic].result(TIMEOUT_S)
    kafka.admin.create_topics([NewTopic(topic, 1)])[topic].result(TIMEOUT_S)


def stops(worker: Running) -> list[object]:
    return [reason for _, reason, *_ in worker.recorder.of("stopped")]


def test_a_topic_made_anew_while_the_worker_was_away_stops_it(kafka: SharedKafka) -> None:
    """F-32. Edge cases 10, 11: the group's offset is past the end of the new log."""
    topic, group = kafka.topic("in"), kafka.group("away")
    values: list[bytes] = []

    class Seen(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            values.append(record.value)

    produce(kafka.bootstrap_servers, topic, [(None, "old")] * 50, 1)
    with Running(config(kafka.bootstrap_servers, group), Seen, until_end=True) as worker:
        assert worker.ended() == 0
    make_anew(kafka, topic)
    produce(kafka.bootstrap_servers, topic, [(None, "new")] * 10, 1)

    with Running(config(kafka.bootstrap_servers, group), Seen) as worker:
        worker.wait(lambda: stops(worker) == ["offset_out_of_range"] or b"new" in values, "stopped or read again")
        assert worker.stop() == 0

    assert values.count(b"new") in (0, 10)


def test_a_topic_made_anew_that_is_longer_than_the_groups_offset_stops_it(kafka: SharedKafka) -> None:
    """F-32. Edge case 11. Whoever keeps the group's offsets past the topic's end keeps what lies beside them."""
    topic, group = kafka.topic("in"), kafka.group("longer")
    key = TopicPartition(topic, 0)
    values: list[bytes] = []

    class Seen(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            values.append(record.value)

    settings = config(kafka.bootstrap_servers, group)
    cluster = Cluster(admin_settings(settings.kafka))
    produce(kafka.bootstrap_servers, topic, [(None, "old")] * 50, 1)
    with Running(settings, Seen, until_end=True) as worker:
        assert worker.ended() == 0
    mark = cluster.group_offsets(group, [key], TIMEOUT_S)[key]
    assert mark is not None
    make_anew(kafka, topic)
    produce(kafka.bootstrap_servers, topic, [(None, "new")] * 100, 1)
    cluster.set_group_offsets(group, {key: mark}, TIMEOUT_S)

    with Running(settings, Seen) as worker:
        worker.wait(lambda: stops(worker) == ["topic_made_anew"], "stopped")
        assert worker.stop() == 0

    assert values.count(b"new") == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_topic_made_anew_under_a_running_worker_stops_it_or_is_read_from_its_beginning(
    kafka: SharedKafka, protocol: str
) -> None:
    """F-32. Edge cases 10, 11, 100."""
    topic, group = kafka.topic("in"), kafka.group("live")
    values: list[bytes] = []

    class Seen(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            values.append(record.value)

    settings = config(kafka.bootstrap_servers, group, kafka__group_protocol=protocol, **QUICK_REFRESH)
    with Running(settings, Seen) as worker:
        produce(kafka.bootstrap_servers, topic, [(None, "old")] * 50, 1)
        worker.wait(lambda: committed(kafka.bootstrap_servers, group, topic, 1) == {0: 50}, "committed")
        make_anew(kafka, topic)
        produce(kafka.bootstrap_servers, topic, [(None, "new")] * 10, 1)
        worker.wait(lambda: stops(worker) or values.count(b"new") == 10, "stopped or read again", timeout_s=30)
        assert worker.stop() == 0

    assert values.count(b"old") == 50


def test_an_offset_past_the_end_stops_its_partition_with_the_reason(kafka: SharedKafka) -> None:
    """F-15, F-32. Edge case 10: somebody set it by hand."""
    topic, group = kafka.topic("in"), kafka.group("past")
    produce(kafka.bootstrap_servers, topic, [(None, "x")] * 5, 1)
    settings = config(kafka.bootstrap_servers, group)
    Cluster(admin_settings(settings.kafka)).set_group_offsets(
        group, {TopicPartition(topic, 0): OffsetMark(99)}, TIMEOUT_S
    )

    class Never(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            raise AssertionError(record)

    with Running(settings, Never) as worker:
        worker.wait(lambda: stops(worker) == ["offset_out_of_range"], "stopped")
        worker.wait(lambda: worker.recorder.of("foreign_offset"), "told")
        assert worker.stop() == 0
    assert committed(kafka.bootstrap_servers, group, topic, 1) == {0: 99}
