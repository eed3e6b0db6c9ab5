"""Reading parts of topics, against librdkafka's mock of a cluster."""

from __future__ import annotations

import re
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition
from fleet.in_process import config

from streamworker.clock import SystemClock
from streamworker.errors import ClientError, ConfigurationError
from streamworker.librdkafka import topic_log_settings
from streamworker.record import TopicPartition
from streamworker.replay import topic_log
from streamworker.replay.topic_log import TopicLog, newest_first

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.testing.mock_kafka import MockKafka

TIMEOUT_S = 10.0
SHORT_S = 1.0
ZERO, ONE, TWO = (TopicPartition("dlq", number) for number in range(3))
UNKNOWN_TOPIC_OR_PART, TOPIC_AUTHORIZATION_FAILED = 3, 29


@pytest.fixture
def log(mock_kafka: MockKafka) -> Iterator[TopicLog]:
    """Over a topic of three partitions with ten records each."""
    mock_kafka.create_topic("dlq", 3)
    for number in range(30):
        mock_kafka.produce_raw("dlq", number % 3, None, b"%d" % number)
    with closing(opened(mock_kafka)) as log:
        yield log


def opened(kafka: MockKafka, *, goes_on: bool = False) -> TopicLog:
    return TopicLog(topic_log_settings(config(kafka.bootstrap_servers).kafka), SystemClock(), goes_on=goes_on)


def read(
    log: TopicLog, ranges: dict[TopicPartition, tuple[int, int]], timeout_s: float = TIMEOUT_S
) -> list[TopicPartition]:
    """Partition and offset of all records, and in the order in which they came."""
    return [
        (TopicPartition(message.topic(), message.partition()), message.offset())
        for batch in log.read(ranges, timeout_s)
        for message in batch
    ]


def test_the_bounds_are_the_first_offset_and_the_one_behind_the_last(log: TopicLog, mock_kafka: MockKafka) -> None:
    mock_kafka.delete_records("dlq", 1, 4)

    assert log.bounds(ZERO, TIMEOUT_S) == (0, 10)
    assert log.bounds(ONE, TIMEOUT_S) == (4, 10)


def test_ranges_are_read_from_their_first_offset_to_before_their_last(log: TopicLog) -> None:
    found = read(log, {ZERO: (2, 5), ONE: (9, 10), TWO: (0, 10)})

    assert sorted(found) == sorted(
        [(ZERO, 2), (ZERO, 3), (ZERO, 4), (ONE, 9), *[(TWO, number) for number in range(10)]]
    )
    assert [offset for partition, offset in found if partition == TWO] == list(range(10))


@pytest.mark.parametrize(("goes_on", "asked_for"), [(True, [0]), (False, [0, 4, 7])])
def test_a_log_that_goes_on_does_not_ask_for_the_next_range_anew(
    log: TopicLog, mock_kafka: MockKafka, monkeypatch: pytest.MonkeyPatch, goes_on: bool, asked_for: list[int]
) -> None:
    del log
    starts: list[int] = []

    class Asking(Consumer):
        def assign(self, partitions: list[ClientPartition]) -> None:
            starts.extend(one.offset for one in partitions)
            super().assign(partitions)

    monkeypatch.setattr(topic_log, "Consumer", Asking)
    with closing(opened(mock_kafka, goes_on=goes_on)) as ahead:
        found = [read(ahead, {ZERO: bounds}) for bounds in ((0, 4), (4, 7), (7, 10))]

    assert found == [[(ZERO, offset) for offset in range(*bounds)] for bounds in ((0, 4), (4, 7), (7, 10))]
    assert starts == asked_for


def test_a_log_that_goes_on_reads_any_other_range_as_well(log: TopicLog, mock_kafka: MockKafka) -> None:
    del log
    with closing(opened(mock_kafka, goes_on=True)) as ahead:
        ranges: list[dict[TopicPartition, tuple[int, int]]] = [
            {ZERO: (0, 4)},
            {ZERO: (5, 7)},
            {ONE: (7, 9)},
            {ONE: (3, 4)},
            {ONE: (4, 4)},
            {ONE: (4, 6), TWO: (0, 2)},
        ]
        found = [sorted(read(ahead, one)) for one in ranges]
        bounds = ahead.bounds(ZERO, TIMEOUT_S)
        last = read(ahead, {TWO: (2, 10)})

    assert found == [
        [(partition, offset) for partition, bounds in one.items() for offset in range(*bounds)] for one in ranges
    ]
    assert (bounds, last) == ((0, 10), [(TWO, offset) for offset in range(2, 10)])


def test_a_log_that_goes_on_hears_once_that_it_ends_and_knows_it_then(log: TopicLog, mock_kafka: MockKafka) -> None:
    """Behind the last record a log may have offsets at which there is nothing."""
    del log
    with closing(opened(mock_kafka, goes_on=True)) as ahead:
        read(ahead, {ZERO: (0, 9)})
        read(ahead, {ZERO: (9, 10)})
        mock_kafka.produce_raw("dlq", 0, None, b"later")

        assert read(ahead, {ZERO: (10, 11)}) == [(ZERO, 10)]


def test_who_stops_in_the_midst_of_a_range_may_begin_it_again(log: TopicLog, mock_kafka: MockKafka) -> None:
    del log
    with closing(opened(mock_kafka, goes_on=True)) as ahead:
        with closing(ahead.read({ZERO: (0, 12)}, TIMEOUT_S)) as batches:
            next(batches)

        assert read(ahead, {ZERO: (0, 10)}) == [(ZERO, offset) for offset in range(10)]


