"""The transactor over the real client: what it makes of each error, and how it finds out how a transaction ended.

The mock cluster answers with errors and keeps no transactions: what readers see is tested on Kafka.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from streamworker.clock import SystemClock
from streamworker.config import KafkaConfig
from streamworker.errors import ClientError
from streamworker.interfaces import OffsetMark
from streamworker.librdkafka import transactional_settings
from streamworker.record import Letter, TopicPartition
from streamworker.transactions.transactor import KafkaTransactor, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streamworker.testing.mock_kafka import MockKafka
    from streamworker.transactions.transactor import Ended

IN = TopicPartition("in", 0)
TIMEOUT_S = 20.0
TRANSACTION_S = 5.0
PRODUCER_FENCED, NOT_ALLOWED = (
    90,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)  # the client has no name of the first


class World:
    """A transactor, and what the group's offsets are when it asks; `producers` counts those that it has made."""

    def __init__(self, kafka: MockKafka) -> None:
        self.producers = 0
        self.offsets: dict[TopicPartition, OffsetMark | None] = {}
        self.asked = 0
        self.unstable = 0  # how often it is told that a transaction is still open
        for topic in ("in", "out"):
            kafka.create_topic(topic, 1)
        config = KafkaConfig(bootstrap_servers=kafka.bootstrap_servers, group="g", librdkafka={"log_level": 0})
        self._member = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "g"})
        self._number = 0
        self.transactor = KafkaTransactor(
            transactional_settings(config, TRANSACTION_S, "sw-g-1"),
            committed=self._committed,
            clock=SystemClock(),
            timeout_s=TRANSACTION_S,
            make_producer=self._producer,
        )

    def transaction(self, *values: bytes) -> Transaction:
        self._number += 1
        letters = [Letter("out", 0, b"k", value, (), timestamp_ms=0) for value in values or (b"v",)]
        marks = {IN: OffsetMark(self._number, f"sw2 q={self._number} @{self._number} r")}
        return Transaction(letters, marks, self._member.consumer_group_metadata())

    def end_of(self, transaction: Transaction) -> Ended:
        self.transactor.submit(transaction)
        self.transactor.wait(TIMEOUT_S)
        ended = self.transactor.ended()
        assert ended is not None, "it has not ended"
        assert ended.transaction is transaction
        return ended

    def close(self) -> None:
        self.transactor.close(TIMEOUT_S)
        self._member.close()

    def _producer(self, *arguments: object, **options: object) -> Producer:
        self.producers += 1
        return Producer(*arguments, **options)

    def _committed(
        self, partitions: Sequence[TopicPartition], _timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        self.asked += 1
        if self.asked <= self.unstable:
            raise ClientError("a transaction is open", code="UNSTABLE_OFFSET_COMMIT", retriable=True)
        return {one: self.offsets.get(one) for one in partitions}


@pytest.fixture
def world(mock_kafka: MockKafka) -> Iterator[World]:
    made = World(mock_kafka)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("api", "code"),
    [
        ("Produce", KafkaError.NOT_ENOUGH_REPLICAS),
        ("AddOffsetsToTxn", KafkaError.COORDINATOR_LOAD_IN_PROGRESS),
        ("EndTxn", KafkaError.COORDINATOR_LOAD_IN_PROGRESS),
        ("EndTxn", KafkaError.CONCURRENT_TRANSACTIONS),
    ],
)
def test_what_passes_by_itself_is_not_told(world: World, mock_kafka: MockKafka, api: str, code: int) -> None:
    mock_kafka.push_errors(api, code)

    ended = world.end_of(world.transaction())

    assert (ended.error, world.producers) == (None, 1)


@pytest.mark.parametrize(
    ("api", "code", "told"),
    [
        ("TxnOffsetCommit", KafkaError.ILLEGAL_GENERATION, "ILLEGAL_GENERATION"),
        ("TxnOffsetCommit", KafkaError.UNKNOWN_MEMBER_ID, "UNKNOWN_MEMBER_ID"),
        ("TxnOffsetCommit", KafkaError.FENCED_INSTANCE_ID, "FENCED_INSTANCE_ID"),
        ("AddOffsetsToTxn", PRODUCER_FENCED, "_FENCED"),
    ],
)
def test_what_can_be_aborted_is_aborted_and_the_same_producer_goes_on(
    world: World, mock_kafka: MockKafka, api: str, code: int, told: str
) -> None:
    mock_kafka.push_errors(api, code)

    failed, again = world.end_of(world.transaction()), world.end_of(world.transaction())

    assert (failed.error, failed.refused, failed.fenced) == (told, None, False)
    assert (again.error, world.producers, world.asked) == (None, 1, 0)


