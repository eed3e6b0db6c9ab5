"""Offsets that are never delivered: transaction markers, aborted records, records that compaction took."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from fleet.in_process import Running, committed, config
from fleet.workers import wait_for
from servers.ports import free_port

from streamworker import Handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers.kafka import SharedKafka

    from streamworker import Record

STALL_S = 2


def transactions(kafka: SharedKafka, topic: str, *values: str) -> None:
    """A transaction per value with 50 records of it each; those named `aborted` are."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": kafka.group("writer")})
    producer.init_transactions(30)
    for value in values:
        producer.begin_transaction()
        for _ in range(50):
            producer.produce(topic, value, partition=0)
        producer.flush(30)
        if value == "aborted":
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_markers_and_aborted_records_neither_hold_the_commit_back_nor_look_like_a_stall(
    kafka: SharedKafka, protocol: str, figures: Callable[..., None]
) -> None:
    """F-3E. Edge cases 5, 32: at the end is a marker, so a lag remains for longer than the time for a stall."""
    topic, group = kafka.topic("in"), kafka.group("gaps")
    values: list[bytes] = []

    class Seen(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            values.append(record.value)

    settings = config(
        kafka.bootstrap_servers,
        group,
        kafka__group_protocol=protocol,
        lifecycle__stall_timeout_s=STALL_S,
        http__enabled="true",
        http__port=free_port(),
    )
    transactions(kafka, topic, "aborted", "committed", "aborted", "committed")
    with Running(settings, Seen) as worker:
        worker.wait(lambda: committed(kafka.bootstrap_servers, group, topic, 1) == {0: 203}, "committed")
        worker.wait(lambda: _partition(worker)["lag_records"] == 1, "the marker is the lag")
        until_s = _up_s(worker) + 2 * STALL_S
        worker.wait(lambda: _up_s(worker) > until_s, "twice the time for a stall")
        assert worker.recorder.of("stalled") == []
        assert worker.page("health/ready")[0] == 200
        assert worker.stop() == 0

    assert values == [b"committed"] * 100
    aborted = values.count(b"aborted")
    figures("F-3E", f"markers and aborted records, {protocol}", records=len(values), aborted_seen=aborted)


@pytest.mark.parametrize("last", ["committed", "aborted"])
def test_a_run_to_the_end_ends_behind_the_markers(kafka: SharedKafka, last: str) -> None:
    """F-3E. Edge case 5."""
    topic, group = kafka.topic("in"), kafka.group("end")
    values: list[bytes] = []

    class Seen(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            values.append(record.value)

    transactions(kafka, topic, "committed", last)
    with Running(config(kafka.bootstrap_servers, group), Seen, until_end=True) as worker:
        assert worker.ended() == 0
    with Running(config(kafka.bootstrap_servers, group), Seen, until_end=True) as worker:
        assert worker.ended() == 0

    assert values == [b"committed"] * (100 if last == "committed" else 50)


def test_records_that_compaction_took_are_passed_over(kafka: SharedKafka) -> None:
    """F-3E. Edge case 5: of forty records with one key the last one stays, then comes one with another key."""
    topic = kafka.topic(
        "in",
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.001",
        max_compaction_lag_ms="100",
        min_compaction_lag_ms="0",
    )
    group = kafka.group("compacted")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    seen: list[int] = []

    class Seen(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            seen.append(record.offset)

    written = 0

    def offsets_are_gone() -> bool:
        nonlocal written
        seen.clear()
        producer.produce(topic, b"x", key=b"k")
        assert producer.flush(30) == 0
        written += 1
        with Running(config(kafka.bootstrap_servers, kafka.group("probe")), Seen, until_end=True) as probe:
            assert probe.ended() == 0
        return len(seen) < written

    wait_for(offsets_are_gone, lambda: f"compaction; {seen}", 60)
    expected = list(seen)
    seen.clear()
    with Running(config(kafka.bootstrap_servers, group), Seen, until_end=True) as worker:
        assert worker.ended() == 0

    assert set(seen) <= set(expected)
    assert seen[-1] == written - 1
    assert committed(kafka.bootstrap_servers, group, topic, 1) == {0: written}


def _partition(worker: Running) -> dict[str, object]:
    partitions = json.loads(worker.page("status")[1])["partitions"]
    return dict(partitions[0]) if partitions else {"lag_records": None}


def _up_s(worker: Running) -> float:
    return float(json.loads(worker.page("status")[1])["up_s"])
