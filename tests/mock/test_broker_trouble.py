"""Brokers that are away or change places: the worker waits, goes on, and handles each record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.in_process import Running, committed, config
from fleet.workers import produce

from streamworker import Handler
from streamworker.testing.mock_kafka import MockKafka

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker import Record

QUICK_RECONNECT = {
    "kafka__librdkafka__reconnect.backoff.max.ms": 500,
    "kafka__librdkafka__topic.metadata.refresh.interval.ms": 500,
}


class Seen(Handler[bytes]):
    topics = ("in",)
    offsets: list[tuple[int, int]]

    def handle(self, record: Record[bytes]) -> None:
        self.offsets.append((record.partition, record.offset))


@pytest.fixture
def seen() -> Iterator[list[tuple[int, int]]]:
    Seen.offsets = []
    yield Seen.offsets
    del Seen.offsets


@pytest.fixture
def pair() -> Iterator[MockKafka]:
    """Two brokers, a topic of two partitions on both."""
    with MockKafka(brokers=2) as kafka:
        kafka.create_topic("in", 2, 2)
        yield kafka


def all_of(records: int) -> list[tuple[int, int]]:
    return [(partition, offset) for partition in (0, 1) for offset in range(records)]


def test_a_worker_waits_for_brokers_that_are_not_there_yet(mock_kafka: MockKafka, seen: list[tuple[int, int]]) -> None:
    """F-3B. Edge case 97."""
    mock_kafka.create_topic("in", 2)
    produce(mock_kafka.bootstrap_servers, "in", [(None, "x")] * 20, 2)
    mock_kafka.broker_down(1)

    with Running(config(mock_kafka.bootstrap_servers, **QUICK_RECONNECT), Seen) as worker:
        worker.wait(lambda: "_ALL_BROKERS_DOWN" in str(worker.recorder.of("fault")), "no broker")
        mock_kafka.broker_up(1)
        worker.wait(lambda: sorted(seen) == all_of(10), "all records")
        assert worker.stop() == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_broker_that_goes_away_and_comes_back_costs_no_record(
    mock_kafka: MockKafka, seen: list[tuple[int, int]], protocol: str
) -> None:
    """Edge cases 17, 97: commits have no answer meanwhile, and what was handled is committed afterwards."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 2)
    settings = config(servers, kafka__group_protocol=protocol, commit__timeout_s=1, **QUICK_RECONNECT)

    with Running(settings, Seen) as worker:
        produce(servers, "in", [(None, "x")] * 200, 2)
        worker.wait(lambda: len(seen) >= 200, "the first half")
        mock_kafka.broker_down(1)
        worker.wait(lambda: "_ALL_BROKERS_DOWN" in str(worker.recorder.of("fault")), "no broker")
        mock_kafka.broker_up(1)
        produce(servers, "in", [(None, "x")] * 200, 2)
        worker.wait(lambda: set(seen) == set(all_of(200)), "all records")
        worker.wait(lambda: committed(servers, "g", "in", 2) == {0: 200, 1: 200}, "all committed")
        assert worker.stop() == 0


def test_leaders_and_coordinators_that_move_are_followed(pair: MockKafka, seen: list[tuple[int, int]]) -> None:
    """F-34. Edge case 14: and nothing is repeated."""
    servers = pair.bootstrap_servers

    with Running(config(servers, **QUICK_RECONNECT), Seen) as worker:
        for number in range(1, 5):
            pair.leader("in", number % 2, 1 + number % 2)
            pair.coordinator("g", 1 + number % 2)
            produce(servers, "in", [(None, "x")] * 40, 2)
            worker.wait(lambda number=number: len(seen) >= 40 * number, "records")
        worker.wait(lambda: committed(servers, "g", "in", 2) == {0: 80, 1: 80}, "all committed")
        assert worker.stop() == 0

    assert sorted(seen) == all_of(80)
