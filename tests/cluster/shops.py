"""A topic, a group and a release of the chart that is scaled by their lag; and a real worker whose sink is away."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.pod_monitors import job
from cluster.releases import Release, values_of
from confluent_kafka import Consumer, Producer, TopicPartition
from fleet.workers import Fleet
from servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cluster.kubernetes import Object
    from servers.kafka import SharedKafka
    from servers.prometheus import Prometheus

PARTITIONS = 6
THRESHOLD = 100  # records of lag per pod
LAG = PARTITIONS * THRESHOLD
TIMEOUT_S = 60.0
FAST: Object = {"policies": [{"type": "Pods", "value": 10, "periodSeconds": 1}]}


def behavior(up_s: int = 0, down_s: int = 0) -> Object:
    """All pods at once, after a window."""
    return {
        "scaleUp": {**FAST, "stabilizationWindowSeconds": up_s},
        "scaleDown": {**FAST, "stabilizationWindowSeconds": down_s},
    }


@dataclass(frozen=True, slots=True)
class Shop:
    """A topic, a group that is at its beginning, and a release whose Deployment reads it, so they say."""

    kafka: SharedKafka
    topic: str
    group: str
    release: Release

    def install(self, **autoscaling: object) -> None:
        """Install the chart and wait until KEDA serves it."""
        self.start(**autoscaling)
        self.wait(f"scaledobject/{self.scaled_object}", "condition=Ready")
        self.wait(f"hpa/keda-hpa-{self.scaled_object}", "condition=ScalingActive")

    def start(self, **autoscaling: object) -> None:
        settings = {
            "mode": "keda",
            "lagThreshold": THRESHOLD,
            "behavior": behavior(),
            "replayTopics": False,
            **autoscaling,
        }
        worker = {"group": self.group, "topics": [self.topic], "partitions": PARTITIONS, "autoscaling": settings}
        self.release.install(
            values_of(worker, kafka={"bootstrapServers": self.kafka.bootstrap_servers}, podMonitor={"enabled": True})
        )

    def produce(self, records: int) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "linger.ms": 5})
        for number in range(records):
            producer.produce(self.topic, b"order", partition=number % PARTITIONS)
        assert producer.flush(TIMEOUT_S) == 0

    def commit(self, *, end: bool) -> None:
        """The group is at the beginning of the topic, or has read all of it."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": self.group})
        try:
            at = [TopicPartition(self.topic, number, 0) for number in range(PARTITIONS)]
            if end:
                for one in at:
                    one.offset = consumer.get_watermark_offsets(one, timeout=TIMEOUT_S)[1]
            consumer.commit(offsets=at, asynchronous=False)
        finally:
            consumer.close()

    def wait(self, what: str, condition: str, timeout: str = "90s") -> None:
        self.release.cluster.wait(what, condition, self.release.namespace, timeout)

    def wait_for_pods(self, pods: int, timeout: str = "90s") -> float:
        """Wait until as many are ready; how long that took."""
        began_s = time.monotonic()
        self.wait(f"deployment/{self.deployment}", f"jsonpath={{.status.readyReplicas}}={pods}", timeout)
        return time.monotonic() - began_s

    def replicas(self) -> int:
        found = self.release.cluster.one("deployment", self.deployment, self.release.namespace)
        wanted: int = found["spec"]["replicas"]
        return wanted

    def rescalings(self) -> int:
        """How often an autoscaler has changed the number of pods."""
        chosen = ["--field-selector", "reason=SuccessfulRescale", "-o", "name"]
        return len(self.release.cluster.kubectl("get", "events", "-n", self.release.namespace, *chosen).split())

    def autoscaler(self) -> Object:
        """Its status."""
        name = f"keda-hpa-{self.scaled_object}"
        status: Object = self.release.cluster.one("hpa", name, self.release.namespace)["status"]
        return status

    @property
    def deployment(self) -> str:
        return self._name("deployments")

    @property
    def scaled_object(self) -> str:
        return self._name("scaledobjects")

    def _name(self, kinds: str) -> str:
        [found] = self.release.objects(kinds)
        name: str = found["metadata"]["name"]
        return name


def values(prometheus: Prometheus, query: str) -> list[float]:
    """Of each series that it finds now."""
    return [value for _, value in prometheus.ask(query)]


@contextmanager
def worker_without_store(shop: Shop, prometheus: Prometheus, folder: Path) -> Iterator[Callable[[], None]]:
    """A real worker of the group that meets a sink which is away; calling it brings the sink."""
    store, port = folder / "store", free_port()
    options = {
        "http.enabled": "true",
        "http.host": "127.0.0.1",
        "http.port": port,
        "app.store": store,
        "kafka.max_poll_interval_s": 60,
    }
    handler = "cluster.slow_store:StoreSlowly"
    [monitor], [pod] = shop.release.objects("podmonitors"), shop.release.pods()
    with Fleet(shop.kafka.bootstrap_servers, shop.group, shop.topic, folder, handler, options) as fleet:
        fleet.start()
        prometheus.scrape(job(monitor, pod, port))
        shop.produce(PARTITIONS)
        opened = f'{{__name__="streamworker_breaker_state",kind="sink",state="open",group="{shop.group}"}}'
        fleet.wait(lambda: 1.0 in values(prometheus, opened), "a breaker that is open")
        yield store.touch
