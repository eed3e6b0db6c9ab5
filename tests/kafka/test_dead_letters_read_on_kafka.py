"""Dead letters as they come out of a real log: gaps in it, several partitions, and letters of other systems."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from fleet.in_process import config
from fleet.workers import wait_for
from foreign_letters import FOREIGN_LETTERS

from streamworker.clock import SystemClock
from streamworker.errors import ClientError
from streamworker.librdkafka import topic_log_settings
from streamworker.record import TopicPartition
from streamworker.replay.families import read
from streamworker.replay.topic_log import TopicLog, newest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.kafka import SharedKafka

TIMEOUT_S = 30.0
LETTERS = 40_000


@pytest.fixture
def log(kafka: SharedKafka) -> Iterator[TopicLog]:
    with closing(TopicLog(topic_log_settings(config(kafka.bootstrap_servers).kafka), SystemClock())) as log:
        yield log


def values(log: TopicLog, partition: TopicPartition, bounds: tuple[int, int]) -> list[bytes | None]:
    return [message.value() for batch in log.read({partition: bounds}, TIMEOUT_S) for message in batch]


def transactions(kafka: SharedKafka, topic: str, *made: str) -> Producer:
    """One of two records each, the last one open if it is called so."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": kafka.group("writer")})
    producer.init_transactions(TIMEOUT_S)
    for value in made:
        producer.begin_transaction()
        for _ in range(2):
            producer.produce(topic, value, partition=0)
        producer.flush(TIMEOUT_S)
        if value == "aborted":
            producer.abort_transaction(TIMEOUT_S)
        elif value != "open":
            producer.commit_transaction(TIMEOUT_S)
    return producer


@pytest.mark.parametrize("last", ["committed", "aborted"])
def test_a_log_is_read_to_its_end_past_aborted_records_and_marks(kafka: SharedKafka, log: TopicLog, last: str) -> None:
    topic = kafka.topic("dlq")
    zero = TopicPartition(topic, 0)
    transactions(kafka, topic, "aborted", "committed", last)
    # The coordinator answers before its mark of the end is in the log.
    wait_for(lambda: log.bounds(zero, TIMEOUT_S) == (0, 9), lambda: str(log.bounds(zero, TIMEOUT_S)), TIMEOUT_S)

    assert values(log, zero, (0, 9)) == [b"committed"] * (4 if last == "committed" else 2)
    assert values(log, zero, (0, 3)) == []  # only what was aborted, and its mark
    assert values(log, zero, (6, 8)) == ([b"committed"] * 2 if last == "committed" else [])


def test_the_end_is_before_a_transaction_that_is_open(kafka: SharedKafka, log: TopicLog) -> None:
    topic = kafka.topic("dlq")
    zero = TopicPartition(topic, 0)
    producer = transactions(kafka, topic, "committed", "open")

    assert log.bounds(zero, TIMEOUT_S) == (0, 3)
    assert values(log, zero, (0, 3)) == [b"committed"] * 2
    with pytest.raises(ClientError, match="the log ends at 3"):
        list(log.read({zero: (0, 5)}, 1.0))
    producer.abort_transaction(TIMEOUT_S)


def test_what_compaction_took_is_passed_over(kafka: SharedKafka, log: TopicLog) -> None:
    """As in the topic of states, where most of what was said is said again."""
    topic = kafka.topic(
        "state",
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.001",
        max_compaction_lag_ms="100",
        min_compaction_lag_ms="0",
    )
    zero = TopicPartition(topic, 0)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})

    def offsets_are_gone() -> bool:
        producer.produce(topic, b"x", key=b"k")
        assert producer.flush(TIMEOUT_S) == 0
        _, end = log.bounds(zero, TIMEOUT_S)
        return len(values(log, zero, (0, end))) < end

    wait_for(offsets_are_gone, lambda: "compaction", 60)

    _, end = log.bounds(zero, TIMEOUT_S)
    batches = list(log.read({zero: (0, end)}, TIMEOUT_S))
    assert batches[-1][-1].offset() == end - 1


def test_letters_of_other_systems_are_read_back_byte_for_byte(kafka: SharedKafka, log: TopicLog) -> None:
    topic = kafka.topic("dlq", partitions=3)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number, letter in enumerate(FOREIGN_LETTERS):
        producer.produce(topic, letter.value, letter.key, number % 3, headers=list(letter.headers))
    assert producer.flush(TIMEOUT_S) == 0
    ranges = {one: log.bounds(one, TIMEOUT_S) for one in (TopicPartition(topic, number) for number in range(3))}

    found = [read(topic, message) for batch in log.read(ranges, TIMEOUT_S) for message in batch]

    assert len(found) == len(FOREIGN_LETTERS)
    for letter in found:
        written = FOREIGN_LETTERS[3 * letter.id.offset + letter.id.partition]
        assert tuple(letter.headers) == tuple(written.headers), written.name
        assert (letter.family, letter.own_headers, letter.value) == (written.family, tuple(written.own), written.value)
        for name, value in written.told.items():
            assert getattr(letter, name) == value, (written.name, name)


@pytest.mark.parametrize("at_once", [1, 4])
def test_the_newest_are_there_first_and_all_of_them_in_the_end(
    kafka: SharedKafka, log: TopicLog, at_once: int, figures: Callable[..., None]
) -> None:
    topic = kafka.topic("dlq", partitions=4)
    # Without idempotence a batch that is sent again, as the topic is new, may come behind the next one.
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5, "enable.idempotence": True})
    for number in range(LETTERS):
        producer.produce(topic, b"%d" % number, partition=number % 4, headers=[("sw-version", b"1")])
        if number % 1_000 == 0:
            producer.poll(0)
    assert producer.flush(TIMEOUT_S) == 0
    partitions = [TopicPartition(topic, number) for number in range(at_once)]
    ranges = {one: log.bounds(one, TIMEOUT_S) for one in partitions}
    began_s = time.monotonic()

    found = [
        [int(message.value() or b"") for batch in log.read(part, TIMEOUT_S) for message in batch]
        for part in newest_first(ranges, 2_000)
    ]

    each = LETTERS // 4
    assert sorted(number for part in found for number in part) == [n for n in range(LETTERS) if n % 4 < at_once]
    assert [min(part) // 4 for part in found] == list(range(each - 2_000, -1, -2_000))
    figures(
        "D24", f"{at_once} partitions, the newest first", letters=each * at_once, seconds=time.monotonic() - began_s
    )
