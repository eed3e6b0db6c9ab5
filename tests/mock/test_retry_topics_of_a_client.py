"""Retry topics over the real client: a partition is paused, sought back in and resumed again and again."""

from __future__ import annotations

import time
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from fleet.in_process import Running, committed, config, read
from sizes import SOAK

from streamworker import ConfigurationError, DeadLetter, Handler, Retry, RetryTopic

if TYPE_CHECKING:
    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka

DELAY_S = 1.0
RECORDS = 30 * SOAK


class Deferring(Handler[bytes]):
    """One call here, one a second later, one another second later."""

    topics = ("in",)
    retry = Retry(attempts=1, topics=(RetryTopic(delay_s=DELAY_S), RetryTopic(delay_s=DELAY_S)))
    dead_letter = DeadLetter("dlq")

    def handle(self, record: Record[bytes]) -> None:
        raise ConnectionError("nobody there")


def test_each_record_comes_back_once_from_each_topic_and_never_early(mock_kafka: MockKafka) -> None:
    for topic in ("in", "in.retry.g.1", "in.retry.g.2", "dlq"):
        mock_kafka.create_topic(topic, 2)
    called_s: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    attempts: list[int] = []

    class Timed(Deferring):
        def handle(self, record: Record[bytes]) -> None:
            called_s[record.origin.partition, record.origin.offset].append(time.monotonic())
            attempts.append(record.attempt)
            super().handle(record)

    with Running(config(mock_kafka.bootstrap_servers), Timed) as worker:
        worker.wait(lambda: worker.recorder.of("assigned"), "it has its partitions")
        for number in range(RECORDS):
            mock_kafka.produce_raw("in", number % 2, None, b"%d" % number)
            worker.wait(lambda number=number: len(called_s) > number, "its first call: each is due at another time")
        worker.wait(lambda: len(worker.recorder.of("dead_lettered")) == RECORDS, "all are dead letters")
        ends = {0: RECORDS // 2, 1: RECORDS // 2}
        for topic in ("in", "in.retry.g.1", "in.retry.g.2"):
            worker.wait(lambda topic=topic: committed(mock_kafka.bootstrap_servers, "g", topic, 2) == ends, topic)
        pauses = [arguments for arguments in worker.recorder.of("paused") if arguments[1] == "retry_not_due"]
        assert worker.stop() == 0

    assert len(pauses) > 8
    assert sorted(attempts) == sorted([1, 2, 3] * RECORDS)
    assert len(called_s) == RECORDS
    waits_s = [later - sooner for times in called_s.values() for sooner, later in pairwise(times)]
    assert min(waits_s) >= DELAY_S - 0.01
    values = {message.value() for message in read(mock_kafka.bootstrap_servers, "dlq", 2, RECORDS)}
    assert values == {b"%d" % number for number in range(RECORDS)}


def test_a_missing_retry_topic_refuses_the_start_with_the_command_that_makes_it(mock_kafka: MockKafka) -> None:
    for topic in ("in", "in.retry.g.1", "dlq"):
        mock_kafka.create_topic(topic, 1)

    with pytest.raises(ConfigurationError) as refusal, Running(config(mock_kafka.bootstrap_servers), Deferring):
        pass

    assert "there is no topic 'in.retry.g.2'" in str(refusal.value)
    assert "streamworker topics create MODULE:Deferring --group g" in str(refusal.value)
