"""What the coordinator may answer to a commit: no answer ends the loop or loses a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError
from fleet.in_process import Running, committed, config
from fleet.workers import CommitWatcher, produce

from streamworker import Handler

if TYPE_CHECKING:
    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka

FENCED_MEMBER_EPOCH, STALE_MEMBER_EPOCH = 110, 113


@pytest.mark.parametrize(
    ("protocol", "code"),
    [
        ("classic", KafkaError.ILLEGAL_GENERATION),
        ("classic", KafkaError.UNKNOWN_MEMBER_ID),
        ("classic", KafkaError.REBALANCE_IN_PROGRESS),
        ("consumer", KafkaError.COORDINATOR_LOAD_IN_PROGRESS),
        ("consumer", KafkaError.NOT_COORDINATOR),
        ("consumer", KafkaError.TOPIC_AUTHORIZATION_FAILED),
        ("consumer", KafkaError.UNKNOWN_MEMBER_ID),
        ("consumer", FENCED_MEMBER_EPOCH),
        ("consumer", STALE_MEMBER_EPOCH),
    ],
)
def test_a_refused_commit_is_sent_again_and_costs_no_record(mock_kafka: MockKafka, protocol: str, code: int) -> None:
    """F-10, F-11, F-14. Edge cases 2, 14, 15a, 17: it does not count as committed, and the offset never goes back."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 2)
    seen: list[tuple[int, int]] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.partition, record.offset))

    with (
        Running(config(servers, kafka__group_protocol=protocol), Seen) as worker,
        CommitWatcher(servers, "g", "in", 2) as watcher,
    ):
        produce(servers, "in", [(None, "x")] * 100, 2)
        worker.wait(lambda: watcher.committed() == {0: 50, 1: 50}, "the first half committed")
        mock_kafka.push_errors("OffsetCommit", code)
        produce(servers, "in", [(None, "x")] * 100, 2)
        worker.wait(lambda: watcher.committed() == {0: 100, 1: 100}, "all committed", timeout_s=40)
        assert worker.stop() == 0

    assert set(seen) == {(partition, offset) for partition in (0, 1) for offset in range(100)}
    for partition in (0, 1):
        offsets = [one.offset for one in watcher.seen if one.partition == partition]
        assert offsets == sorted(offsets)


def test_a_worker_with_nothing_to_commit_commits_nothing(mock_kafka: MockKafka) -> None:
    """Edge case 15: nor is there an error about it, on the way or at the end."""
    mock_kafka.create_topic("in", 1)

    class Idle(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None: ...

    with Running(config(mock_kafka.bootstrap_servers), Idle) as worker:
        worker.wait(lambda: worker.recorder.of("assigned"), "assigned")
        assert worker.stop() == 0

    assert worker.recorder.of("commit_answered") == []
    assert committed(mock_kafka.bootstrap_servers, "g", "in", 1) == {}
