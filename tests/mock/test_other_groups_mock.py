"""A cluster that does not tell its groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.clock import SystemClock
from streamworker.cluster import Cluster
from streamworker.config import KafkaConfig
from streamworker.librdkafka import admin_settings
from streamworker.replay.other_groups import other_groups

if TYPE_CHECKING:
    from streamworker.testing import MockKafka


def test_where_groups_are_not_told_that_is_said(mock_kafka: MockKafka) -> None:
    cluster = Cluster(admin_settings(KafkaConfig(bootstrap_servers=mock_kafka.bootstrap_servers)))

    found = other_groups(cluster, {"orders"}, (), clock=SystemClock(), timeout_s=5.0)

    assert not found.told
