"""Ordinary clients work through the proxies of a mock cluster, notice their faults and outlive them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from fleet.proxied import ProxiedMock
from fleet.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable

TIMEOUT_S = 20.0
BLACK_HOLE_S = 4.0  # long enough to miss a heartbeat, which is due after 3 s


def settings(cluster: ProxiedMock, **more: str | float | bool) -> dict[str, str | int | float | bool]:
    return {"bootstrap.servers": cluster.bootstrap_servers, "log_level": 2, **more}


def member(cluster: ProxiedMock) -> Consumer:
    """A consumer of the group `readers`."""
    consumer = Consumer(
        settings(cluster, **{"group.id": "readers", "group.protocol": "consumer", "auto.offset.reset": "earliest"})
    )
    consumer.subscribe(["in"])
    return consumer


def produce(producer: Producer, values: Iterable[str]) -> None:
    for value in values:
        producer.produce("in", value)


def values(consumer: Consumer, count: int) -> list[str]:
    """The first `count` values, in any order."""
    found: list[str] = []

    def take() -> bool:
        messages = consumer.consume(count, 0.1)
        found.extend((one.value() or b"").decode() for one in messages if one.error() is None)
        return len(found) >= count

    wait_for(take, lambda: f"{count} records, there are {found}", TIMEOUT_S)
    return sorted(found)


def test_clients_meet_the_brokers_through_the_proxies_only() -> None:
    with ProxiedMock(brokers=2, topics={"in": 4}) as cluster:
        told = AdminClient(settings(cluster)).list_topics(timeout=TIMEOUT_S).brokers

        assert {number: one.port for number, one in told.items()} == {
            number: proxy.port for number, proxy in cluster.proxies.items()
        }
        assert cluster.bootstrap_servers == ",".join(f"127.0.0.1:{proxy.port}" for proxy in cluster.proxies.values())


def test_a_producer_and_a_consumer_work_through_the_proxies() -> None:
    numbers = [f"{number:03}" for number in range(200)]
    with ProxiedMock(brokers=2, topics={"in": 4}) as cluster, closing(member(cluster)) as consumer:
        producer = Producer(settings(cluster))

        produce(producer, numbers)

        assert producer.flush(TIMEOUT_S) == 0
        assert values(consumer, 200) == numbers


def test_a_consumer_goes_on_after_a_black_hole() -> None:
    with ProxiedMock(topics={"in": 1}) as cluster, closing(member(cluster)) as consumer:
        producer = Producer(settings(cluster))
        produce(producer, ["before"])
        assert values(consumer, 1) == ["before"]

        cluster.proxies[1].black_hole()
        produce(producer, ["during"])
        assert consumer.consume(1, BLACK_HOLE_S) == []
        assert cluster.proxies[1].lossy_connections > 0
        cluster.proxies[1].heal()
        produce(producer, ["after"])

        assert values(consumer, 2) == ["after", "during"]
        assert producer.flush(TIMEOUT_S) == 0


def test_one_broker_can_be_cut_off_alone() -> None:
    with ProxiedMock(brokers=2, topics={"in": 1}) as cluster:
        cluster.kafka.leader("in", 0, 2)
        cluster.proxies[1].refuse()

        producer = Producer(settings(cluster))
        produce(producer, ["x"])
        assert producer.flush(TIMEOUT_S) == 0

        cluster.proxies[2].refuse()
        with pytest.raises(KafkaException, match="_TRANSPORT"):
            AdminClient(settings(cluster)).list_topics(timeout=0.5)
