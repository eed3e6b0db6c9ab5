"""The chart's Deployment, scaled by KEDA: real lag of a real group on a real Kafka, real autoscalers, simulated pods.

The windows of the chart are minutes long; here they are as short as each test says.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from cluster.keda import start_keda
from cluster.kubernetes import obtain_kubernetes
from cluster.programs import Refused
from cluster.releases import Release
from cluster.shops import LAG, PARTITIONS, THRESHOLD, TIMEOUT_S, Shop, behavior, worker_without_store
from fleet.workers import wait_for
from missing import obtained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.kubernetes import Kubernetes
    from servers.kafka import SharedKafka
    from servers.prometheus import Prometheus

FALLBACK = 2  # the chart's
NEVER_WITHIN = "15s"  # seven rounds of the autoscaler


@pytest.fixture(scope="module")
def scaled() -> Iterator[Kubernetes]:
    """A Kubernetes with KEDA. It is always one of this run: KEDA's metrics must reach its API server."""
    cluster = obtained(lambda: obtain_kubernetes(None, None))
    assert cluster.control_plane is not None
    plane = cluster.control_plane
    with closing(cluster), closing(obtained(lambda: start_keda(cluster, plane))):
        yield cluster


@pytest.fixture
def shop(kafka: SharedKafka, scaled: Kubernetes, tmp_path: Path) -> Iterator[Shop]:
    with scaled.namespace("scaled") as namespace:
        release = Release(scaled, namespace, tmp_path)
        yield Shop(kafka, kafka.topic("scaled", PARTITIONS), kafka.group("scaled"), release)


def test_lag_adds_pods_up_to_the_partitions_and_its_end_removes_them(shop: Shop) -> None:
    shop.commit(end=False)
    shop.install()
    assert shop.replicas() == 1

    shop.produce(LAG)
    out_s = shop.wait_for_pods(PARTITIONS)
    shop.commit(end=True)
    in_s = shop.wait_for_pods(1)

    print(f"lag of {LAG}: 1 to {PARTITIONS} pods in {out_s:.1f} s; none: back to 1 in {in_s:.1f} s")


def test_more_lag_than_partitions_can_use_adds_no_more_pods_than_partitions(shop: Shop) -> None:
    shop.commit(end=False)
    shop.install()

    shop.produce(4 * LAG)

    shop.wait_for_pods(PARTITIONS)
    assert shop.autoscaler()["desiredReplicas"] == PARTITIONS


def test_lag_below_the_threshold_adds_none(shop: Shop) -> None:
    shop.commit(end=False)
    shop.install()

    shop.produce(THRESHOLD)

    wait_for(lambda: lag_seen(shop) == THRESHOLD, lambda: str(shop.autoscaler()), TIMEOUT_S)
    with pytest.raises(Refused, match="timed out"):
        shop.wait_for_pods(2, NEVER_WITHIN)


def test_a_group_that_never_committed_is_behind_by_the_whole_topic(shop: Shop) -> None:
    shop.produce(LAG)

    shop.install()

    shop.wait_for_pods(PARTITIONS)


def test_lag_that_is_shorter_than_the_window_adds_no_pod_and_longer_does(shop: Shop) -> None:
    window_s = 12
    shop.commit(end=False)
    shop.install(behavior=behavior(up_s=window_s))
    wait_for(lambda: lag_seen(shop) == 0, lambda: str(shop.autoscaler()), TIMEOUT_S)

    shop.produce(LAG)
    wait_for(lambda: lag_seen(shop) == LAG, lambda: str(shop.autoscaler()), TIMEOUT_S)
    shop.commit(end=True)
    wait_for(lambda: lag_seen(shop) == 0, lambda: str(shop.autoscaler()), TIMEOUT_S)
    after_spike = shop.rescalings()
    shop.produce(LAG)
    took_s = shop.wait_for_pods(PARTITIONS)

    print(f"window of {window_s} s: a spike added no pod, lag that stayed did after {took_s:.1f} s")
    assert after_spike == 0
    assert took_s > window_s - 2  # a round of the autoscaler may have come between


def test_of_the_total_lag_any_excess_adds_pods_however_many_there_are(shop: Shop) -> None:
    """150 records over two pods are below 100 each, and above 100 in all."""
    shop.commit(end=False)
    shop.install(minReplicas=2, metricType="Value")

    shop.produce(THRESHOLD * 3 // 2)

    took_s = shop.wait_for_pods(PARTITIONS)
    print(f"Value, lag of {THRESHOLD * 3 // 2} over 2 pods: {PARTITIONS} pods after {took_s:.1f} s")


def test_of_the_lag_per_pod_the_same_excess_adds_none(shop: Shop) -> None:
    shop.commit(end=False)
    shop.install(minReplicas=2)

    shop.produce(THRESHOLD * 3 // 2)

    wait_for(lambda: lag_seen(shop) == THRESHOLD * 3 // 4, lambda: str(shop.autoscaler()), TIMEOUT_S)
    with pytest.raises(Refused, match="timed out"):
        shop.wait_for_pods(3, NEVER_WITHIN)


def test_pods_are_added_while_a_sink_is_away_if_nothing_holds_them(
    shop: Shop, prometheus: Prometheus, tmp_path: Path
) -> None:
    shop.commit(end=False)
    shop.install()

    with worker_without_store(shop, prometheus, tmp_path):
        shop.produce(LAG)
        took_s = shop.wait_for_pods(PARTITIONS)

    print(f"breaker open, no hold: {PARTITIONS} pods after {took_s:.1f} s")


def test_an_open_breaker_of_a_sink_holds_the_pods_and_lets_them_go_when_it_closes(
    shop: Shop, prometheus: Prometheus, tmp_path: Path
) -> None:
    shop.commit(end=False)
    shop.install(prometheus={"serverAddress": prometheus.url}, sinkBreakerHold={"enabled": True})

    with worker_without_store(shop, prometheus, tmp_path) as bring_the_store:
        shop.produce(LAG)
        with pytest.raises(Refused, match="timed out"):
            shop.wait_for_pods(2, NEVER_WITHIN)
        held = shop.rescalings(), shop.replicas()
        bring_the_store()
        took_s = shop.wait_for_pods(PARTITIONS)

    print(f"breaker open: 1 pod for {NEVER_WITHIN}; the store back: {PARTITIONS} pods after {took_s:.1f} s")
    assert held == (0, 1)


def test_without_an_answer_from_prometheus_there_are_the_pods_of_the_fallback_and_no_more(
    shop: Shop, prometheus: Prometheus
) -> None:
    """So a Prometheus that is away costs scaling, and nothing else."""
    shop.commit(end=False)
    shop.install(prometheus={"serverAddress": prometheus.url}, sinkBreakerHold={"enabled": True})

    [server] = prometheus.programs
    server.end()
    shop.produce(LAG)

    shop.wait_for_pods(FALLBACK)
    with pytest.raises(Refused, match="timed out"):
        shop.wait_for_pods(FALLBACK + 1, NEVER_WITHIN)
    server.restart()
    shop.wait_for_pods(PARTITIONS)


def lag_seen(shop: Shop) -> int | None:
    """What the autoscaler knows of the first trigger, per pod; None before it knows."""
    for metric in shop.autoscaler().get("currentMetrics") or ():
        current = metric.get("external", {}).get("current", {})
        found = current.get("averageValue", current.get("value"))
        if found is not None:
            return int(found.removesuffix("m")) // (1000 if found.endswith("m") else 1)
    return None