@pytest.mark.parametrize(
    ("api", "code"),
    [
        ("AddPartitionsToTxn", KafkaError.INVALID_PRODUCER_EPOCH),
        ("AddPartitionsToTxn", PRODUCER_FENCED),
        ("AddOffsetsToTxn", KafkaError.INVALID_PRODUCER_EPOCH),
        ("TxnOffsetCommit", KafkaError.INVALID_PRODUCER_EPOCH),
        ("Produce", KafkaError.INVALID_PRODUCER_EPOCH),
        ("Produce", KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER),
    ],
)
def test_after_a_fatal_error_another_producer_goes_on_and_no_output_is_to_blame(
    world: World, mock_kafka: MockKafka, api: str, code: int
) -> None:
    mock_kafka.push_errors(api, code)

    failed, again = world.end_of(world.transaction()), world.end_of(world.transaction())

    assert failed.error in ("_FENCED", "OUT_OF_ORDER_SEQUENCE_NUMBER")
    assert failed.refused is None
    assert (again.error, world.producers, world.asked) == (None, 2, 0)


@pytest.mark.parametrize(
    ("api", "code", "told"),
    [
        ("Produce", KafkaError.MSG_SIZE_TOO_LARGE, "MSG_SIZE_TOO_LARGE"),
        ("Produce", KafkaError.INVALID_RECORD, "INVALID_RECORD"),
        ("Produce", KafkaError.TOPIC_AUTHORIZATION_FAILED, "TOPIC_AUTHORIZATION_FAILED"),
        ("AddPartitionsToTxn", KafkaError.TOPIC_AUTHORIZATION_FAILED, "TOPIC_AUTHORIZATION_FAILED"),
    ],
)
def test_an_output_that_is_refused_is_named_with_the_brokers_reason_and_may_be_tried_again_at_once(
    world: World, mock_kafka: MockKafka, api: str, code: int, told: str
) -> None:
    """The client refuses a topic for minutes that it may not write to, and its next transaction after some errors."""
    mock_kafka.push_errors(api, code)

    refused, again = world.end_of(world.transaction()), world.end_of(world.transaction())

    assert (refused.error, refused.refused) == (told, 0)
    assert again.error is None


def test_brokers_that_take_nothing_for_too_long_refuse_no_output(world: World, mock_kafka: MockKafka) -> None:
    world.end_of(world.transaction())
    mock_kafka.push_errors("Produce", *[KafkaError.NOT_ENOUGH_REPLICAS] * 40)

    ended = world.end_of(world.transaction())

    assert ended.error is not None
    assert ended.refused is None


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.INVALID_PRODUCER_EPOCH,
        PRODUCER_FENCED,
        KafkaError.INVALID_TXN_STATE,
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_after_any_error_of_a_commit_the_groups_offsets_say_how_it_ended(
    world: World, mock_kafka: MockKafka, code: int, *, there: bool
) -> None:
    transaction = world.transaction()
    world.offsets = dict(transaction.marks) if there else {IN: OffsetMark(0, "sw2 q=0 @0 r")}
    mock_kafka.push_errors("EndTxn", code)

    ended, again = world.end_of(transaction), world.end_of(world.transaction())

    assert (ended.error is None) == there
    assert (again.error, world.producers, world.asked) == (None, 2, 1)


def test_while_the_offsets_are_not_told_they_are_asked_for_again(world: World, mock_kafka: MockKafka) -> None:
    transaction = world.transaction()
    world.offsets, world.unstable = dict(transaction.marks), 2
    mock_kafka.push_errors("EndTxn", KafkaError.REQUEST_TIMED_OUT)

    ended = world.end_of(transaction)

    assert (ended.error, world.asked) == (None, 3)


def test_the_second_time_that_it_is_fenced_within_a_minute_is_told(world: World, mock_kafka: MockKafka) -> None:
    fenced = []
    for _ in range(2):
        mock_kafka.push_errors("EndTxn", PRODUCER_FENCED)
        fenced.append(world.end_of(world.transaction()).fenced)

    assert fenced == [False, True]


def test_a_producer_that_may_not_begin_is_told_and_tried_again(world: World, mock_kafka: MockKafka) -> None:
    world.end_of(world.transaction())
    mock_kafka.push_errors("InitProducerId", NOT_ALLOWED, NOT_ALLOWED)
    mock_kafka.push_errors("Produce", KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)  # after which the producer is made anew
    world.end_of(world.transaction())

    ended, again = world.end_of(world.transaction()), world.end_of(world.transaction())

    assert (ended.error, ended.refused) == ("TRANSACTIONAL_ID_AUTHORIZATION_FAILED", None)
    assert again.error is None


def test_closing_while_brokers_are_away_takes_no_longer_than_a_call(world: World, mock_kafka: MockKafka) -> None:
    world.end_of(world.transaction())
    mock_kafka.broker_down(1)
    world.transactor.submit(world.transaction())

    began_s = time.monotonic()
    world.transactor.close(TIMEOUT_S)

    assert time.monotonic() - began_s < 2 * TRANSACTION_S
