"""A group's offsets that somebody else moves or takes away: what is passed over, is so by their will and is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka import TopicPartition as Place
from fleet.in_process import Running, committed, config
from fleet.workers import Fleet, produce

from streamworker import Handler
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from servers.kafka import SharedKafka

    from streamworker import Record

TIMEOUT_S = 30.0
PROTOCOLS = ["classic", "consumer"]
HALF = 10  # records of a partition before the move, and again as many after it


def handler_of(topic: str) -> tuple[list[tuple[int, int]], type[Handler[bytes]]]:
    """A handler, and the partition and offset of each of its calls."""
    seen: list[tuple[int, int]] = []

    class Seen(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.partition, record.offset))

    return seen, Seen


def move(kafka: SharedKafka, group: str, offsets: Sequence[Place]) -> None:
    """What tools for people do; raises KafkaException where the cluster refuses."""
    request = [ConsumerGroupTopicPartitions(group, list(offsets))]
    moved = kafka.admin.alter_consumer_group_offsets(request)[group].result(TIMEOUT_S).topic_partitions or []
    for one in moved:
        if one.error is not None:
            raise KafkaException(one.error)


def forget(kafka: SharedKafka, group: str, *, but: Sequence[Place] = ()) -> None:
    """Take all offsets of a group away, and put some back."""
    kafka.admin.delete_consumer_groups([group])[group].result(TIMEOUT_S)
    if but:
        move(kafka, group, but)


def offsets_with_metadata(kafka: SharedKafka, group: str, topic: str) -> dict[int, Place]:
    asked = [ConsumerGroupTopicPartitions(group)]
    found = kafka.admin.list_consumer_group_offsets(asked)[group].result(TIMEOUT_S).topic_partitions or []
    return {one.partition: one for one in found if one.topic == topic}


def handled_before(kafka: SharedKafka, topic: str, group: str) -> None:
    """The group has handled all of a first half, left, and there is another half."""
    produce(kafka.bootstrap_servers, topic, [(None, "x")] * (2 * HALF), 2)
    _, handler = handler_of(topic)
    with Running(config(kafka.bootstrap_servers, group), handler, until_end=True) as worker:
        assert worker.ended() == 0
    produce(kafka.bootstrap_servers, topic, [(None, "x")] * (2 * HALF), 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_offsets_moved_while_nobody_was_there_are_where_work_goes_on_and_are_told(
    kafka: SharedKafka, protocol: str, figures: Callable[..., None]
) -> None:
    """F-15. One back, one forward."""
    topic, group = kafka.topic("in", partitions=2), kafka.group("moved")
    handled_before(kafka, topic, group)
    move(kafka, group, [Place(topic, 0, 4), Place(topic, 1, 15)])
    seen, handler = handler_of(topic)

    with Running(config(kafka.bootstrap_servers, group, kafka__group_protocol=protocol), handler, until_end=True) as it:
        assert it.ended() == 0

    assert sorted(seen) == [(0, one) for one in range(4, 20)] + [(1, one) for one in range(15, 20)]
    assert sorted(it.recorder.of("foreign_offset")) == [(TopicPartition(topic, 0), 4), (TopicPartition(topic, 1), 15)]
    assert committed(kafka.bootstrap_servers, group, topic, 2) == {0: 20, 1: 20}
    figures("F-15", f"offsets moved back 6 and forward 5, {protocol}", repeated=6, passed_over=5, told=2)


def test_a_partition_whose_offset_was_deleted_is_repeated_from_its_beginning(kafka: SharedKafka) -> None:
    """F-15. Though the group is told to start at the end where it has never been."""
    topic, group = kafka.topic("in", partitions=2), kafka.group("deleted")
    handled_before(kafka, topic, group)
    forget(kafka, group, but=[offsets_with_metadata(kafka, group, topic)[1]])
    seen, handler = handler_of(topic)

    with Running(config(kafka.bootstrap_servers, group, kafka__start="latest"), handler, until_end=True) as worker:
        assert worker.ended() == 0

    assert sorted(seen) == [(0, one) for one in range(20)] + [(1, one) for one in range(10, 20)]
    assert worker.recorder.of("foreign_offset") == []


@pytest.mark.parametrize(("start", "first"), [("earliest", 0), ("latest", 20)])
def test_a_group_whose_offsets_were_all_deleted_starts_where_it_is_told_to(
    kafka: SharedKafka, start: str, first: int
) -> None:
    """F-15."""
    topic, group = kafka.topic("in", partitions=2), kafka.group("deleted")
    handled_before(kafka, topic, group)
    forget(kafka, group)
    seen, handler = handler_of(topic)

    with Running(config(kafka.bootstrap_servers, group, kafka__start=start), handler, until_end=True) as worker:
        assert worker.ended() == 0

    assert sorted(seen) == [(partition, one) for partition in (0, 1) for one in range(first, 20)]
    assert committed(kafka.bootstrap_servers, group, topic, 2) == {0: 20, 1: 20}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_offsets_of_a_group_at_work_cannot_be_moved_or_deleted(kafka: SharedKafka, protocol: str) -> None:
    """F-15. The cluster refuses it, and the worker does not notice."""
    topic, group = kafka.topic("in", partitions=2), kafka.group("live")
    produce(kafka.bootstrap_servers, topic, [(None, "x")] * (2 * HALF), 2)
    seen, handler = handler_of(topic)

    with Running(config(kafka.bootstrap_servers, group, kafka__group_protocol=protocol), handler) as worker:
        worker.wait(lambda: committed(kafka.bootstrap_servers, group, topic, 2) == {0: 10, 1: 10}, "committed")
        with pytest.raises(KafkaException):
            move(kafka, group, [Place(topic, 0, 4)])
        with pytest.raises(KafkaException):
            forget(kafka, group)
        produce(kafka.bootstrap_servers, topic, [(None, "x")] * (2 * HALF), 2)
        worker.wait(lambda: committed(kafka.bootstrap_servers, group, topic, 2) == {0: 20, 1: 20}, "all committed")
        assert worker.stop() == 0

    assert len(seen) == len(set(seen)) == 40


@pytest.mark.parametrize("offset", [4, 15])
def test_a_worker_that_was_expelled_goes_on_where_its_offset_was_moved_to_meanwhile(
    kafka: SharedKafka, tmp_path: Path, offset: int
) -> None:
    """F-15. It is alive all the time: its process is stopped for longer than its session."""
    topic, group = kafka.topic("in"), kafka.group("expelled")
    options = {"kafka.group_protocol": "classic", "kafka.session_timeout_s": 1, "lifecycle.revoke_timeout_s": 0.5}
    produce(kafka.bootstrap_servers, topic, [("k", "x")] * HALF, 1)

    with Fleet(kafka.bootstrap_servers, group, topic, tmp_path, options=options) as fleet:
        worker = fleet.start()
        fleet.wait(lambda: committed(kafka.bootstrap_servers, group, topic, 1) == {0: 10}, "committed")
        fleet.pause(worker)
        fleet.wait(lambda: is_empty(kafka, group), "expelled")
        produce(kafka.bootstrap_servers, topic, [("k", "x")] * HALF, 1)
        move(kafka, group, [Place(topic, 0, offset)])
        known = len(fleet.effects())
        fleet.resume(worker)
        fleet.wait(lambda: committed(kafka.bootstrap_servers, group, topic, 1) == {0: 20}, "all committed")

        # Before it hears that it was expelled, it may handle what it has fetched.
        assert {one.offset for one in fleet.effects()[known:]} >= set(range(offset, 20))
        assert "offset of another program accepted" in fleet.logs()


def is_empty(kafka: SharedKafka, group: str) -> bool:
    described = kafka.admin.describe_consumer_groups([group])[group].result(TIMEOUT_S)
    return bool(described.state == ConsumerGroupState.EMPTY)
