"""What a worker does without a replay topic, or without the right to read it, with the real client."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError
from fleet.in_process import Running, config
from fleet.workers import produce

from streamworker import DeadLetter, Handler

if TYPE_CHECKING:
    import pytest

    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka


class Some(Handler[bytes]):
    topics = ("in",)
    dead_letter = DeadLetter("dlq")

    def handle(self, record: Record[bytes]) -> None: ...


def run(kafka: MockKafka, handler: type[Handler[bytes]]) -> list[tuple[object, ...]]:
    """Handle a record and stop; returns the faults that the client has reported."""
    produce(kafka.bootstrap_servers, "in", [(None, "x")], 1)
    with Running(config(kafka.bootstrap_servers), handler) as worker:
        worker.wait(lambda: worker.recorder.of("ended"), "a record")
        assert worker.stop() == 0
    return worker.recorder.of("fault")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_a_missing_replay_topic_is_said_once_and_all_else_goes_on(
    mock_kafka: MockKafka, caplog: pytest.LogCaptureFixture
) -> None:
    for topic in ("in", "dlq"):
        mock_kafka.create_topic(topic, 1)

    assert run(mock_kafka, Some) == []

    assert warnings(caplog) == ["no replay topic: dead letters cannot be sent back to this group; it is waited for"]


def test_a_replay_topic_that_may_not_be_read_is_said_once_and_all_else_goes_on(
    mock_kafka: MockKafka, caplog: pytest.LogCaptureFixture
) -> None:
    for topic in ("in", "dlq", "in.replay.g"):
        mock_kafka.create_topic(topic, 1)
    mock_kafka.topic_error("in.replay.g", KafkaError.TOPIC_AUTHORIZATION_FAILED)

    assert run(mock_kafka, Some) == []

    assert warnings(caplog) == ["no right to read a replay topic: dead letters cannot be sent back to this group"]


def test_a_handler_that_does_without_says_nothing(mock_kafka: MockKafka, caplog: pytest.LogCaptureFixture) -> None:
    class Unreplayed(Some):
        dead_letter = DeadLetter("dlq", replay=False)

    for topic in ("in", "dlq"):
        mock_kafka.create_topic(topic, 1)

    assert run(mock_kafka, Unreplayed) == []

    assert warnings(caplog) == []
