"""A group with a live worker, as brokers and the worker's own page show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.in_process import Running, config
from fleet.workers import produce
from servers.ports import free_ports

from streamworker import Handler
from streamworker.clock import SystemClock
from streamworker.cluster import Cluster
from streamworker.config import KafkaConfig
from streamworker.librdkafka import admin_settings
from streamworker.replay.group_summaries import NOT_CONFIGURED, summaries
from streamworker.replay.worker_pages import WorkerPages

if TYPE_CHECKING:
    from servers.kafka import SharedKafka

    from streamworker import Record

TIMEOUT_S = 20.0


def test_a_group_that_runs_is_shown_with_its_owners_and_its_lag(kafka: SharedKafka) -> None:
    topic, group = kafka.topic("in", 2), kafka.group("shown")
    handled: list[bytes | None] = []

    class Shown(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            handled.append(record.value)

    cluster = Cluster(admin_settings(KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)))
    produce(kafka.bootstrap_servers, topic, [("a", "1"), ("b", "2"), ("c", "3")], 2)
    (port,) = free_ports(1)
    settings = config(kafka.bootstrap_servers, group, http__enabled=True, http__host="127.0.0.1", http__port=port)
    with Running(settings, Shown) as worker:
        worker.wait(lambda: len(handled) == 3, "the records")
        asked = WorkerPages([f"127.0.0.1:{port}"], SystemClock())
        worker.wait(lambda: summaries([group], cluster, asked, TIMEOUT_S)[0].missing is None, "its own word")
        [live] = summaries([group], cluster, asked, TIMEOUT_S)
        [alone] = summaries([group], cluster, WorkerPages([], SystemClock()), TIMEOUT_S)
    [gone] = summaries([group], cluster, WorkerPages([], SystemClock()), TIMEOUT_S)
    [unknown] = summaries([kafka.group("nobody")], cluster, WorkerPages([], SystemClock()), TIMEOUT_S)

    assert (live.state, live.members, live.missing) == ("STABLE", 1, None)
    assert alone.missing == NOT_CONFIGURED
    assert {(one.topic, one.partition) for one in live.partitions} >= {(topic, 0), (topic, 1)}
    assert all(one.owner is not None and "127.0.0.1" in one.owner for one in live.partitions)
    assert (gone.state, gone.members) == ("EMPTY", 0)
    assert [(one.owner, one.lag) for one in gone.partitions if one.topic == topic] == [(None, 0), (None, 0)]
    assert (unknown.state, list(unknown.partitions)) == ("DEAD", [])
