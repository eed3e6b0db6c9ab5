"""What the tests on a real Kafka share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # the package does not list what it exports
from missing import obtained
from servers.kafka_cluster import start_cluster
from servers.ports import free_ports
from servers.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.kafka import SharedKafka
    from servers.kafka_cluster import KafkaCluster

TIMEOUT_S = 30.0


@pytest.fixture
def dead_letters_of(kafka: SharedKafka) -> Iterator[Callable[..., str]]:
    """Names the dead-letter topic of a topic and, unless `make` is false, makes it; it is gone after the test.

    What was made beside it goes, too: parked keys, states, the topic's replays.
    """
    topics: list[str] = []

    def dead_letters(topic: str, *, make: bool = True, **settings: str) -> str:
        name = f"{topic}.dlq"
        topics.append(topic)
        if make:
            config = {key.replace("_", "."): value for key, value in settings.items()}
            kafka.admin.create_topics([NewTopic(name, 1, config=config)])[name].result(TIMEOUT_S)
        return name

    yield dead_letters
    there = kafka.admin.list_topics(timeout=TIMEOUT_S).topics
    names = [name for name in there for topic in topics if name.startswith((f"{topic}.dlq", f"{topic}.replay."))]
    if names:
        for deleted in kafka.admin.delete_topics(names).values():
            deleted.result(TIMEOUT_S)


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[KafkaCluster]:
    """A Kafka of three nodes for one file of tests; three Java processes of 300 MB each stay no longer."""
    cluster = obtained(start_cluster)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def behind_a_proxy() -> Iterator[tuple[KafkaCluster, FaultProxy]]:
    """A Kafka of one node for one file of tests, which clients reach through the proxy only."""
    (port,) = free_ports(1)
    with FaultProxy("127.0.0.1", port) as proxy:
        cluster = obtained(lambda: start_cluster(1, ports={1: port}, advertised={1: proxy.port}))
        yield cluster, proxy
        cluster.close()
