"""What raises inside the client's callbacks costs no record: the client drops those of the call it was raised in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.in_process import Running, committed, config
from fleet.workers import produce

from streamworker import Handler
from streamworker.clock import SystemClock
from streamworker.events import EVENTS, Listener
from streamworker.interfaces import Start
from streamworker.librdkafka import consumer_settings
from streamworker.source.kafka import KafkaSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker import Record, TopicPartition
    from streamworker.testing.mock_kafka import MockKafka


class Broken(Exception):
    """Planted."""


class BrokenListener(Listener):
    """Raises in every event."""


def _break(self: BrokenListener, *_arguments: object) -> None:
    raise Broken


for _event in EVENTS:
    setattr(BrokenListener, _event, _break)


class FromTheStart:
    """Starts at offset 0; what it does when partitions come is for the subclasses."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Start]:
        return {one: Start(0, paused=False) for one in partitions}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None: ...

    def lost(self, partitions: Sequence[TopicPartition]) -> None: ...


class BrokenAtFirst(FromTheStart):
    """The first assignment raises before it has begun."""

    def __init__(self) -> None:
        self.left = 1

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Start]:
        if self.left:
            self.left -= 1
            raise Broken
        return super().assigned(partitions)


class BrokenClock(SystemClock):
    """Raises in the client's statistics, which are compared with the time."""

    @staticmethod
    def monotonic_s() -> float:
        raise Broken


def test_a_listener_that_raises_in_every_event_loses_no_record(mock_kafka: MockKafka) -> None:
    """F-43. Edge case 22: two members, so that partitions come and go while records flow."""
    mock_kafka.create_topic("in", 4)
    seen: list[tuple[int, int]] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.partition, record.offset))

    ends = dict.fromkeys(range(4), 200)
    settings = config(mock_kafka.bootstrap_servers)
    with Running(settings, Seen, listeners=[BrokenListener()]) as first:
        first.wait(lambda: first.recorder.of("assigned"), "assigned")
        produce(mock_kafka.bootstrap_servers, "in", [(None, "x")] * 400, 4)
        with Running(settings, Seen, listeners=[BrokenListener()]) as second:
            second.wait(lambda: second.recorder.of("assigned"), "assigned")
            produce(mock_kafka.bootstrap_servers, "in", [(None, "x")] * 400, 4)
            second.wait(lambda: len(set(seen)) == 800, "all records")
            assert second.stop() == 0
        first.wait(lambda: committed(mock_kafka.bootstrap_servers, "g", "in", 4) == ends, f"committed {ends}")
        assert first.stop() == 0

    assert sorted(set(seen)) == [(partition, offset) for partition in range(4) for offset in range(200)]


def test_an_error_in_the_statistics_comes_out_of_the_next_fetch_and_costs_no_record(mock_kafka: MockKafka) -> None:
    """F-43. Edge case 22: the client would drop the record that it took in the same call."""
    mock_kafka.create_topic("in", 1)
    source = KafkaSource(
        consumer_settings(config(mock_kafka.bootstrap_servers).kafka, end_of_partition=False), BrokenClock()
    )
    source.subscribe(["in"], FromTheStart())
    offsets: list[int] = []
    produced = raised = 0

    while raised < 3 or len(offsets) < produced:
        if raised < 3:
            mock_kafka.produce_raw("in", 0, None, b"x")
            produced += 1
        try:
            offsets += [one.offset() for _, run in source.fetch(5, 0.02).runs for one in run]
        except Broken:
            raised += 1
    source.close()

    assert offsets == list(range(produced))


def test_an_error_in_the_assignment_is_raised_and_not_swallowed(mock_kafka: MockKafka) -> None:
    """F-43. Edge case 22: nothing was assigned, so nothing is delivered; the next fetch says why, closing works."""
    mock_kafka.create_topic("in", 1)
    mock_kafka.produce_raw("in", 0, None, b"x")
    settings = consumer_settings(config(mock_kafka.bootstrap_servers).kafka, end_of_partition=False)
    source = KafkaSource(settings, SystemClock())
    rebalance = BrokenAtFirst()
    source.subscribe(["in"], rebalance)

    while rebalance.left:
        assert source.fetch(5, 0.1).runs == []
    with pytest.raises(Broken):
        source.fetch(5, 0.1)
    source.close()


def test_the_statistics_say_whether_any_broker_was_ever_reached(mock_kafka: MockKafka) -> None:
    def reached(servers: str) -> bool:
        settings = consumer_settings(config(servers).kafka, end_of_partition=False)
        source = KafkaSource(settings, SystemClock())
        source.subscribe(["no such topic"], FromTheStart())
        for _ in range(20):  # longer than the statistics take to come
            source.fetch(1, 0.1)
        found = source.membership()
        source.close()
        return found is not None and found.reached

    assert reached(mock_kafka.bootstrap_servers)
    assert not reached("127.0.0.1:1")
