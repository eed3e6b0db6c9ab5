"""The real Kafka that tests run against is one: topics, records, groups, and its limit on commit metadata."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers.kafka import SharedKafka

TIMEOUT_S = 30.0
LARGEST_METADATA_BYTES = 4095  # the broker's default offset.metadata.max.bytes is 4096, which it refuses itself


@pytest.fixture
def member(kafka: SharedKafka) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": kafka.group("member"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    yield consumer
    consumer.close()


def test_a_new_topic_has_its_partitions_and_a_name_of_this_run(kafka: SharedKafka) -> None:
    first, second = kafka.topic("orders", partitions=3), kafka.topic("orders")

    found = kafka.admin.list_topics(timeout=TIMEOUT_S).topics
    assert len(found[first].partitions) == 3
    assert len(found[second].partitions) == 1


def test_what_is_produced_reaches_a_group_member_in_order(kafka: SharedKafka, member: Consumer) -> None:
    topic = kafka.topic("in")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for value in (b"a", b"b", b"c"):
        producer.produce(topic, value, key=b"k")
    assert producer.flush(TIMEOUT_S) == 0

    member.subscribe([topic])
    messages = member.consume(3, TIMEOUT_S)

    assert [(message.offset(), message.value()) for message in messages] == [(0, b"a"), (1, b"b"), (2, b"c")]


def test_commit_metadata_comes_back_whole_up_to_the_limit(kafka: SharedKafka, member: Consumer) -> None:
    topic = kafka.topic("in")
    metadata = "m" * LARGEST_METADATA_BYTES

    member.commit(offsets=[TopicPartition(topic, 0, 5, metadata)], asynchronous=False)

    (committed,) = member.committed([TopicPartition(topic, 0)], TIMEOUT_S)
    assert (committed.offset, committed.metadata) == (5, metadata)


def test_commit_metadata_above_the_limit_is_refused(kafka: SharedKafka, member: Consumer) -> None:
    topic = kafka.topic("in")
    metadata = "m" * (LARGEST_METADATA_BYTES + 1)

    with pytest.raises(KafkaException) as refused:
        member.commit(offsets=[TopicPartition(topic, 0, 5, metadata)], asynchronous=False)

    assert refused.value.args[0].code() == KafkaError.OFFSET_METADATA_TOO_LARGE


def test_topics_and_records_outlive_a_kill(kafka: SharedKafka, member: Consumer) -> None:
    if not kafka.server.owned:
        pytest.skip("the Kafka was given, so it is not killed")
    topic = kafka.topic("in")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})
    producer.produce(topic, b"a")
    assert producer.flush(TIMEOUT_S) == 0

    kafka.server.kill()
    with pytest.raises(ConnectionRefusedError):
        connect(kafka.bootstrap_servers)
    kafka.server.restart()

    member.assign([TopicPartition(topic, 0, 0)])
    (message,) = member.consume(1, TIMEOUT_S)
    assert message.value() == b"a"


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)
