"""What a source hands out at once is of one partition of one topic, however topics lie between one another."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from fleet.in_process import config
from fleet.workers import wait_for

from streamworker.clock import SystemClock
from streamworker.interfaces import Start
from streamworker.librdkafka import consumer_settings
from streamworker.source.kafka import KafkaSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka import Message

    from streamworker import TopicPartition
    from streamworker.testing.mock_kafka import MockKafka

RECORDS = 4
SOURCE, REPLAYS = "in", "in.replay.g"


class FromTheStart:
    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Start]:
        return {one: Start(0, paused=False) for one in partitions}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None: ...

    def lost(self, partitions: Sequence[TopicPartition]) -> None: ...


@pytest.mark.parametrize(
    ("topics", "lengths"),
    [([SOURCE], [RECORDS]), ([SOURCE, REPLAYS], [1] * 2 * RECORDS)],
    ids=["of one topic", "of two, in turn"],
)
def test_records_with_the_same_partition_number_are_told_apart_by_their_topic(
    mock_kafka: MockKafka, topics: list[str], lengths: list[int]
) -> None:
    for topic in topics:
        mock_kafka.create_topic(topic, 1)
        for _ in range(RECORDS):
            mock_kafka.produce_raw(topic, 0, None, b"x")
    came: list[Message] = []

    with closing(
        KafkaSource(
            consumer_settings(config(mock_kafka.bootstrap_servers).kafka, end_of_partition=False), SystemClock()
        )
    ) as source:
        source.subscribe(topics, FromTheStart())

        def all_came() -> bool:
            came.extend(one for _, run in source.fetch(1, 0.1).runs for one in run)  # type: ignore[misc]
            return len(came) == len(topics) * RECORDS

        wait_for(all_came, lambda: f"{len(came)} records", 30.0)
        in_turn = sorted(came, key=lambda one: (one.offset(), one.topic()))
        runs = source._runs(in_turn)

    assert [len(run) for _, run in runs] == lengths
    assert [one for _, run in runs for one in run] == in_turn
    assert all(one.topic() == key.topic for key, run in runs for one in run)
