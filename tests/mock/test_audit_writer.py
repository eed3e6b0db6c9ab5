"""What is written in the audit alone, against librdkafka's mock of a cluster."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from fleet.in_process import config

from streamworker.clock import SystemClock
from streamworker.errors import ClientError
from streamworker.librdkafka import producer_settings, topic_log_settings
from streamworker.record import TopicPartition
from streamworker.replay.audit import TOPIC, Kept, Note, read, verify
from streamworker.replay.desk import Actor, Role
from streamworker.replay.shipments import AuditWriter
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.testing.mock_kafka import MockKafka

KEY = b"a key for the audit"
TIMEOUT_S = 20.0
AUDIT = TopicPartition(TOPIC, 0)
TOPIC_AUTHORIZATION_FAILED = 29


def writer(kafka: MockKafka, timeout_s: float = TIMEOUT_S) -> AuditWriter:
    settings = config(kafka.bootstrap_servers)
    return AuditWriter(
        producer_settings(settings.kafka, settings.dead_letters), key=KEY, clock=SystemClock(), timeout_s=timeout_s
    )


def note(what: str) -> Note:
    return Note(at_ms=1, actor=Actor("ann", Role.VIEWER, "console", verified=True), what=what, detail={})


def kept(kafka: MockKafka) -> Sequence[Kept]:
    with closing(TopicLog(topic_log_settings(config(kafka.bootstrap_servers).kafka), SystemClock())) as log:
        ranges = {AUDIT: log.bounds(AUDIT, TIMEOUT_S)}
        return [
            Kept(0, one.offset() or 0, one.value(), one.headers() or ())
            for batch in log.read(ranges, TIMEOUT_S)
            for one in batch
        ]


def told(entries: Sequence[Kept]) -> list[tuple[str, int]]:
    return [(entry.what, entry.sequence) for one in entries if (entry := read(one.value)) is not None]


def test_what_is_written_is_one_chain_with_macs(mock_kafka: MockKafka) -> None:
    mock_kafka.create_topic(TOPIC, 1)

    with closing(writer(mock_kafka)) as audit:
        audit.write(note("login"))
        audit.write(note("denied"))

    entries = kept(mock_kafka)
    assert told(entries) == [("login", 0), ("denied", 1)]
    assert verify(entries, KEY).findings == ()


def test_what_cannot_be_written_is_an_error_and_the_next_entry_begins_another_chain(mock_kafka: MockKafka) -> None:
    """An answer that was lost does not say whether the entry is there."""
    mock_kafka.create_topic(TOPIC, 1)

    with closing(writer(mock_kafka)) as audit:
        audit.write(note("login"))
        mock_kafka.push_errors("Produce", TOPIC_AUTHORIZATION_FAILED)
        with pytest.raises(ClientError, match=rf"{TOPIC}: TOPIC_AUTHORIZATION_FAILED"):
            audit.write(note("refused"))
        audit.write(note("later"))

    entries = kept(mock_kafka)
    assert told(entries) == [("login", 0), ("later", 0)]
    assert verify(entries, KEY).findings == ()


def test_who_cannot_reach_the_brokers_is_told_so_in_time(mock_kafka: MockKafka) -> None:
    mock_kafka.create_topic(TOPIC, 1)

    with closing(writer(mock_kafka, timeout_s=1.0)) as audit:
        audit.write(note("login"))
        mock_kafka.broker_down(1)
        with pytest.raises(ClientError) as raised:
            audit.write(note("lost"))

    assert raised.value.code == "_TIMED_OUT"