def test_of_empty_ranges_nothing_is_read(log: TopicLog) -> None:
    assert read(log, {ZERO: (10, 10), ONE: (7, 3)}) == []
    assert read(log, {}) == []


def test_a_range_that_ends_early_and_one_that_ends_late_are_each_read_to_their_end(
    log: TopicLog, mock_kafka: MockKafka
) -> None:
    for number in range(5_000):
        mock_kafka.produce_raw("dlq", number % 2, None, b"%d" % number)

    found = read(log, {ZERO: (0, 1), ONE: (0, 2_510)})

    assert found.count((ZERO, 0)) == 1
    assert [offset for partition, offset in found if partition == ONE] == list(range(2_510))


def test_a_log_is_read_again_and_again(log: TopicLog) -> None:
    """Also after a reader that did not go to the end."""
    reading = log.read({ZERO: (0, 10)}, TIMEOUT_S)
    next(reading)
    reading.close()  # type: ignore[attr-defined]  # an iterator that is a generator

    assert read(log, {ONE: (0, 2)}) == [(ONE, 0), (ONE, 1)]
    assert read(log, {ZERO: (0, 2)}) == [(ZERO, 0), (ZERO, 1)]


def test_what_retention_takes_meanwhile_is_left_out(log: TopicLog, mock_kafka: MockKafka) -> None:
    mock_kafka.delete_records("dlq", 0, 7)

    assert read(log, {ZERO: (2, 9)}) == [(ZERO, 7), (ZERO, 8)]


def test_a_log_that_ends_before_its_range_is_an_error_that_says_so(log: TopicLog) -> None:
    """Less than was there would be taken for all of it: the brokers' word of the end comes before the records."""
    with pytest.raises(ClientError, match=r"dlq\[0\] from 2 to 12, and the log ends at 10: nothing was read for 1 s"):
        read(log, {ZERO: (2, 12)}, SHORT_S)


def test_a_log_that_was_made_anew_is_not_read_from_its_beginning(log: TopicLog) -> None:
    """The client goes there from an offset that it does not find."""
    found = []

    with pytest.raises(ClientError, match=r"dlq\[0\] from 50 to 60, and the log ends at 10"):
        found.extend(log.read({ZERO: (50, 60)}, SHORT_S))

    assert found == []


@pytest.mark.parametrize("partition", [TopicPartition("nowhere", 0), TopicPartition("dlq", 3)])
def test_the_bounds_of_what_does_not_exist_are_an_error_at_once(log: TopicLog, partition: TopicPartition) -> None:
    began_s = time.monotonic()

    with pytest.raises(ClientError) as caught:
        log.bounds(partition, TIMEOUT_S)

    assert caught.value.code == "UNKNOWN_TOPIC_OR_PART"
    assert str(partition) in str(caught.value)
    assert time.monotonic() - began_s < TIMEOUT_S / 2


def test_what_cannot_be_reached_is_an_error_within_the_time_that_was_given(
    log: TopicLog, mock_kafka: MockKafka
) -> None:
    """And says what the client heard of it, as of a password that is wrong."""
    address = re.escape(mock_kafka.bootstrap_servers)
    assert read(log, {ZERO: (0, 10)}) != []
    mock_kafka.broker_down(1)
    began_s = time.monotonic()

    with pytest.raises(ClientError, match=rf"dlq\[0\].*\(.*{address}.*\)") as asked:
        log.bounds(ZERO, SHORT_S)
    with pytest.raises(ClientError, match=rf"dlq\[1\] from 0 to 10.*: nothing was read for 1 s \(.*{address}.*\)"):
        read(log, {ONE: (0, 10)}, SHORT_S)

    assert asked.value.code != "UNKNOWN_TOPIC_OR_PART"
    assert time.monotonic() - began_s < 5 * SHORT_S


def test_a_broker_that_comes_back_in_time_is_waited_for(log: TopicLog, mock_kafka: MockKafka) -> None:
    assert read(log, {ZERO: (0, 10)}) != []
    mock_kafka.broker_down(1)
    reading = log.read({ONE: (0, 10)}, TIMEOUT_S)
    mock_kafka.broker_up(1)

    assert [message.offset() for batch in reading for message in batch] == list(range(10))
    assert log.bounds(ONE, TIMEOUT_S) == (0, 10)


def test_trouble_that_is_over_is_no_reason_for_what_comes_later(log: TopicLog, mock_kafka: MockKafka) -> None:
    mock_kafka.broker_down(1)
    with pytest.raises(ClientError, match=r"nothing was read for 1 s \("):
        read(log, {ONE: (0, 10)}, SHORT_S)
    mock_kafka.broker_up(1)
    assert read(log, {ONE: (0, 10)}) != []

    with pytest.raises(ClientError, match=r"nothing was read for 1 s$"):
        read(log, {ONE: (2, 12)}, SHORT_S)


def test_a_setting_that_the_client_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no\.such\.option"):
        TopicLog({"group.id": "g", "no.such.option": 1}, SystemClock())


def test_the_newest_come_first_in_parts_of_all_partitions() -> None:
    parts = list(newest_first({ZERO: (0, 10), ONE: (5, 8), TWO: (3, 3)}, 4))

    assert parts == [{ZERO: (6, 10), ONE: (5, 8)}, {ZERO: (2, 6)}, {ZERO: (0, 2)}]
