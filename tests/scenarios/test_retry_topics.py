"""Records that have used up their attempts wait in retry topics, never come back early, and end as dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.worlds import IN, calls, handled, headers_of, letters_from, make_world, produce, steady

from streamworker import (
    Batch,
    BatchHandler,
    Breaker,
    Context,
    DeadLetter,
    DecodeError,
    Defer,
    Ending,
    Handler,
    Json,
    PoisonError,
    Read,
    Retry,
    RetryTopic,
    Rule,
    TopicPartition,
)
from streamworker.config import Config, DeadLetterConfig, KafkaConfig, LifecycleConfig, OldHead
from streamworker.testing.virtual_world import VirtualWorld
from streamworker.worker import Bounds

if TYPE_CHECKING:
    from streamworker import Record, Records

FIRST, SECOND = TopicPartition("in.retry.test.1", 0), TopicPartition("in.retry.test.2", 0)
FIRST_S, SECOND_S = 60.0, 180.0
LOOK_S = 5.0  # later than due, at most

seen: list[tuple[str, int, int, object, float]] = []


class Deferring(Handler[bytes]):
    """Two calls in place, one after a minute, one after three; `heals:N` succeeds at call N."""

    topics = ("in",)
    concurrency = 4
    retry: ClassVar[Retry] = Retry(
        attempts=2, base_s=0.1, topics=(RetryTopic(delay_s=FIRST_S), RetryTopic(delay_s=SECOND_S))
    )
    dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq")

    def handle(self, record: Record[bytes]) -> None:
        word, _, times = (record.value or b"").partition(b":")
        if word == b"poison":
            raise PoisonError("a bad record")
        if word == b"broken" or (word == b"heals" and record.attempt < int(times)):
            raise ConnectionError("nobody there")


class DeferringPerKey(Deferring):
    ordering = "key"


class DeferringUnordered(Deferring):
    ordering = "unordered"


class DeferringBatches(BatchHandler[bytes]):
    topics = ("in",)
    batch = Batch(max_records=10)
    retry = Deferring.retry
    dead_letter = DeadLetter("dlq")

    def handle(self, records: Records[bytes]) -> None:
        for record in records:
            Deferring().handle(record)


def world_with_topics(partitions: int = 1, *, retries: int = 1, config: Config | None = None) -> VirtualWorld:
    topics = {"in": partitions, "dlq": partitions, FIRST.topic: retries, SECOND.topic: retries}
    return VirtualWorld(topics, config=config)


def times(world: VirtualWorld, partition: TopicPartition) -> list[float]:
    """When each call with a record of a partition was made, since the start."""
    return [effect.at_s - 1000.0 for effect in world.effects if effect.partition == partition]


def headers_at(world: VirtualWorld, partition: TopicPartition, offset: int = 0) -> dict[str, str]:
    message = world.broker.records(partition.topic)[offset]
    return {name: (value or b"").decode() for name, value in message.headers() or []}


ALL = [Deferring, DeferringPerKey, DeferringUnordered]


@pytest.mark.parametrize("handler", ALL)
def test_a_record_that_fails_comes_back_from_each_topic_when_it_is_due_and_then_goes_to_the_dead_letters(
    handler: type[Handler[bytes]],
) -> None:
    world = world_with_topics()
    world.broker.produce("in", 0, b"broken", key=b"k", headers=[("trace", b"7"), ("sw-due", b"1")], timestamp_ms=5)
    produce(world, b"fine", key=b"k")
    member = world.start(handler, duration_s=steady(0.001))
    world.run_to_end("in", timeout_s=5)

    world.run_to_end("in", FIRST.topic, SECOND.topic, timeout_s=FIRST_S + SECOND_S + 30)

    assert handled(world) == [1]
    (first,), (second,) = times(world, FIRST), times(world, SECOND)
    assert FIRST_S <= first <= FIRST_S + LOOK_S + 1
    assert SECOND_S <= second - first <= SECOND_S + LOOK_S + 1
    assert letters_from(world) == [b"broken"]
    letter = headers_of(world, 0)
    assert (letter["sw-origin-topic"], letter["sw-origin-partition"], letter["sw-origin-offset"]) == ("in", "0", "0")
    assert (letter["sw-from-topic"], letter["sw-from-offset"]) == (SECOND.topic, "0")
    assert (letter["sw-id"], letter["sw-reason"], letter["sw-attempts"]) == ("test/in/0/0", "exhausted", "4")
    assert (letter["sw-origin-timestamp"], letter["trace"]) == ("5", "7")
    assert "sw-due" not in letter
    assert [(topic, reason) for _, topic, reason in member.story.deferrals] == [
        (FIRST.topic, "exhausted"),
        (SECOND.topic, "exhausted"),
    ]
    assert member.story.count(Ending.DEFERRED) == 2
    assert member.story.count(Ending.DEAD_LETTERED) == 1


def test_a_copy_in_a_retry_topic_is_the_record_and_says_where_from_why_and_until_when() -> None:
    world = world_with_topics()
    world.broker.produce("in", 0, b"broken", key=b"k", headers=[("trace", b"7")])
    world.start(Deferring)

    world.run_to_end("in", timeout_s=5)

    (copy,) = world.broker.records(FIRST.topic)
    headers = headers_at(world, FIRST)
    assert (copy.key(), copy.value(), headers["trace"]) == (b"k", b"broken", "7")
    assert (headers["sw-retry-level"], headers["sw-attempts"], headers["sw-reason"]) == ("1", "2", "exhausted")
    assert int(headers["sw-due"]) == copy.timestamp()[1] + FIRST_S * 1000


def test_the_handler_sees_attempts_counted_on_and_where_the_record_was_first() -> None:
    seen.clear()

    class Seeing(Deferring):
        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.topic, record.attempt, record.origin.offset, record.timestamp_ms, 0.0))
            assert record.origin.topic == "in"
            super().handle(record)

    world = world_with_topics()
    world.broker.produce("in", 0, b"fine", timestamp_ms=4)
    world.broker.produce("in", 0, b"heals:4", timestamp_ms=5)
    world.start(Seeing)

    world.run_to_end("in", timeout_s=5)
    world.run_to_end("in", FIRST.topic, timeout_s=FIRST_S + 10)
    world.run_to_end(SECOND.topic, timeout_s=SECOND_S + 10)

    assert [(topic, attempt, offset, at_ms) for topic, attempt, offset, at_ms, _ in seen] == [
        ("in", 1, 0, 4),
        ("in", 1, 1, 5),
        ("in", 2, 1, 5),
        (FIRST.topic, 3, 1, 5),
        (SECOND.topic, 4, 1, 5),
    ]
    assert letters_from(world) == []


def test_more_calls_may_be_made_at_a_level() -> None:
    class Patient(Deferring):
        retry = Retry(attempts=1, base_s=0.1, topics=(RetryTopic(delay_s=FIRST_S, attempts=3),))

    world = world_with_topics()
    produce(world, b"broken")
    world.start(Patient)

    world.run_to_end("in", timeout_s=5)
    world.run_to_end(FIRST.topic, timeout_s=FIRST_S + 10)

    assert [effect.attempt for effect in world.effects] == [1, 2, 3, 4]
    assert headers_of(world, 0)["sw-attempts"] == "4"


@pytest.mark.parametrize("ahead_s", [-600.0, 600.0, -30.0])
def test_no_record_comes_back_early_when_the_wall_clock_is_set_during_its_wait(ahead_s: float) -> None:
    world = world_with_topics()
    produce(world, b"heals:3")
    world.start(Deferring)
    world.run_for(10)

    world.time.wall_ahead_s = ahead_s
    world.run_to_end("in", timeout_s=5)
    world.run_to_end(FIRST.topic, timeout_s=1000)

    (at_s,) = times(world, FIRST)
    assert at_s >= FIRST_S
    assert at_s <= FIRST_S + max(-ahead_s, 0) + 2 * FIRST_S


def test_many_records_come_back_in_order_and_each_when_it_is_due() -> None:
    world = world_with_topics()
    member = world.start(Deferring, duration_s=steady(0.001))
    written_s = []
    for number in range(30):
        world.broker.produce("in", 0, b"heals:3", key=b"%d" % number)
        written_s.append(world.time.monotonic_s() - 1000)
        world.run_for(7)

    world.run_to_end("in", FIRST.topic, timeout_s=FIRST_S + 20)

    due = [at_s - from_s for at_s, from_s in zip(times(world, FIRST), written_s, strict=True)]
    assert min(due) >= FIRST_S
    assert max(due) <= FIRST_S + 2 * LOOK_S
    assert handled(world, FIRST) == list(range(30))
    assert member.worker.backpressure.records == 0


def test_what_waits_in_a_retry_topic_takes_no_room_from_what_can_be_handled() -> None:
    world = world_with_topics()
    produce(world, *[b"heals:3"] * 900)
    member = world.start(Deferring, duration_s=lambda _slice: 0.0)
    world.run_to_end("in", timeout_s=300)
    world.run_for(10)

    assert member.worker.backpressure.records == 0
    produce(world, b"fine")
    world.run_for(2)

    assert handled(world)[-1:] == [900]


def test_poison_and_what_cannot_be_decoded_skips_the_retry_topics() -> None:
    class Documents(Deferring):
        value = Json(int)
        rules = (Rule.retry(DecodeError),)

        def handle(self, record: Record[int]) -> None:  # type: ignore[override]  # another value's type
            raise PoisonError("a bad record")

    world = world_with_topics()
    produce(world, b"1", b"not json")
    world.start(Documents)

    world.run_to_end("in", timeout_s=5)

    assert {headers_of(world, number)["sw-reason"] for number in range(2)} == {"poison", "exhausted"}
    assert world.broker.records(FIRST.topic) == []


@pytest.mark.parametrize("kind", [Deferring, DeferringBatches])
def test_serdes_are_given_the_name_of_the_topic_that_the_record_was_first_in(
    kind: type[Handler[bytes]] | type[BatchHandler[bytes]],
) -> None:
    topics: list[str] = []

    class Noting:
        def decode(self, data: bytes, topic: str) -> bytes:
            topics.append(topic)
            return data

        def encode(self, value: bytes, topic: str) -> bytes:
            return value

    world = world_with_topics()
    produce(world, b"heals:3")
    world.start(type("Named", (kind,), {"value": Noting()}))

    world.run_to_end("in", timeout_s=5)
    world.run_to_end(FIRST.topic, timeout_s=FIRST_S + 10)

    assert len(topics) > 2
    assert set(topics) == {"in"}


def test_a_missing_retry_topic_stops_the_partition_and_it_goes_on_once_there_is_one() -> None:
    world = VirtualWorld({"in": 1, "dlq": 1})
    produce(world, b"broken", b"fine")
    member = world.start(Deferring)

    world.run_for(30)

    assert (IN, "dead_letter_refused") in [(key, reason) for key, reason, _ in member.story.stops]
    assert world.broker.committed(IN) in (None, 0)
    assert letters_from(world) == []


def test_a_refusing_retry_topic_keeps_the_offset_and_the_copy_is_written_later() -> None:
    world = world_with_topics()
    world.broker.produce_error = lambda topic: "NOT_ENOUGH_REPLICAS" if topic == FIRST.topic else None
    produce(world, b"heals:3")
    world.start(Deferring)
    world.run_for(30)
    assert world.broker.committed(IN) in (None, 0)

    world.broker.produce_error = lambda _topic: None
    world.run_to_end("in", timeout_s=60)
    world.run_to_end(FIRST.topic, timeout_s=FIRST_S + 10)

    assert handled(world, FIRST) == [0]


def test_headers_that_claim_to_come_from_a_retry_topic_are_not_believed_in_others() -> None:
    forged = [
        ("sw-due", b"99999999999999"),
        ("sw-attempts", b"1000"),
        ("sw-origin-topic", b"elsewhere"),
        ("sw-origin-partition", b"7"),
        ("sw-origin-offset", b"8"),
        ("sw-retry-level", b"2"),
    ]
    world = world_with_topics()
    world.broker.produce("in", 0, b"broken", headers=forged)
    world.start(Deferring)

    world.run_to_end("in", timeout_s=5)

    assert [effect.attempt for effect in world.effects] == [1, 2]
    headers = headers_at(world, FIRST)
    assert (headers["sw-origin-topic"], headers["sw-attempts"], headers["sw-retry-level"]) == ("in", "2", "1")


@pytest.mark.parametrize("headers", [[], [("sw-due", b"soon"), ("sw-attempts", b"-1"), ("sw-origin-topic", b"x")]])
def test_a_record_in_a_retry_topic_that_says_nothing_sensible_is_handled_at_once(
    headers: list[tuple[str, bytes | None]],
) -> None:
    world = world_with_topics()
    world.broker.produce(FIRST.topic, 0, b"broken", headers=headers)
    world.start(Deferring)

    world.run_to_end(FIRST.topic, timeout_s=10)

    assert headers_at(world, SECOND)["sw-origin-topic"] == FIRST.topic


@pytest.mark.parametrize("start", ["latest", "earliest"])
def test_a_retry_topic_is_read_from_its_beginning_whatever_the_start(start: str) -> None:
    """What was written there by others of the group before this worker had it is still to be handled."""
    world = world_with_topics(config=Config(kafka=KafkaConfig(group="test", start=start)))
    world.broker.produce(FIRST.topic, 0, b"fine")
    produce(world, b"fine")
    world.start(Deferring)

    world.run_to_end(FIRST.topic, timeout_s=10)

    assert handled(world, FIRST) == [0]


def test_a_wait_survives_a_crash_and_a_rebalance() -> None:
    world = world_with_topics(2, retries=2)
    produce(world, b"heals:3", b"heals:3", b"heals:3")
    first = world.start(Deferring)
    world.run_to_end("in", timeout_s=5)
    world.run_for(20)
    world.kill(first)
    world.start(Deferring)
    world.run_for(5)
    world.start(Deferring)

    world.run_to_end(FIRST.topic, timeout_s=FIRST_S + 20)

    assert min(times(world, FIRST)) >= FIRST_S
    assert max(times(world, FIRST)) <= FIRST_S + 2 * LOOK_S
    assert [effect.attempt for effect in world.effects if effect.partition == FIRST] == [3, 3, 3]


def test_a_stop_during_a_wait_is_quick_and_nothing_is_lost() -> None:
    world = world_with_topics()
    produce(world, b"heals:3")
    member = world.start(Deferring)
    world.run_to_end("in", timeout_s=5)
    world.run_for(20)
    began_s = world.time.monotonic_s()

    assert world.stop(member) == 0
    assert world.time.monotonic_s() - began_s < 1

    world.start(Deferring)
    world.run_to_end(FIRST.topic, timeout_s=FIRST_S + 10)
    assert handled(world, FIRST) == [0]


def test_a_run_until_the_end_waits_for_what_comes_back() -> None:
    world = world_with_topics()
    produce(world, b"heals:3", b"fine")
    member = world.start(Deferring, bounds=Bounds(until_end=True))

    world.run(lambda: member.worker.stopping is not None, timeout_s=FIRST_S + 30)

    assert handled(world, FIRST) == [0]


def test_of_a_batch_only_the_record_at_fault_is_deferred() -> None:
    world = world_with_topics()
    produce(world, b"fine", b"fine", b"heals:5", b"fine")
    world.start(DeferringBatches, duration_s=steady(0.001))
    world.run_to_end("in", timeout_s=10)
    world.run_to_end(FIRST.topic, timeout_s=FIRST_S + 10)
    world.run_to_end(SECOND.topic, timeout_s=SECOND_S + 10)

    assert sorted(set(handled(world))) == [0, 1, 3]
    assert len(world.broker.records(FIRST.topic)) == 1
    assert letters_from(world) == []


def test_a_value_too_large_for_a_copy_goes_to_the_dead_letters_at_once() -> None:
    world = world_with_topics(config=Config(kafka=KafkaConfig(group="test", max_record_bytes=4_000_000)))
    produce(world, b"broken:" + b"x" * 1_100_000)
    world.start(Deferring)

    world.run_to_end("in", timeout_s=10)

    assert world.broker.records(FIRST.topic) == []
    assert headers_of(world, 0)["sw-trimmed"]


def test_copies_draw_on_the_budget_of_dead_letters() -> None:
    letters = DeadLetterConfig(budget=5, seconds_per_token=10, records_per_token=1000)
    world = world_with_topics(config=Config(kafka=KafkaConfig(group="test"), dead_letters=letters))
    produce(world, *[b"broken"] * 8)
    member = world.start(Deferring)

    world.run_for(5)

    assert len(world.broker.records(FIRST.topic)) == 5
    assert (IN, "dead_letter_budget") in member.story.pauses


def test_a_head_that_is_too_old_is_diverted_to_the_first_retry_topic() -> None:
    class Stubborn(Deferring):
        retry = Retry(attempts=10**6, base_s=8, cap_s=8, topics=Deferring.retry.topics)

    lifecycle = LifecycleConfig(max_head_age_s=60.0, old_head=OldHead.DIVERT)
    world = world_with_topics(config=Config(kafka=KafkaConfig(group="test"), lifecycle=lifecycle))
    produce(world, b"broken", b"fine")
    world.start(Stubborn)

    world.run_to_end("in", timeout_s=100)

    headers = headers_at(world, FIRST)
    assert headers["sw-reason"] == "head_of_line"
    assert int(headers["sw-attempts"]) == calls(world).count(0)
    assert letters_from(world) == []


def test_the_age_of_a_record_that_comes_back_is_counted_from_its_first_timestamp() -> None:
    class Hasty(Deferring):
        max_age_s = 90.0

    world = world_with_topics()
    world.broker.produce("in", 0, b"broken", timestamp_ms=world.time.wall_ms() - 60_000)
    member = world.start(Hasty)
    world.run_to_end("in", timeout_s=5)

    world.run_to_end(FIRST.topic, timeout_s=FIRST_S + 10)

    assert member.story.count(Ending.EXPIRED) == 1
    assert calls(world, FIRST) == []


def test_a_handler_without_retry_topics_reads_none() -> None:
    class Plain(Deferring):
        retry = Retry(attempts=2, base_s=0.1)

    world = make_world()
    produce(world, b"broken")
    member = world.start(Plain)

    world.run_to_end("in", timeout_s=5)

    assert letters_from(world) == [b"broken"]
    assert [key.topic for key in member.worker.assignment] == ["in"]


class PuttingAside(Deferring):
    """Puts everything aside for the first five minutes."""

    def handle(self, record: Record[bytes]) -> None:
        seen.append((record.topic, record.attempt, record.offset, None, 0.0))
        if record.timestamp_ms == 1:
            raise Defer("not now")


def test_what_is_put_aside_spends_no_attempt_and_goes_round_the_last_topic() -> None:
    seen.clear()
    world = world_with_topics()
    world.broker.produce("in", 0, b"x", timestamp_ms=1)
    world.start(PuttingAside)
    world.run_to_end("in", timeout_s=5)

    world.run_for(FIRST_S + 2 * SECOND_S + 30)

    assert [(topic, attempt) for topic, attempt, *_ in seen] == [
        ("in", 1),
        (FIRST.topic, 1),
        (SECOND.topic, 1),
        (SECOND.topic, 1),
    ]
    assert headers_at(world, SECOND)["sw-reason"] == "deferred"
    assert letters_from(world) == []


def test_what_is_put_aside_is_tried_again_by_a_handler_without_retry_topics() -> None:
    class Plain(PuttingAside):
        retry = Retry(attempts=3, base_s=0.1)

    world = make_world()
    world.broker.produce("in", 0, b"x", timestamp_ms=1)
    world.start(Plain)

    world.run_to_end("in", timeout_s=5)

    assert [effect.attempt for effect in world.effects] == [1, 2, 3]
    assert headers_of(world, 0)["sw-reason"] == "exhausted"


def test_a_read_that_defers_puts_its_records_aside_while_its_dependency_is_away_without_a_budget() -> None:
    away = [True]

    class Reading(Deferring):
        dependencies = (Breaker.consecutive("geo"),)
        reads = (Read("place", ("defer",), dependency="geo"),)
        rules = (Rule.retry(ConnectionError),)

        def open(self, context: Context) -> None:
            self.place = context.read("place", self.ask)

        def ask(self, key: bytes | None) -> bytes | None:
            if away[0]:
                raise ConnectionError("nobody there")
            return key

        def handle(self, record: Record[bytes]) -> None:
            self.place(record.value)

    letters = DeadLetterConfig(budget=5, seconds_per_token=1000, records_per_token=1000)
    world = world_with_topics(config=Config(kafka=KafkaConfig(group="test"), dead_letters=letters))
    produce(world, *[b"x"] * 40)
    member = world.start(Reading, duration_s=steady(0.001))
    world.run_to_end("in", timeout_s=5)
    assert calls(world) == list(range(40))
    away[0] = False

    world.run_to_end(FIRST.topic, timeout_s=FIRST_S + 10)

    assert sorted(handled(world, FIRST)) == list(range(40))
    assert letters_from(world) == []
    assert member.story.degraded_reads["place", "defer"] == 40
