"""Dead letters of a running worker: the topic is missing, refuses, is narrower, or was not declared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError
from fleet.in_process import Running, committed, config, read
from fleet.workers import Fleet, produce
from servers.ports import free_port

from streamworker import DeadLetter, Handler, PoisonError, Retry

if TYPE_CHECKING:
    from pathlib import Path

    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka


class Judge(Handler[bytes]):
    """Values say what becomes of them."""

    topics = ("in",)
    retry = Retry(attempts=3, base_s=0.01)
    dead_letter = DeadLetter("in.dlq")

    def handle(self, record: Record[bytes]) -> None:
        if record.value == b"poison":
            raise PoisonError("no")
        if record.value == b"failing":
            raise ConnectionError("not now")


class WithoutDeadLetters(Judge):
    dead_letter = None


def test_a_missing_dead_letter_topic_refuses_the_start_with_the_command_that_makes_it(
    mock_kafka: MockKafka, tmp_path: Path
) -> None:
    """F-60. Edge case 63."""
    mock_kafka.create_topic("in", 1)
    with Fleet(mock_kafka.bootstrap_servers, "g", "in", tmp_path, handler="fleet.apps:LedgerWithDeadLetters") as fleet:
        code = fleet.start().wait(20)

    assert code == 2
    assert "there is no topic 'in.dlq'" in fleet.logs()
    assert "streamworker topics create" in fleet.logs()
    assert "Traceback" not in fleet.logs()


def test_a_topic_that_refuses_stops_the_partition_until_it_takes_the_letter(mock_kafka: MockKafka) -> None:
    """F-60. Edge cases 40, 44, 55, 56: nothing is committed past the record, readiness says so, it mends by itself."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 2)
    mock_kafka.create_topic("in.dlq", 2)
    settings = config(servers, http__enabled="true", http__port=free_port(), dead_letters__retry_min_s=0.5)

    for value in (b"poison", b"failing", b"fine"):
        mock_kafka.produce_raw("in", 0, b"k", value)
    for _ in range(20):
        mock_kafka.produce_raw("in", 1, b"k", b"fine")
    mock_kafka.push_errors("Produce", *[KafkaError.POLICY_VIOLATION] * 3)

    with Running(settings, Judge) as worker:
        worker.wait(lambda: '"none_stopped": false' in worker.page("health/ready")[1], "not ready")
        assert worker.page("health/ready")[0] == 503
        worker.wait(lambda: committed(servers, "g", "in", 2) == {1: 20}, "the other partition goes on")
        partitions = json.loads(worker.page("status")[1])["partitions"]
        stops = {one["partition"]: one["stopped"] for one in partitions}
        assert (stops[0]["reason"], stops[0]["mends_itself"], stops[1]) == ("dead_letter_refused", True, None)
        assert committed(servers, "g", "in", 2) == {1: 20}

        worker.wait(lambda: committed(servers, "g", "in", 2) == {0: 3, 1: 20}, "all committed")
        worker.wait(lambda: worker.page("health/ready")[0] == 200, "ready again")
        assert worker.stop() == 0

    letters = read(servers, "in.dlq", 2, 2)
    assert [one.value() for one in letters] == [b"poison", b"failing"]
    assert [dict(one.headers() or [])["sw-attempts"] for one in letters] == [b"1", b"3"]


def test_a_narrower_dead_letter_topic_keeps_the_order_of_every_source_partition(mock_kafka: MockKafka) -> None:
    """Edge cases 12, 40, 62: four partitions into two."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 4)
    mock_kafka.create_topic("in.dlq", 2)
    produce(servers, "in", [(None, "poison")] * 80, 4)

    with Running(config(servers), Judge, until_end=True) as worker:
        assert worker.ended() == 0

    letters = read(servers, "in.dlq", 2, 80)
    for source in range(4):
        headers = [dict(one.headers() or []) for one in letters if one.partition() == source % 2]
        offsets = [int(one["sw-origin-offset"] or 0) for one in headers if one["sw-origin-partition"] == b"%d" % source]
        assert offsets == list(range(20))
    assert committed(servers, "g", "in", 4) == dict.fromkeys(range(4), 20)


def test_without_a_dead_letter_topic_a_record_that_cannot_be_handled_stops_its_partition(mock_kafka: MockKafka) -> None:
    """Edge case 45: a bounded run ends with the code for what was left over."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 2)
    for value in (b"fine", b"poison", b"fine"):
        mock_kafka.produce_raw("in", 0, None, value)
    mock_kafka.produce_raw("in", 1, None, b"fine")

    with Running(config(servers), WithoutDeadLetters, until_end=True) as worker:
        assert worker.ended() == 3

    ((partition, reason, _, mends_itself),) = worker.recorder.of("stopped")
    assert (str(partition), reason, mends_itself) == ("in[0]", "no_dead_letter", False)
    assert committed(servers, "g", "in", 2) == {0: 1, 1: 1}
