"""The dead-letter producer against librdkafka's mock cluster: what is acknowledged, refused, and survives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from streamworker.clock import SystemClock
from streamworker.dlq.outbox import PARTITIONS_VALID_S, KafkaOutbox
from streamworker.errors import ClientError, ClientFatal
from streamworker.record import Letter
from streamworker.testing.mock_kafka import MockKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from confluent_kafka import Message

    from streamworker.clock import Clock
    from streamworker.record import Header

TIMEOUT_S = 10.0


class Answers(list[str | None]):
    """What the outbox reported, in order."""

    def done(self, error: str | None) -> None:
        self.append(error)


class ShiftedClock:
    def __init__(self) -> None:
        self.shift_s = 0.0

    def monotonic_s(self) -> float:
        return time.monotonic() + self.shift_s

    def wall_ms(self) -> int:
        return 0


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka(topics={"dlq": 2}) as cluster:
        yield cluster


@pytest.fixture
def outbox(kafka: MockKafka) -> KafkaOutbox:
    return outbox_over(kafka)


def outbox_over(
    kafka: MockKafka, clock: Clock | None = None, more: Mapping[str, str | int] | None = None
) -> KafkaOutbox:
    settings: dict[str, str | int | float | bool] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "acks": "all",
        "enable.idempotence": True,
        "allow.auto.create.topics": False,
        "delivery.timeout.ms": 5_000,
        "linger.ms": 0,
        "log_level": 0,
    }
    return KafkaOutbox({**settings, **(more or {})}, clock or SystemClock())


def letter(
    value: bytes | None = b"v",
    key: bytes | None = None,
    headers: Sequence[Header] = (),
    topic: str = "dlq",
    partition: int = 1,
) -> Letter:
    return Letter(topic, partition, key, value, headers, timestamp_ms=1_700_000_000_000)


def poll_until(outbox: KafkaOutbox, condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s, "nothing was reported"
        outbox.poll()


def answers_to(outbox: KafkaOutbox, *letters: Letter) -> Answers:
    answers = Answers()
    for one in letters:
        outbox.send(one, answers.done)
    poll_until(outbox, lambda: len(answers) == len(letters))
    return answers


def consumed(kafka: MockKafka, count: int) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "reader"})
    consumer.assign([TopicPartition("dlq", 1, 0)])
    try:
        return consumer.consume(count, TIMEOUT_S)
    finally:
        consumer.close()


def test_a_letter_arrives_byte_for_byte_with_nulls_and_duplicate_headers(kafka: MockKafka, outbox: KafkaOutbox) -> None:
    headers: list[Header] = [("a", None), ("b", b"\xff\x00"), ("a", b""), ("é", b"1")]

    answers = answers_to(outbox, letter(b"\xff\x00", b"", headers), letter(None, None), letter(b"", b"\xfe"))

    assert answers == [None, None, None]
    messages = consumed(kafka, 3)
    assert [(m.key(), m.value()) for m in messages] == [(b"", b"\xff\x00"), (None, None), (b"\xfe", b"")]
    assert messages[0].headers() == headers
    assert messages[0].timestamp()[1] == 1_700_000_000_000


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, "MSG_SIZE_TOO_LARGE"),
        (KafkaError.RECORD_LIST_TOO_LARGE, "RECORD_LIST_TOO_LARGE"),
        (KafkaError.INVALID_RECORD, "INVALID_RECORD"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "TOPIC_AUTHORIZATION_FAILED"),
    ],
)
def test_what_the_broker_refuses_is_reported_by_its_name(
    kafka: MockKafka, outbox: KafkaOutbox, code: int, name: str
) -> None:
    kafka.push_errors("Produce", code)

    assert answers_to(outbox, letter()) == [name]


def test_a_broker_that_refuses_a_letter_for_its_size_does_not_refuse_its_neighbours(
    kafka: MockKafka, outbox: KafkaOutbox
) -> None:
    kafka.push_errors("Produce", 0, KafkaError.MSG_SIZE_TOO_LARGE)

    answers = answers_to(outbox, *[letter() for _ in range(5)])

    assert answers.count("MSG_SIZE_TOO_LARGE") == 1


@pytest.mark.parametrize("code", [KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_what_passes_by_itself_is_not_reported(kafka: MockKafka, outbox: KafkaOutbox, code: int) -> None:
    kafka.push_errors("Produce", code)

    assert answers_to(outbox, letter()) == [None]


def test_a_letter_that_is_too_large_for_the_client_is_refused_at_once(outbox: KafkaOutbox) -> None:
    answers = Answers()

    with pytest.raises(ClientError) as refusal:
        outbox.send(letter(b"v" * 2_000_000), answers.done)

    assert refusal.value.code == "MSG_SIZE_TOO_LARGE"
    assert outbox.flush(1) == 0
    assert answers == []


def test_a_full_queue_says_so_and_takes_letters_again_after_a_poll(kafka: MockKafka) -> None:
    outbox = outbox_over(kafka, more={"queue.buffering.max.messages": 1})
    answers = Answers()
    outbox.send(letter(), answers.done)

    with pytest.raises(BufferError):
        outbox.send(letter(), answers.done)

    poll_until(outbox, lambda: len(answers) == 1)
    assert answers_to(outbox, letter()) == [None]


def test_an_unauthorised_topic_is_looked_at_again_before_the_minute_is_over(
    kafka: MockKafka, outbox: KafkaOutbox
) -> None:
    outbox.partitions("dlq", TIMEOUT_S)
    kafka.push_errors("Produce", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    answers_to(outbox, letter())
    kafka.topic_error("dlq", KafkaError.UNKNOWN_TOPIC_OR_PART)

    assert outbox.partitions("dlq", TIMEOUT_S) is None


def test_a_topic_is_written_again_once_it_is_authorised_again(kafka: MockKafka, outbox: KafkaOutbox) -> None:
    outbox.partitions("dlq", TIMEOUT_S)
    kafka.push_errors("Produce", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    answers_to(outbox, letter())

    outbox.partitions("dlq", TIMEOUT_S)

    assert answers_to(outbox, letter()) == [None]


def test_after_a_fatal_error_the_producer_is_made_anew_and_what_was_under_way_is_reported(
    kafka: MockKafka, outbox: KafkaOutbox
) -> None:
    answers_to(outbox, letter())
    kafka.push_errors("Produce", KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)

    fatal = answers_to(outbox, letter())

    assert fatal in (["_FATAL"], ["OUT_OF_ORDER_SEQUENCE_NUMBER"])
    assert answers_to(outbox, letter()) == [None]


def test_a_fatal_error_during_flush_is_survived_as_well(kafka: MockKafka, outbox: KafkaOutbox) -> None:
    answers_to(outbox, letter())
    kafka.push_errors("Produce", KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    answers = Answers()
    outbox.send(letter(), answers.done)

    unacknowledged = outbox.flush(TIMEOUT_S)

    assert unacknowledged == 0
    assert answers != [None]
    outbox.poll()
    assert answers_to(outbox, letter()) == [None]


def test_a_letter_sent_to_a_producer_that_is_done_for_is_refused_until_the_next_poll(
    kafka: MockKafka, outbox: KafkaOutbox
) -> None:
    answers_to(outbox, letter())
    kafka.push_errors("Produce", KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    answers = Answers()

    sent = send_until_it_is_fatal(outbox, answers)

    poll_until(outbox, lambda: len(answers) == sent)
    assert answers_to(outbox, letter()) == [None]


def send_until_it_is_fatal(outbox: KafkaOutbox, answers: Answers) -> int:
    for sent in range(100_000):
        try:
            outbox.send(letter(), answers.done)
        except ClientFatal:
            return sent
    raise AssertionError("nothing was refused")


def test_what_a_callback_raises_comes_out_of_poll_and_costs_no_report(kafka: MockKafka, outbox: KafkaOutbox) -> None:
    def fail(error: str | None) -> None:
        raise LookupError("first")

    answers = Answers()
    outbox.send(letter(), fail)
    outbox.send(letter(), answers.done)
    assert outbox.flush(TIMEOUT_S) == 0

    with pytest.raises(LookupError, match="first"):
        outbox.poll()

    assert answers == [None]
    outbox.poll()


def test_flush_says_what_is_not_acknowledged(kafka: MockKafka, outbox: KafkaOutbox) -> None:
    outbox.partitions("dlq", TIMEOUT_S)
    kafka.broker_down(1)
    for _ in range(3):
        outbox.send(letter(), Answers().done)

    assert outbox.flush(0.05) == 3


def test_a_topic_that_is_not_there_has_no_partitions_and_is_not_made_by_asking(
    kafka: MockKafka, outbox: KafkaOutbox
) -> None:
    assert outbox.partitions("nope", TIMEOUT_S) is None
    assert outbox.partitions("nope", TIMEOUT_S) is None


def test_a_topic_made_later_is_found(kafka: MockKafka, outbox: KafkaOutbox) -> None:
    before = outbox.partitions("late", TIMEOUT_S)
    kafka.create_topic("late", 3)

    after = outbox.partitions("late", TIMEOUT_S)

    assert (before, after) == (None, 3)


def test_the_number_of_partitions_is_believed_for_a_minute(kafka: MockKafka) -> None:
    clock = ShiftedClock()
    outbox = outbox_over(kafka, clock)
    outbox.partitions("dlq", TIMEOUT_S)
    kafka.topic_error("dlq", KafkaError.UNKNOWN_TOPIC_OR_PART)

    within = outbox.partitions("dlq", TIMEOUT_S)
    clock.shift_s = PARTITIONS_VALID_S
    later = outbox.partitions("dlq", TIMEOUT_S)

    assert (within, later) == (2, None)


def test_where_the_cluster_is_silent_the_last_answer_stands_in(kafka: MockKafka) -> None:
    clock = ShiftedClock()
    outbox = outbox_over(kafka, clock)
    outbox.partitions("dlq", TIMEOUT_S)
    kafka.broker_down(1)
    clock.shift_s = PARTITIONS_VALID_S

    assert outbox.partitions("dlq", 0.1) == 2
    with pytest.raises(ClientError):
        outbox.partitions("other", 0.1)
