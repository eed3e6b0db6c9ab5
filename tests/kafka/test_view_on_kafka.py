"""A view of topics on a real Kafka, with gaps of aborted transactions in them and a beginning that is deleted."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # the package does not list what it exports
from dead_letters import NOW_MS, disposition
from fleet.in_process import config

from streamworker.clock import SystemClock
from streamworker.librdkafka import topic_log_settings
from streamworker.replay.dead_record import LetterId
from streamworker.replay.families import read
from streamworker.replay.filters import Filter, parse
from streamworker.replay.states import State, encode, key_of, state_topic
from streamworker.replay.topic_log import TopicLog
from streamworker.replay.view import View
from streamworker.replay.view_builder import ViewBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servers.kafka import SharedKafka

TIMEOUT_S = 30.0
ALL = Filter()
PENDING = parse("state:pending", NOW_MS)


@pytest.fixture
def topic(kafka: SharedKafka) -> Iterator[str]:
    """A dead-letter topic of one partition, with that of its states."""
    name = kafka.topic("orders.dlq")
    states = state_topic(name)
    kafka.admin.create_topics([NewTopic(states, 1, config={"cleanup.policy": "compact"})])[states].result(TIMEOUT_S)
    yield name
    kafka.admin.delete_topics([states])[states].result(TIMEOUT_S)


def send(kafka: SharedKafka, topic: str, records: Sequence[tuple[bytes | None, bytes]], *, abort: bool = False) -> None:
    """In one transaction, with the mark of its end behind them."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": kafka.group("writer")})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    for key, value in records:
        producer.produce(topic, value, key, partition=0, headers=[("sw-version", b"1"), ("sw-reason", b"poison")])
    producer.flush(TIMEOUT_S)
    if abort:
        producer.abort_transaction(TIMEOUT_S)
    else:
        producer.commit_transaction(TIMEOUT_S)


def finish(builder: ViewBuilder) -> None:
    while builder.step():
        pass


def test_a_view_has_what_the_topics_say_and_follows_them(kafka: SharedKafka, topic: str) -> None:
    with (
        closing(TopicLog(topic_log_settings(config(kafka.bootstrap_servers).kafka), SystemClock())) as log,
        closing(View(topic, SystemClock())) as view,
    ):
        builder = ViewBuilder(view, log, read, partitions=1, state_partitions=1, timeout_s=TIMEOUT_S)
        send(kafka, topic, [(b"k", b"gone")] * 10, abort=True)
        send(kafka, topic, [(b"k", b"v")] * 2500)  # from offset 11 on
        send(kafka, state_topic(topic), [(b"0:11", encode(disposition(State.REPLAYED)))], abort=True)
        send(kafka, state_topic(topic), [(key_of(LetterId(0, 12)), encode(disposition(State.REPLAYED)))])
        finish(builder)
        at_first = view.count(ALL), view.count(PENDING), view.ends()

        send(kafka, topic, [(b"k", b"v")] * 3)  # from offset 2512 on
        send(kafka, state_topic(topic), [(key_of(LetterId(0, 2512)), encode(disposition(State.DISCARDED)))])
        kafka.admin.delete_records([ClientPartition(topic, 0, 2000)])[ClientPartition(topic, 0)].result(TIMEOUT_S)
        finish(builder)

        assert at_first == (2500, 2499, {0: 2511})
        assert (view.count(ALL), view.count(PENDING), view.ends()) == (514, 513, {0: 2515})
        assert next(view.ids(ALL)) == LetterId(0, 2000)
        assert (view.ignored, view.built) == (0, 1.0)
