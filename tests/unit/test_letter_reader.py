"""Reading single letters with their values, over a log in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from memory_log import MemoryLog

from streamworker.record import TopicPartition
from streamworker.replay import families
from streamworker.replay.dead_record import LetterId
from streamworker.replay.letter_reader import LetterReader

if TYPE_CHECKING:
    from streamworker.replay.topic_log import TopicLog

TOPIC = "orders.dlq"
MIB = 1024 * 1024


def test_of_large_letters_only_some_are_held_at_once() -> None:
    log = MemoryLog(at_once=4)
    large = bytes(MIB)
    for _ in range(20):
        log.append(TOPIC, value=large)
    wanted = [LetterId(0, offset) for offset in range(20) if offset != 13]

    read = LetterReader(cast("TopicLog", log), TOPIC, families.read, 1.0).read(wanted)
    first = next(read)

    assert [first.id, *(one.id for one in read)] == wanted
    assert log.read_ranges == [{TopicPartition(TOPIC, 0): (start, 20)} for start in (0, 8, 17)]
