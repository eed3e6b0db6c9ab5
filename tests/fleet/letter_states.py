"""What the state topic of a real cluster says of dead letters."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from streamworker.clock import SystemClock
from streamworker.librdkafka import topic_log_settings
from streamworker.record import TopicPartition
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import State, decode, letter_of, state_topic
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.config import Config

TIMEOUT_S = 20.0


def states(settings: Config, dead_letters: str, partitions: int) -> Mapping[LetterId, State]:
    """Of each letter that there is, in order."""
    found: dict[LetterId, State] = {}
    with closing(TopicLog(topic_log_settings(settings.kafka), SystemClock())) as log:
        for number in range(partitions):
            start, end = log.bounds(TopicPartition(dead_letters, number), TIMEOUT_S)
            found.update({LetterId(number, offset): State.PENDING for offset in range(start, end)})
            said = TopicPartition(state_topic(dead_letters), number)
            for batch in log.read({said: log.bounds(said, TIMEOUT_S)}, TIMEOUT_S):
                for record in batch:
                    letter, disposition = letter_of(record.key()), decode(record.value() or b"")
                    if letter is not None and disposition is not None:
                        found[letter] = disposition.state
    return found
