"""Groups beside the one that is meant, found by their offsets on a real Kafka."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition

from streamworker.clock import SystemClock
from streamworker.cluster import Cluster
from streamworker.config import KafkaConfig
from streamworker.librdkafka import admin_settings
from streamworker.replay.other_groups import Reader, other_groups

if TYPE_CHECKING:
    from servers.kafka import SharedKafka

TIMEOUT_S = 20.0


def commit(kafka: SharedKafka, group: str, topic: str) -> None:
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "enable.auto.commit": False}
    with closing(Consumer(settings)) as consumer:
        consumer.commit(offsets=[ClientPartition(topic, 0, 1)], asynchronous=False)


def test_another_group_with_offsets_of_the_target_is_found(kafka: SharedKafka) -> None:
    topic, other_topic = kafka.topic("orders", 2), kafka.topic("else")
    shop, billing, search = kafka.group("shop"), kafka.group("billing"), kafka.group("search")
    for group, of in ((shop, topic), (billing, topic), (search, other_topic)):
        commit(kafka, group, of)
    cluster = Cluster(admin_settings(KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)))

    found = other_groups(cluster, {topic}, {shop}, clock=SystemClock(), timeout_s=TIMEOUT_S)

    assert found.readers == {topic: [Reader(billing, live=False)]}
    assert (found.told, found.whole, found.unanswered) == (True, True, 0)


def test_a_group_with_members_is_told_from_one_that_is_away(kafka: SharedKafka) -> None:
    topic, group = kafka.topic("orders"), kafka.group("live")
    cluster = Cluster(admin_settings(KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)))
    settings = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    with closing(Consumer(settings)) as consumer:
        consumer.subscribe([topic])
        while not consumer.assignment():
            consumer.poll(0.1)
        consumer.commit(offsets=[ClientPartition(topic, 0, 0)], asynchronous=False)

        found = other_groups(cluster, {topic}, (), clock=SystemClock(), timeout_s=TIMEOUT_S)

    assert found.readers == {topic: [Reader(group, live=True)]}
