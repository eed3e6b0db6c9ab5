"""A Kafka whose clients are told the port of a proxy: its faults hit them, and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException
from fleet.workers import produce
from servers.kafka import SharedKafka, admin_client

if TYPE_CHECKING:
    from servers.kafka_cluster import KafkaCluster
    from servers.proxy import FaultProxy

TIMEOUT_S = 20.0


def test_clients_are_told_the_proxys_port_wherever_they_begin(behind_a_proxy: tuple[KafkaCluster, FaultProxy]) -> None:
    cluster, proxy = behind_a_proxy
    assert cluster.bootstrap_servers == f"127.0.0.1:{proxy.port}"

    for begin in (cluster.bootstrap_servers, f"127.0.0.1:{cluster.node(1).port}"):
        assert admin_client(begin).list_topics(timeout=TIMEOUT_S).brokers[1].port == proxy.port


def test_what_a_proxy_loses_is_lost_for_clients_only(behind_a_proxy: tuple[KafkaCluster, FaultProxy]) -> None:
    cluster, proxy = behind_a_proxy
    topic = SharedKafka(cluster).topic("in")

    proxy.black_hole()

    with pytest.raises(KafkaException, match=r"_TIMED_OUT|_TRANSPORT"):
        admin_client(cluster.bootstrap_servers).list_topics(timeout=1.0)
    assert produce(cluster.direct_servers, topic, [(None, "x")], 1) == 1
    assert cluster.leaders(topic) == {0: 1}
    proxy.heal()
    assert produce(cluster.bootstrap_servers, topic, [(None, "x")], 1) == 1
