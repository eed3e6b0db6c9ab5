"""What KEDA asks Prometheus for, to hold the pods while a sink is away: asked of a worker whose sink is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.releases import Release
from cluster.shops import PARTITIONS, TIMEOUT_S, Shop, values, worker_without_store
from fleet.workers import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.kubernetes import Kubernetes
    from servers.kafka import SharedKafka
    from servers.prometheus import Prometheus


def test_the_query_of_the_hold_tells_an_open_breaker_of_the_group_from_a_closed_one(
    kafka: SharedKafka, kubernetes: Kubernetes, prometheus: Prometheus, tmp_path: Path
) -> None:
    with kubernetes.namespace("hold") as namespace:
        release = Release(kubernetes, namespace, tmp_path)
        shop = Shop(kafka, kafka.topic("hold", PARTITIONS), kafka.group("hold"), release)
        shop.commit(end=False)
        shop.start(prometheus={"serverAddress": prometheus.url}, sinkBreakerHold={"enabled": True})
        [scaled] = release.objects("scaledobjects")
        [query] = [one["metadata"]["query"] for one in scaled["spec"]["triggers"] if one["name"] == "sink_open"]

        before = values(prometheus, query)
        with worker_without_store(shop, prometheus, tmp_path) as bring_the_store:
            away = values(prometheus, query)
            shop.produce(PARTITIONS)
            bring_the_store()
            wait_for(lambda: values(prometheus, query) == [0.0], lambda: "the breaker is open", TIMEOUT_S)

        assert (before, away) == ([0.0], [1.0])
