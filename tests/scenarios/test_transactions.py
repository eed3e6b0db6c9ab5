"""Exactly once from Kafka to Kafka: outputs, dead letters and offsets in one transaction, whatever ends in between."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar
from zlib import crc32

import pytest
from scenarios.worlds import IN, commits, letters_from, obey

from streamworker import (
    Batch,
    BatchHandler,
    Breaker,
    ConfigurationError,
    DeadLetter,
    Handler,
    Ordering,
    PoisonError,
    Retry,
    TopicPartition,
)
from streamworker.config import CommitConfig, Config, KafkaConfig, TransactionConfig
from streamworker.declaration import declaration, declarations
from streamworker.sinks.kafka import KafkaSink
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import Record, Records
    from streamworker.testing.memory_broker import MemoryMessage


def make_world(partitions: int = 1, **options: object) -> VirtualWorld:
    config = Config(kafka=KafkaConfig(group="test"), **options)  # type: ignore[arg-type]  # tables
    return VirtualWorld({"in": partitions, "out": 2, "dlq": 1}, config=config)


class Copies(Handler[bytes]):
    """Obeys each record and copies it."""

    topics: ClassVar[Sequence[str]] = ("in",)
    delivery = "transactional"
    sink = KafkaSink("out")
    ordering: ClassVar[Ordering | str] = Ordering.KEY
    dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq")
    retry = Retry(attempts=4, base_s=0.1, cap_s=2.0)
    concurrency = 4

    def handle(self, record: Record[bytes]) -> bytes | None:
        obey(record)
        return record.value


def produce(world: VirtualWorld, *values: bytes, key: bytes | None = b"k", partition: int = 0) -> None:
    for value in values:
        world.broker.produce("in", partition, value, key=key)


def outputs(world: VirtualWorld) -> list[bytes | None]:
    return [one.value() for one in _records(world)]


def _records(world: VirtualWorld) -> list[MemoryMessage]:
    return world.broker.records("out")


def test_what_a_record_becomes_is_there_with_its_offset() -> None:
    world = make_world()
    produce(world, b"a", b"b", b"c")

    world.start(Copies)
    world.run_to_end("in")

    assert outputs(world) == [b"a", b"b", b"c"]


def test_a_transaction_that_is_aborted_is_made_again_and_no_handler_is_called_again() -> None:
    world, errors = make_world(), ["REQUEST_TIMED_OUT", "CONCURRENT_TRANSACTIONS"]
    world.broker.transaction_error = lambda: errors.pop() if errors and world.effects else None
    produce(world, b"a", b"b")

    world.start(Copies)
    world.run_to_end("in")

    assert outputs(world) == [b"a", b"b"]
    assert len(world.effects) == 2
    assert errors == []


def test_a_killed_worker_leaves_nothing_of_an_open_transaction_and_another_makes_all_of_it() -> None:
    world = make_world()
    produce(world, b"a", b"b")
    first = world.start(Copies)
    world.run(lambda: len(world.effects) == 2)
    world.kill(first)

    world.start(Copies)
    world.run_to_end("in")

    assert outputs(world) == [b"a", b"b"]


def test_dead_letters_and_retries_are_part_of_it() -> None:
    world = make_world()
    produce(world, b"a", b"poison", b"flaky:2", b"d")

    world.start(Copies)
    world.run_to_end("in")

    assert outputs(world) == [b"a", b"flaky:2", b"d"]
    assert letters_from(world) == [b"poison"]


def test_a_failed_record_holds_nothing_back_and_its_outputs_are_there_once() -> None:
    world = make_world()
    produce(world, b"broken", key=b"x")
    produce(world, b"b", b"c", key=b"y")
    first = world.start(Copies)
    world.run(lambda: len(outputs(world)) == 2)
    assert commits(world) == []  # at the failed record, with a map of what is done beyond it
    world.kill(first)

    world.start(Copies)
    world.run_to_end("in")

    assert outputs(world) == [b"b", b"c"]
    assert letters_from(world) == [b"broken"]


def test_while_an_output_is_refused_its_partition_stands_still_and_others_go_on() -> None:
    class ToTwo(Copies):
        sink = KafkaSink("out", value=None)

    world = make_world(partitions=2)
    broken = [True]
    world.broker.produce_error = lambda topic: "TOPIC_AUTHORIZATION_FAILED" if topic == "out" and broken else None
    produce(world, b"a", b"b")

    member = world.start(ToTwo)
    world.run(lambda: bool(member.story.stops))
    stopped = [(key, reason) for key, reason, _ in member.story.stops]
    world.run_for(20)
    broken.clear()
    world.run_to_end("in")

    assert stopped == [(IN, "output_refused")]
    assert outputs(world) == [b"a", b"b"]
    assert len(world.effects) == 2


def test_a_batch_becomes_its_records() -> None:
    class Many(BatchHandler[bytes]):
        topics = ("in",)
        delivery = "transactional"
        sink = KafkaSink("out")
        batch = Batch(max_records=3)

        def handle(self, records: Records[bytes]) -> object:
            return [[value, value] if value == b"twice" else value for value in records.values()]

    world = make_world()
    produce(world, b"a", b"twice", b"c", b"d")

    world.start(Many)
    world.run_to_end("in")

    assert outputs(world) == [b"a", b"twice", b"twice", b"c", b"d"]


def test_a_rebalance_waits_for_the_transaction_in_hand() -> None:
    world = make_world(partitions=2)
    for partition in range(2):
        produce(world, *(b"%d-%d" % (partition, number) for number in range(50)), partition=partition)
    world.start(Copies, duration_s=lambda slice_: 0.05 * len(slice_.messages))
    world.run(lambda: len(world.effects) >= 10)

    world.start(Copies)
    world.run_to_end("in")

    assert sorted(outputs(world), key=str) == sorted(
        (b"%d-%d" % (partition, number) for partition in range(2) for number in range(50)), key=str
    )


def test_outputs_wait_for_a_map_that_has_room_for_their_records() -> None:
    """What does not fit beside the offset would be handled again after a crash, and its outputs be there twice."""
    world = make_world(commit=CommitConfig(max_uncommitted=100_000))
    produce(world, b"broken", key=b"x")
    rnd = random.Random(1)
    for number in range(12_000):
        produce(world, b"broken" if rnd.random() < 0.35 else b"v%d" % number, key=b"%d" % number)

    class Slow(Copies):
        retry = Retry(attempts=2, base_s=400.0, cap_s=800.0)
        concurrency = 16
        lanes = 64

    first = world.start(Slow)
    world.run_for(120)
    seen = len(outputs(world))
    world.kill(first)
    world.start(Slow)
    world.run_for(120)

    values = outputs(world)
    assert seen
    assert len(values) == len(set(values))


def test_too_many_bytes_of_outputs_hold_the_handing_over() -> None:
    world = make_world(transactions=TransactionConfig(max_bytes=1000, interval_s=5.0), commit=CommitConfig())
    produce(world, *(b"x" * 500 for _ in range(20)))

    member = world.start(Copies)
    world.run_for(3)
    held = member.worker.outputs
    assert held is not None
    assert held.size_bytes <= 4000
    world.run_to_end("in")

    assert len(outputs(world)) == 20


@pytest.mark.parametrize("chance", range(25))
def test_each_output_is_there_once_and_in_key_order_whatever_dies(chance: int) -> None:
    """M16 for transactions: workers come, stop and are killed, and transactions fail."""
    rnd = random.Random(chance)
    world = make_world(partitions=3)
    expected: dict[bytes, list[bytes]] = {}
    for number in range(300):
        key = b"k%d" % rnd.randrange(12)
        value = b"%s:%d" % (rnd.choice([b"v", b"v", b"v", b"flaky:1", b"poison"]), number)
        if not value.startswith(b"poison"):
            expected.setdefault(key, []).append(value)
        world.broker.produce("in", crc32(key) % 3, value, key=key)
    world.broker.transaction_error = lambda: (
        rnd.choice(["REQUEST_TIMED_OUT", "COORDINATOR_NOT_AVAILABLE"]) if (rnd.random() < 0.2) else None
    )

    class Obeys(Copies):
        breaker = Breaker("none")
        lanes = 4

        def handle(self, record: Record[bytes]) -> bytes | None:
            value = record.value or b""
            if value.startswith(b"poison"):
                raise PoisonError("a bad record")
            if value.startswith(b"flaky") and record.attempt == 1:
                raise ValueError("once more")
            return value

    for _ in range(5):
        member = world.start(Obeys)
        if rnd.random() < 0.5:
            world.start(Obeys)
        world.run_for(rnd.random() * 0.3)
        (world.kill if rnd.random() < 0.7 else world.stop)(member)
    world.start(Obeys)
    world.run_to_end("in")

    found: dict[bytes, list[bytes]] = {}
    for one in _records(world):
        found.setdefault(one.key() or b"", []).append(one.value() or b"")
    letters = letters_from(world)  # of poison, and of records in work each time that their worker was killed
    given_up = {value for value in letters if value is not None}
    assert found == {
        key: left for key, all_ in expected.items() if (left := [one for one in all_ if one not in given_up])
    }
    assert len(letters) == len(given_up)


def test_what_cannot_be_in_a_transaction_is_refused() -> None:
    class NoSink(Copies):
        sink = None

    class Elsewhere(Copies):
        sink = KafkaSink("out", connection="other")

    class Parks(Copies):
        dead_letter = DeadLetter("dlq", on_exhausted="dlq_key")

    class AtLeastOnce(Copies):
        topics = ("other",)
        delivery = "at_least_once"

    for wrong, why in ((NoSink, "declare sink"), (Elsewhere, "without a connection"), (Parks, "dlq_key")):
        with pytest.raises(ConfigurationError, match=why):
            declaration(wrong)
    with pytest.raises(ConfigurationError, match="run them as two groups"):
        declarations([Copies, AtLeastOnce])


def test_topics_have_records_of_other_partitions_in_their_order() -> None:
    world = make_world(partitions=2)
    produce(world, b"a", b"b", key=b"x")
    produce(world, b"c", b"d", key=b"y", partition=1)

    world.start(Copies)
    world.run_to_end("in")

    by_key = [[one.value() for one in _records(world) if one.key() == key] for key in (b"x", b"y")]
    assert by_key == [[b"a", b"b"], [b"c", b"d"]]
    assert world.broker.committed(TopicPartition("in", 1)) == 2
