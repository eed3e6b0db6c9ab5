"""Dead letters over an outbox that takes, refuses and forgets as told, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import confluent_kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.config import DeadLetterConfig
from streamworker.dlq.envelope import Envelope, envelope
from streamworker.dlq.writer import DeadLetterWriter
from streamworker.errors import ClientError
from streamworker.reason import Reason
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamworker.record import Letter, Message

ORDERS_0 = TopicPartition("orders", 0)
ORDERS_1 = TopicPartition("orders", 1)


class Time:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)


class Outbox:
    """Letters wait in `under_way` until the test answers them; `refuse` is raised by the next sends."""

    def __init__(self) -> None:
        self.count: int | None = 2
        self.refuse: list[Exception] = []
        self.under_way: list[tuple[Letter, Callable[[str | None], None]]] = []
        self.sent: list[int] = []  # offsets, in order
        self._answers: list[tuple[Callable[[str | None], None], str | None]] = []

    def send(self, letter: Letter, done: Callable[[str | None], None]) -> None:
        if self.refuse:
            raise self.refuse.pop(0)
        self.sent.append(offset_of(letter))
        self.under_way.append((letter, done))

    def answer(self, error: str | None = None, letters: int | None = None) -> None:
        """Let the next poll report `error` for the first `letters` under way, or for all."""
        answered = self.under_way[:letters]
        self.under_way = self.under_way[len(answered) :]
        self._answers += [(done, error) for _, done in answered]

    def poll(self) -> None:
        answers, self._answers = self._answers, []
        for done, error in answers:
            done(error)

    def partitions(self, topic: str, timeout_s: float) -> int | None:
        return self.count

    def flush(self, timeout_s: float) -> int:
        return len(self.under_way)


@dataclass
class World:
    outbox: Outbox = field(default_factory=Outbox)
    time: Time = field(default_factory=Time)
    done: list[int] = field(default_factory=list)
    refusals: list[tuple[TopicPartition, int, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writer = DeadLetterWriter(
            self.outbox,
            DeadLetterConfig(retry_min_s=1, retry_max_s=30),
            self.time,
            on_refused=lambda *refusal: self.refusals.append(refusal),
        )

    def write(self, *offsets: int, partition: TopicPartition = ORDERS_0, value: bytes = b"v") -> None:
        for offset in offsets:
            self.writer.write(enveloped(partition, offset, value), lambda offset=offset: self.done.append(offset))  # type: ignore[misc]

    def pass_s(self, seconds: float) -> None:
        self.time.now_s += seconds
        self.writer.poll()


@pytest.fixture
def world() -> World:
    return World()


def enveloped(partition: TopicPartition, offset: int, value: bytes) -> Envelope:
    message = confluent_kafka.Message(
        topic=partition.topic, partition=partition.partition, offset=offset, value=value, headers=[("h", b"x" * 100)]
    )
    return envelope(
        cast("Message", message),
        topic="dlq",
        group="g",
        handler="H",
        reason=Reason.POISON,
        error=ValueError("m" * 100),
        attempts=1,
        attempt_log=(),
        now_ms=0,
        max_bytes=1_000_000,
    )


def offset_of(letter: Letter) -> int:
    return int(next(value for name, value in letter.headers if name == "sw-from-offset") or b"")


def test_a_letter_is_sent_at_once_and_done_when_it_is_acknowledged(world: World) -> None:
    world.write(7)
    sent, early = list(world.outbox.sent), list(world.done)

    world.outbox.answer()
    world.writer.poll()

    assert (sent, early, world.done) == ([7], [], [7])
    assert world.writer.idle


def test_what_is_not_acknowledged_counts_as_outstanding(world: World) -> None:
    world.write(1, 2, 3)
    world.write(9, partition=ORDERS_1)
    world.outbox.answer(letters=1)
    world.writer.poll()

    assert world.writer.outstanding(ORDERS_0) == 2
    assert world.writer.outstanding(ORDERS_1) == 1
    assert world.writer.waiting(ORDERS_0) == 0
    assert not world.writer.idle


def test_a_letter_goes_to_the_source_partition_modulo_the_topics_partitions(world: World) -> None:
    world.write(1, partition=TopicPartition("orders", 5))

    assert world.outbox.under_way[0][0].partition == 1


@pytest.mark.parametrize("error", ["_MSG_TIMED_OUT", "TOPIC_AUTHORIZATION_FAILED", "_FATAL"])
def test_a_letter_that_the_broker_refuses_is_reported_and_sent_again(world: World, error: str) -> None:
    world.write(7)

    world.outbox.answer(error)
    world.writer.poll()

    assert world.refusals == [(ORDERS_0, 7, "dlq", error)]
    assert world.writer.refused(ORDERS_0)
    assert world.writer.waiting(ORDERS_0) == 1
    assert world.done == []
    world.pass_s(1)
    world.outbox.answer()
    world.writer.poll()
    assert world.done == [7]
    assert not world.writer.refused(ORDERS_0)


def test_a_letter_that_the_client_refuses_is_reported_and_sent_again(world: World) -> None:
    world.outbox.refuse = [ClientError("no", code="TOPIC_AUTHORIZATION_FAILED")]

    world.write(7)
    world.pass_s(1)

    assert world.refusals == [(ORDERS_0, 7, "dlq", "TOPIC_AUTHORIZATION_FAILED")]
    assert world.outbox.sent == [7]


def test_a_missing_topic_is_a_refusal_until_there_is_one(world: World) -> None:
    world.outbox.count = None

    world.write(7)
    world.outbox.count = 2
    world.pass_s(1)

    assert world.refusals == [(ORDERS_0, 7, "dlq", "UNKNOWN_TOPIC_OR_PART")]
    assert world.outbox.sent == [7]


def test_after_a_refusal_the_topic_is_looked_at_again(world: World) -> None:
    world.outbox.count = 8
    world.write(7, partition=TopicPartition("orders", 5))
    world.outbox.answer("_UNKNOWN_PARTITION")
    world.outbox.count = 4

    world.writer.poll()
    world.pass_s(1)

    assert world.outbox.under_way[0][0].partition == 1


def test_the_back_off_doubles_up_to_its_limit_and_is_never_early(world: World) -> None:
    world.outbox.count = None
    world.write(7)

    delays = []
    for tries in range(1, 8):
        due_s = world.writer.next_due_s()
        assert due_s is not None
        delays.append(due_s - world.time.now_s)
        world.pass_s((due_s - world.time.now_s) / 2)
        assert len(world.refusals) == tries
        world.time.now_s = due_s
        world.writer.poll()

    assert delays == pytest.approx([1, 2, 4, 8, 16, 30, 30])


def test_a_thousand_letters_refused_together_count_as_one_step_of_the_back_off(world: World) -> None:
    world.write(*range(1_000))

    world.outbox.answer("_MSG_TIMED_OUT")
    world.writer.poll()

    assert len(world.refusals) == 1_000
    assert world.writer.next_due_s() == 1


def test_after_a_refusal_one_letter_tries_until_it_is_acknowledged(world: World) -> None:
    world.write(1, 2, 3)
    world.outbox.answer("_MSG_TIMED_OUT")
    world.writer.poll()
    world.outbox.sent.clear()

    world.pass_s(1)
    world.pass_s(60)
    tried = list(world.outbox.sent)
    world.outbox.answer()
    world.writer.poll()

    assert tried == [1]
    assert world.outbox.sent == [1, 2, 3]


def test_an_acknowledgement_from_before_a_refusal_does_not_end_the_back_off(world: World) -> None:
    world.write(1, 2)
    world.outbox.answer("_MSG_TIMED_OUT", letters=1)
    world.outbox.answer()
    world.writer.poll()

    assert world.done == [2]
    assert world.writer.refused(ORDERS_0)


def test_another_partition_is_not_held_by_a_refusal(world: World) -> None:
    world.write(1)
    world.outbox.answer("INVALID_TIMESTAMP")
    world.writer.poll()

    world.write(9, partition=ORDERS_1)
    world.outbox.answer()
    world.writer.poll()

    assert world.done == [9]
    assert not world.writer.refused(ORDERS_1)


def test_a_full_queue_is_no_refusal_and_loses_nothing(world: World) -> None:
    world.outbox.refuse = [BufferError()]

    world.write(1, 2)
    sent, waiting = list(world.outbox.sent), world.writer.waiting(ORDERS_0)
    world.pass_s(0.05)

    assert (sent, waiting) == ([], 2)
    assert world.outbox.sent == [1, 2]
    assert world.refusals == []


@pytest.mark.parametrize("error", ["MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD"])
def test_a_letter_that_is_too_large_for_the_broker_goes_smaller_at_once(world: World, error: str) -> None:
    world.write(7, value=b"v" * 5_000)

    trimmed = []
    for _ in range(2):
        world.outbox.answer(error)
        world.writer.poll()
        trimmed.append(world.outbox.under_way[0][0])
    world.outbox.answer()
    world.writer.poll()

    assert [letter.value is None for letter in trimmed] == [False, False]
    assert [dict(letter.headers)["sw-trimmed"] for letter in trimmed] == [b"details", b"details,headers"]
    assert world.refusals == []
    assert world.done == [7]


def test_a_letter_that_is_too_large_for_the_client_goes_smaller_at_once(world: World) -> None:
    world.outbox.refuse = [ClientError("no", code="MSG_SIZE_TOO_LARGE")] * 3

    world.write(7, value=b"v" * 5_000)

    assert world.outbox.under_way[0][0].value is None
    assert world.refusals == []


def test_where_even_the_pointer_is_too_large_it_is_a_refusal_and_begins_with_the_whole_again(world: World) -> None:
    world.outbox.refuse = [ClientError("no", code="MSG_SIZE_TOO_LARGE")] * 5

    world.write(7, value=b"v" * 5_000)
    refused = list(world.refusals)
    world.outbox.refuse.clear()
    world.pass_s(1)

    assert refused == [(ORDERS_0, 7, "dlq", "MSG_SIZE_TOO_LARGE")]
    assert world.outbox.under_way[0][0].value == b"v" * 5_000


def test_a_dropped_partition_sends_nothing_more_and_ignores_late_acknowledgements(world: World) -> None:
    world.write(1)
    world.outbox.refuse = [BufferError()]
    world.write(2)

    world.writer.drop(ORDERS_0)
    world.outbox.answer()
    world.pass_s(60)

    assert world.done == []
    assert world.outbox.sent == [1]
    assert world.writer.outstanding(ORDERS_0) == 0
    assert world.writer.idle


def test_a_late_acknowledgement_does_not_count_for_the_next_ownership(world: World) -> None:
    world.write(1)
    world.writer.drop(ORDERS_0)
    world.write(1)

    world.outbox.answer(letters=1)
    world.writer.poll()

    assert world.done == []
    assert world.writer.outstanding(ORDERS_0) == 1


def test_nothing_is_due_while_acknowledgements_alone_are_missing(world: World) -> None:
    world.write(1)

    assert world.writer.next_due_s() is None


ANSWERS = st.lists(
    st.sampled_from([None, None, "_MSG_TIMED_OUT", "MSG_SIZE_TOO_LARGE", "full", "unauthorised", "missing"]),
    max_size=40,
)


def weather(outbox: Outbox, answers: list[str | None]) -> Iterator[None]:
    """One mishap after the other, then a clear sky."""
    for answer in answers:
        outbox.count = None if answer == "missing" else 2
        outbox.refuse = [BufferError()] if answer == "full" else []
        if answer == "unauthorised":
            outbox.refuse = [ClientError("no", code="TOPIC_AUTHORIZATION_FAILED")]
        outbox.answer(None if answer in ("full", "unauthorised", "missing") else answer, letters=1)
        yield
    outbox.count, outbox.refuse = 2, []
    for _ in range(200):
        outbox.answer()
        yield


@given(answers=ANSWERS, letters=st.integers(1, 6), seconds=st.floats(0, 3))
def test_whatever_happens_each_letter_is_done_exactly_once_and_first_sent_in_order(
    answers: list[str | None], letters: int, seconds: float
) -> None:
    world = World()
    pending = list(range(letters))

    for _ in weather(world.outbox, answers):
        if pending:
            world.write(pending.pop(0))
        world.pass_s(seconds)
    world.pass_s(31)
    for _ in range(letters + 1):
        world.outbox.answer()
        world.pass_s(31)

    assert sorted(world.done) == list(range(letters))
    assert list(dict.fromkeys(world.outbox.sent)) == list(range(letters))
    assert world.writer.idle
