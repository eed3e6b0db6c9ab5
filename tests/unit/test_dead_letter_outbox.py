"""What the dead-letter producer answers when the client below it forgets to."""

from __future__ import annotations

from typing import cast

from confluent_kafka import KafkaError, KafkaException, Producer

from streamworker.clock import SystemClock
from streamworker.dlq.outbox import KafkaOutbox
from streamworker.record import Letter

LETTER = Letter("dlq", 0, None, b"v", (), timestamp_ms=1)


class SilentProducer:
    """Takes letters, then is done for and reports none of them."""

    def produce(self, topic: str, **letter: object) -> None:
        pass

    def poll(self, timeout: float) -> int:
        raise KafkaException(KafkaError(KafkaError._FATAL, "done for", fatal=True))

    def purge(self) -> None:
        pass


def test_no_letter_of_a_producer_that_is_done_for_stays_without_an_answer() -> None:
    made: list[object] = []
    answers: list[str | None] = []

    def make(settings: object, *, logger: object) -> Producer:
        made.append(settings)
        return cast("Producer", SilentProducer())

    outbox = KafkaOutbox({}, SystemClock(), make)
    for _ in range(3):
        outbox.send(LETTER, answers.append)

    outbox.poll()

    assert answers == ["_FATAL"] * 3
    assert len(made) == 2
