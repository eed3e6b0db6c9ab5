"""What every `Outbox` promises: the producer's on the mock cluster, and the one in memory that simulations run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest
from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as ClientPartition
from fleet.in_process import config

from streamworker.clock import SystemClock
from streamworker.dlq.outbox import KafkaOutbox
from streamworker.librdkafka import producer_settings
from streamworker.record import Letter
from streamworker.testing.memory_broker import MemoryBroker
from streamworker.testing.memory_clients import MemoryOutbox
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import Outbox
    from streamworker.record import Message
    from streamworker.testing.mock_kafka import MockKafka

TOPIC = "dlq"
TIMEOUT_S = 10.0


class Place(Protocol):
    """A dead-letter topic of two partitions, with an outbox."""

    outbox: Outbox

    def refuse_next(self) -> None:
        """Let the broker refuse the next letter as unauthorised."""

    def written(self, count: int) -> Sequence[Message]:
        """The letters in partition 1."""


class InMemory:
    def __init__(self) -> None:
        self._broker = MemoryBroker(VirtualTime(), {TOPIC: 2})
        self._refusals = 0
        self._broker.produce_error = self._refuse
        self.outbox: Outbox = MemoryOutbox(self._broker)

    def _refuse(self, _topic: str) -> str | None:
        self._refusals -= 1
        return "TOPIC_AUTHORIZATION_FAILED" if self._refusals >= 0 else None

    def refuse_next(self) -> None:
        self._refusals = 1

    def written(self, count: int) -> Sequence[Message]:
        found = self._broker.records(TOPIC)
        assert [one.partition() for one in found] == [1] * count
        return found


class OnMockKafka:
    def __init__(self, kafka: MockKafka) -> None:
        self._kafka = kafka
        kafka.create_topic(TOPIC, 2)
        settings = config(kafka.bootstrap_servers)
        self.outbox: Outbox = KafkaOutbox(producer_settings(settings.kafka, settings.dead_letters), SystemClock())

    def refuse_next(self) -> None:
        self._kafka.push_errors("Produce", KafkaError.TOPIC_AUTHORIZATION_FAILED)

    def written(self, count: int) -> Sequence[Message]:
        reader = Consumer({"bootstrap.servers": self._kafka.bootstrap_servers, "group.id": "reader"})
        reader.assign([ClientPartition(TOPIC, 1, 0)])
        try:
            return reader.consume(count, TIMEOUT_S)  # type: ignore[return-value]  # none of them is an error
        finally:
            reader.close()


@pytest.fixture(params=["memory", "mock"])
def place(request: pytest.FixtureRequest) -> Place:
    return InMemory() if request.param == "memory" else OnMockKafka(request.getfixturevalue("mock_kafka"))


def letter(value: bytes | None = b"v", key: bytes | None = None) -> Letter:
    return Letter(TOPIC, 1, key, value, [("a", b"1"), ("a", None)], timestamp_ms=1_700_000_000_000)


def test_a_letter_is_acknowledged_once_and_stands_in_the_topic_as_it_was_sent(place: Place) -> None:
    answers: list[str | None] = []

    place.outbox.send(letter(b"\xff\0", b"k"), answers.append)
    at_once = list(answers)
    left = place.outbox.flush(TIMEOUT_S)
    place.outbox.poll()
    [found] = place.written(1)

    assert at_once == []
    assert (left, answers) == (0, [None])
    assert (found.key(), found.value(), found.timestamp()[1]) == (b"k", b"\xff\0", 1_700_000_000_000)
    assert list(found.headers() or ()) == [("a", b"1"), ("a", None)]


def test_letters_of_a_partition_keep_their_order_and_flush_waits_for_all(place: Place) -> None:
    answers: list[str | None] = []
    for number in range(20):
        place.outbox.send(letter(b"%d" % number), answers.append)

    not_yet = place.outbox.flush(0.0)
    left = place.outbox.flush(TIMEOUT_S)

    assert (not_yet, left) == (20, 0)
    assert answers == [None] * 20
    assert [one.value() for one in place.written(20)] == [b"%d" % number for number in range(20)]


def test_a_letter_that_the_broker_refuses_is_reported_by_name_and_the_next_is_taken(place: Place) -> None:
    answers: list[str | None] = []
    place.refuse_next()

    place.outbox.send(letter(b"refused"), answers.append)
    place.outbox.flush(TIMEOUT_S)
    place.outbox.partitions(TOPIC, TIMEOUT_S)  # the client asks for an unauthorised topic no more by itself
    place.outbox.send(letter(b"taken"), answers.append)
    place.outbox.flush(TIMEOUT_S)

    assert answers == ["TOPIC_AUTHORIZATION_FAILED", None]
    assert [one.value() for one in place.written(1)] == [b"taken"]


def test_it_knows_how_many_partitions_a_topic_has_and_which_topic_is_none(place: Place) -> None:
    assert place.outbox.partitions(TOPIC, TIMEOUT_S) == 2
    assert place.outbox.partitions("unknown", TIMEOUT_S) is None
