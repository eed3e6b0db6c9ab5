"""A worker that may not see its replay topic, at brokers that look at rights."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it exports
    AclBinding,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from fleet.in_process import Running, committed, config
from fleet.workers import produce
from missing import obtained
from servers.kafka_cluster import AUTHORIZER, start_cluster

from streamworker import DeadLetter, Handler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers.kafka_cluster import KafkaCluster

    from streamworker import Record

TIMEOUT_S = 30.0


class Some(Handler[bytes]):
    topics = ("in",)
    dead_letter = DeadLetter("dlq")

    def handle(self, record: Record[bytes]) -> None: ...


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaCluster]:
    cluster = obtained(lambda: start_cluster(1, changes=AUTHORIZER))
    for made in cluster.admin.create_topics([NewTopic(name, 1) for name in ("in", "dlq")]).values():
        made.result(TIMEOUT_S)
    yield cluster
    cluster.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_worker_that_may_not_see_its_replay_topic_works_and_says_so(
    guarded: KafkaCluster, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the newer protocol brokers refuse a member whose subscription names such a topic."""
    denied = AclBinding(
        ResourceType.TOPIC,
        f"in.replay.{protocol}",
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.ALL,
        AclPermissionType.DENY,
    )
    for made in guarded.admin.create_acls([denied]).values():
        made.result(TIMEOUT_S)
    servers = guarded.bootstrap_servers
    produce(servers, "in", [(None, "x")], 1)
    caplog.set_level(logging.WARNING)

    with Running(config(servers, protocol, kafka__group_protocol=protocol), Some) as worker:
        worker.wait(lambda: committed(servers, protocol, "in", 1), "a commit", TIMEOUT_S)
        assert worker.stop() == 0

    assert worker.recorder.of("fault") == []
    assert "no right to read a replay topic" in caplog.text
