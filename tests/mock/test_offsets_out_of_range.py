"""An offset that the log does not have stops its partition, in the open, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fleet.in_process import Running, committed, config
from servers.ports import free_port

from streamworker import Handler
from streamworker.cluster import Cluster
from streamworker.interfaces import OffsetMark
from streamworker.librdkafka import admin_settings
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka


def test_records_that_retention_took_stop_their_partition_only(mock_kafka: MockKafka) -> None:
    """F-31. Edge case 10: the group is at 2, the log begins at 5; partition 1 goes on."""
    mock_kafka.create_topic("in", 2)
    for partition in (0, 1):
        for _ in range(8):
            mock_kafka.produce_raw("in", partition, None, b"x")
    settings = config(mock_kafka.bootstrap_servers, http__enabled="true", http__port=free_port())
    Cluster(admin_settings(settings.kafka)).set_group_offsets(
        "g", {TopicPartition("in", 0): OffsetMark(2, "sw1 q=1"), TopicPartition("in", 1): OffsetMark(2, "sw1 q=1")}, 10
    )
    mock_kafka.delete_records("in", 0, 5)
    seen: list[tuple[int, int]] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.partition, record.offset))

    with Running(settings, Seen) as worker:
        worker.wait(lambda: worker.recorder.of("stopped") and len(seen) == 6, "stopped")
        worker.wait(lambda: committed(mock_kafka.bootstrap_servers, "g", "in", 2) == {0: 2, 1: 8}, "committed")
        worker.wait(lambda: '"none_stopped": false' in worker.page("health/ready")[1], "not ready")
        code, ready = worker.page("health/ready")
        live = worker.page("health/live")[0]
        status = json.loads(worker.page("status")[1])

        assert (code, live) == (503, 200), ready
        (stopped, going) = sorted(status["partitions"], key=lambda one: one["partition"])
        assert stopped["stopped"]["reason"] == "offset_out_of_range"
        assert stopped["stopped"]["mends_itself"] is False
        assert stopped["committed_offset"] == 2
        assert going["stopped"] is None
        assert worker.stop() == 0
    assert seen == [(1, offset) for offset in range(2, 8)]
    assert committed(mock_kafka.bootstrap_servers, "g", "in", 2) == {0: 2, 1: 8}
