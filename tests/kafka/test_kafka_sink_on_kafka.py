"""A KafkaSink and a real Kafka: workers that are killed, a topic that takes no large record, a broker that halts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # the package does not list what it exports
from fleet.trial import Trial
from missing import obtained
from servers.kafka_cluster import start_cluster
from sizes import SOAK

from streamworker.config import DeadLetterConfig, KafkaConfig
from streamworker.librdkafka import sink_settings
from streamworker.record import Letter
from streamworker.sinks.deliveries import Deliveries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from confluent_kafka import Message
    from servers.kafka import SharedKafka
    from servers.kafka_cluster import KafkaCluster

PARTITIONS = 4
TIMEOUT_S = 30.0


@pytest.fixture
def halted() -> Iterator[KafkaCluster]:
    """A Kafka of one node, which may be halted."""
    cluster = obtained(lambda: start_cluster(1))
    yield cluster
    cluster.close()


def all_of(bootstrap_servers: str, topic: str) -> list[Message]:
    """All records of a topic at rest, those of a partition in their order."""
    reader = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "reader", "enable.auto.commit": False})
    partitions = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
    try:
        count = sum(reader.get_watermark_offsets(one, TIMEOUT_S)[1] for one in partitions)
        reader.assign(partitions)
        found: list[Message] = []
        while len(found) < count:
            more = reader.consume(count - len(found), TIMEOUT_S)
            assert more, f"read {len(found)} of {count}"
            found += more
    finally:
        reader.close()
    return found


def sources(copies: Iterable[Message]) -> Mapping[bytes | None, Sequence[tuple[int, int]]]:
    """By key, partition and offset of what each copy was made of, in the order of the copies."""
    found: dict[bytes | None, list[tuple[int, int]]] = {}
    for one in copies:
        partition, _, offset = (dict(one.headers() or [])["source"] or b"").partition(b"@")
        found.setdefault(one.key(), []).append((int(partition), int(offset)))
    return found


def firsts(places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Each place once, where it comes first."""
    return iter(dict.fromkeys(places))


def test_sigkill_loses_no_copy_and_keeps_the_order_of_every_key(
    kafka: SharedKafka, tmp_path: Path, dead_letters_of: Callable[..., str], figures: Callable[..., None]
) -> None:
    kills = 3 * SOAK
    topic = kafka.topic("orders", partitions=PARTITIONS)
    dead_letters_of(topic)
    copies = f"{topic}.copies"
    kafka.admin.create_topics([NewTopic(copies, PARTITIONS)])[copies].result(TIMEOUT_S)

    with Trial(
        kafka.bootstrap_servers,
        topic,
        kafka.group("orders"),
        tmp_path,
        partitions=PARTITIONS,
        total=1000 * kills,
        deeds={"flaky": 0.01},
        handler="fleet.copying:Copies",
        # A delivery that is given up on a busy machine lets a slice be handled again, which is no fault.
        options={"app.work_s": 0.004, "dead_letters.delivery_timeout_s": 20, "lifecycle.drain_timeout_s": 25},
    ) as trial:
        trial.fleet.start()
        trial.fleet.start()
        for kill in range(kills):
            trial.wait_for_progress((kill + trial.draw.random()) / (kills + 1))
            trial.fleet.kill(trial.draw.choice(trial.fleet.living()))
            trial.fleet.start()
        verdict = trial.verdict()
        ends = trial.workload.ends()

    found = sources(all_of(kafka.bootstrap_servers, copies))
    kafka.admin.delete_topics([copies])[copies].result(TIMEOUT_S)
    written = [place for places in found.values() for place in places]
    assert verdict.broken() == []
    assert set(written) == {(partition, offset) for partition, end in ends.items() for offset in range(end)}
    for places in (places for key, places in found.items() if key is not None):
        assert list(firsts(places)) == sorted(set(places))
        assert list(firsts(places[::-1])) == sorted(set(places), reverse=True)
    figures("F-01", "SIGKILL of a worker that copies", kills=kills, repeats=len(written) - len(set(written)), lost=0)


def letters_of(topic: str, *values: bytes) -> list[Letter]:
    return [Letter(topic, 0, b"k", value, (), timestamp_ms=0) for value in values]


@contextmanager
def deliveries_to(bootstrap_servers: str) -> Iterator[Deliveries]:
    made = Deliveries(sink_settings(KafkaConfig(bootstrap_servers=bootstrap_servers), DeadLetterConfig()))
    made.join()
    yield made
    made.leave()


def test_only_the_record_that_is_too_large_for_a_topic_is_to_blame(kafka: SharedKafka) -> None:
    topic = kafka.topic("small", partitions=PARTITIONS, max_message_bytes="20000")
    fine = [b"%05d" % number * 200 for number in range(50)]
    large = bytes(range(256)) * 100

    with deliveries_to(kafka.bootstrap_servers) as deliveries:
        all_fine = deliveries.deliver(letters_of(topic, *fine), TIMEOUT_S)
        failed = deliveries.deliver(letters_of(topic, *fine[:30], large, *fine[30:]), TIMEOUT_S)

    values = [one.value() for one in all_of(kafka.bootstrap_servers, topic)]
    assert all_fine is None
    assert failed is not None
    assert (failed.index, failed.code, failed.of_the_letter) == (30, "MSG_SIZE_TOO_LARGE", True)
    assert list(dict.fromkeys(values[::-1]))[::-1][-30:] == fine[:30]


def test_a_write_that_gave_up_while_the_broker_was_halted_writes_nothing_later_but_what_was_under_way(
    halted: KafkaCluster,
) -> None:
    halted.admin.create_topics([NewTopic("out", PARTITIONS)])["out"].result(TIMEOUT_S)
    values = [b"%d" % number for number in range(5_000)]

    with deliveries_to(halted.bootstrap_servers) as deliveries:
        assert deliveries.deliver(letters_of("out", b"before"), TIMEOUT_S) is None
        halted.node(1).pause()
        failed = deliveries.deliver(letters_of("out", *(value * 1000 for value in values)), 1.0)
        halted.node(1).resume()
        after = deliveries.deliver(letters_of("out", *values), TIMEOUT_S)

    written = [one.value() for one in all_of(halted.bootstrap_servers, "out")]
    assert failed is not None
    assert failed.index == 0
    assert after is None
    assert written[-len(values) :] == values
    assert len(written) < 1 + 2 * len(values)
